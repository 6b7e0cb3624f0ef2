//! The headless Service that makes the agents' addresses known by DNS.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{metadata, pod::p2p_ports, selector_labels};
use crate::network::Network;

pub(super) fn headless(network: &Network) -> Service {
    let identity = &network.identity;
    let port = |(name, port, protocol): (&str, u16, &str)| ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        protocol: Some(protocol.to_owned()),
        // Not by name: the pods of a StatefulSet with `hostNetwork` name no ports.
        target_port: Some(IntOrString::Int(i32::from(port))),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(identity, identity.name.clone()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // An agent is ready once it is up, but it must be found before: the mesh forms from agents that are starting.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector_labels(identity)),
            ports: Some(
                p2p_ports(network)
                    .chain([("http", network.ports.http, "TCP")])
                    .map(port)
                    .collect(),
            ),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
