//! Version `v1alpha1` of the `peernet.dev` API.
//!
//! The doc comments of these types become the descriptions that `kubectl explain peernetwork` shows: they are written
//! for users. Every list, map and string has a bound, numbers are signed integers with their unit in the name, and what
//! can be checked without looking at the cluster is checked at admission (schema and CEL), not by a webhook.

pub mod conditions;
mod guests;
mod schema;
mod spec;
mod status;

pub use guests::Guests;
pub use spec::{
    ApiAccess, Discovery, ImagePullPolicy, ImagePullSecret, PeerNetwork, PeerNetworkSpec, PodTemplate,
    PrivateNetwork, PrivateNetworkSecret, Probe, Relay, RelayLimits, Resources, Stamp, Toleration,
    TolerationEffect, TolerationOperator, TopologySpreadConstraint, WhenUnsatisfiable, Workload,
};
pub use status::{
    Clock, Columns, DiscoveryStatus, Distribution, ExternalStatus, FederatedStatus, HostPorts, LateEnd, Link,
    LossStatus, MAX_EXTERNAL_ROWS, MAX_NODE_ROWS, MAX_RELAYED_PAIRS, MAX_STRANGERS, MAX_WORST_LINKS,
    MAX_ZONE_PAIRS, NetworkDistribution, NodeStatus, PathsStatus, PeerNetworkStatus, PeersStatus,
    PrivateNetworkStatus, RelayedPair, ReportOutcome, ServiceStatus, Stranger, StrangerReason,
    StrangersStatus, TransportStatus, ZonePair,
};

/// The CustomResourceDefinition as YAML, as it lies in `crds/peernetworks.yaml` and in the chart.
///
/// # Errors
/// If the definition can't be written as YAML.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    use kube::CustomResourceExt;
    let yaml = serde_saphyr::to_string(&PeerNetwork::crd())?;
    Ok(format!(
        "# Generated from crds/src/v1alpha1 by `make generate`. Do not edit.\n{yaml}"
    ))
}
