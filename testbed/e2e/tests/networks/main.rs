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
mod identity;
mod numbers;
mod private;
mod reflector;
mod relays;
mod repair;
mod transports;
mod workload;

use peernet_api::report::Report;

pub(crate) fn connected_peers(report: &Report) -> Vec<String> {
    report
        .peers
        .iter()
        .filter(|peer| peer.connected)
        .map(|peer| peer.name.clone())
        .collect()
}
