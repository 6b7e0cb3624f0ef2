//! Networks that work: from nothing to true numbers, their workloads and ways of discovery, their changes, and their end.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod discovery;
mod examples;
mod guests;
mod host_network;
mod identity;
mod numbers;
mod private;
mod reflector;
mod relays;
mod repair;
mod scenarios;
mod transports;
mod workload;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use peernet_api::report::Report;
use peernet_e2e::{Outcome, scenario::Scenario};

/// The names of the nodes that take any pod.
pub(crate) async fn free_nodes(scenario: &Scenario) -> Outcome<Vec<String>> {
    let nodes: Api<Node> = Api::all(scenario.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let free = nodes
        .iter()
        .filter(|node| node.spec.as_ref().is_none_or(|spec| spec.taints.is_none()));
    Ok(free
        .filter_map(|node| node.labels().get("kubernetes.io/hostname").cloned())
        .collect())
}

pub(crate) fn connected_peers(report: &Report) -> Vec<String> {
    report
        .peers
        .iter()
        .filter(|peer| peer.connected)
        .map(|peer| peer.name.clone())
        .collect()
}
