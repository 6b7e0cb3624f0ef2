//! The headless Service that makes the agents' addresses known by DNS.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use peernet_api::report::{HTTP_PORT, P2P_PORT};

use super::{metadata, selector_labels};
use crate::network::Network;

pub(super) fn headless(network: &Network) -> Service {
    let identity = &network.identity;
    let port = |name: &str, port: u16| ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(identity, identity.name.clone()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // An agent is ready once it is up, but it must be found before: the mesh forms from agents that are starting.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector_labels(identity)),
            ports: Some(vec![port("p2p", P2P_PORT), port("http", HTTP_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
