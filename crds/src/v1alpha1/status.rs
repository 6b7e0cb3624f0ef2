//! What the operator saw.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

mod mesh;
mod nodes;
mod numbers;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    mesh::{
        DiscoveryStatus, ExternalStatus, FederatedStatus, HostPorts, PathsStatus, PeersStatus, RelayedPair,
        ServiceStatus,
    },
    nodes::{NodeStatus, PrivateNetworkStatus, ReportOutcome, Stranger, StrangerReason, StrangersStatus},
    numbers::{
        Clock, Distribution, LateEnd, Link, LossStatus, NetworkDistribution, TransportStatus, ZonePair,
    },
};

/// Most rows of [`PeerNetworkStatus::nodes`].
pub const MAX_NODE_ROWS: usize = 64;
/// Most rows of [`PeerNetworkStatus::worst_links`].
pub const MAX_WORST_LINKS: usize = 5;
/// Most rows of [`StrangersStatus::recent`].
pub const MAX_STRANGERS: usize = 8;
/// Most rows of [`PeerNetworkStatus::external`].
pub const MAX_EXTERNAL_ROWS: usize = 16;
/// Most rows of [`PeerNetworkStatus::zones`].
pub const MAX_ZONE_PAIRS: usize = 16;
/// Most rows of [`PathsStatus::relayed_pairs`].
pub const MAX_RELAYED_PAIRS: usize = 5;

/// What the operator saw of the network: a bounded summary. A number that is not known is left out.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PeerNetworkStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Connected`, `Reconciling` and `Stalled`. `Unknown`: what it rests on is not known, or old.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Number of pods that exist.
    #[serde(default)]
    pub replicas: i32,

    /// Number of nodes that are wanted: `spec.replicas`, or the cluster's nodes that a DaemonSet covers.
    #[serde(default)]
    pub desired_replicas: i32,

    /// Number of pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Label selector of the pods, as the scale subresource and autoscalers want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,

    /// The ports that the network has on its nodes, with `spec.hostNetwork`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ports: Option<HostPorts>,

    /// Connections between the nodes, if any node reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersStatus>,

    /// Guests with a connection, summed over the nodes that reported: one that is connected to three nodes counts three
    /// times. Left out where `spec.guests` lets none in, or no node reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<i32>,

    /// By which ways the nodes are connected to each other, if any node reported: directly, or through a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathsStatus>,

    /// How the nodes that report first heard of the peers that they are connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryStatus>,

    /// The hosts outside the network that `spec.discovery.bootstrapPeers` names, at most 16. They are measured apart: their
    /// numbers are in no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["peerId".into()]))]
    pub external: Vec<ExternalStatus>,

    /// Cold round-trip times of libp2p ping over all pairs of nodes: the first answer of each burst, what a rare request
    /// feels, with the time that both hosts took. Percentiles come from the merged distributions of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<Distribution>,

    /// Warm round-trip times of libp2p ping: the smallest of each burst, the floor of the path through both hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Distribution>,

    /// The network's own round-trip times, by STAMP (RFC 8762) with the kernel's timestamps: without the time that either
    /// host took to run its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkDistribution>,

    /// Time that the same STAMP probes spent in both hosts together, before, between and after the network. Only the kernel's
    /// timestamps tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Distribution>,

    /// Probes without an answer in time, in millionths of all probes: `loss.ppm`. A peer without a connection is not
    /// probed: it shows in `peers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,

    /// What got lost, by way and direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossStatus>,

    /// The same links over each of the transports that the nodes speak, at most 8. A transport that connects fewer links than
    /// it should is blocked somewhere; one whose round trips are longer than another's is slower here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["transport".into()]))]
    pub transports: Vec<TransportStatus>,

    /// The pairs of nodes with the highest 99th percentile of the cold round-trip time, worst first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub worst_links: Vec<Link>,

    /// The round trips from zone to zone, worst first, at most 16. A node's zone is the label
    /// `topology.kubernetes.io/zone` of its pod, which Kubernetes 1.35 and later copies from the Kubernetes node. A node
    /// without it is in no zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub zones: Vec<ZonePair>,

    /// Number of pairs of zones that `zones` has no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones_omitted: Option<i32>,

    /// The network's nodes, those with trouble first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<NodeStatus>,

    /// Number of nodes that `nodes` has no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_omitted: Option<i32>,

    /// The key of the private network, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_network: Option<PrivateNetworkStatus>,

    /// Who was turned away of late. Left out if nobody was within the last 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strangers: Option<StrangersStatus>,

    /// The services of `spec.services`, and how many providers of each the agents find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub services: Vec<ServiceStatus>,

    /// When the newest sample behind these numbers was taken, by the API server's clock. If this grows old, so do the numbers:
    /// nobody writes them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sample_time: Option<Time>,

    /// When the network was Ready for the first time. Until then, what is missing is expected, and no Event warns of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ready_time: Option<Time>,

    /// Texts for the columns of `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
}

/// Texts for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Columns {
    /// Nodes that are ready, of those wanted: `3/3`.
    #[schemars(length(max = 32))]
    pub nodes: String,
    /// Fewest peers that a node is connected to, of those expected: `2/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub peers: Option<String>,
    /// Median of the cold round-trip time: `212us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub rtt_p50: Option<String>,
    /// 99th percentile of the cold round-trip time: `1.4ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub rtt_p99: Option<String>,
    /// Median of the network's own round-trip time: `27us`, or `~27us` if it is not the kernel's stamps alone that it stands on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub net_p50: Option<String>,
    /// 99th percentile of the network's own round-trip time: `100us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub net_p99: Option<String>,
    /// 99th percentile of the time in both hosts: `45ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub host_p99: Option<String>,
    /// What was the network and what the hosts, both as 99th percentiles: `network 41us, hosts 160us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub breakdown: Option<String>,
    /// Probes without an answer: `0.2%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub loss: Option<String>,
    /// The worst pair: `demo-0 -> demo-2 1.4ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    pub worst_link: Option<String>,
    /// Image that the nodes are to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
}
