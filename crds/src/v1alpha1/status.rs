//! What the operator saw.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most rows of [`PeerNetworkStatus::nodes`].
pub const MAX_NODE_ROWS: usize = 64;
/// Most rows of [`PeerNetworkStatus::worst_links`].
pub const MAX_WORST_LINKS: usize = 5;

/// What the operator saw of the network: a bounded summary. A number that is not known is left out.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PeerNetworkStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Connected`, `Reconciling` and `Stalled`.
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

    /// Connections between the nodes, if any node reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersStatus>,

    /// Round-trip time of libp2p ping over all pairs of nodes, if any was measured within the window. Percentiles come
    /// from the merged distributions of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<RttStatus>,

    /// Probes without an answer in time, in millionths of all probes sent within the window. Left out if none was sent.
    /// A peer without a connection is not probed: it shows in `peers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,

    /// The pairs of nodes with the highest 99th percentile, worst first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub worst_links: Vec<Link>,

    /// The network's nodes, those with trouble first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<NodeStatus>,

    /// Number of nodes that `nodes` has no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_omitted: Option<i32>,

    /// When the newest sample behind these numbers was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sample_time: Option<Time>,

    /// Texts for the columns of `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
}

/// Connections between the nodes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeersStatus {
    /// Peers that each node should be connected to.
    pub expected: i32,
    /// Peers that the node with the fewest is connected to, of the nodes that reported. What a node without a report is
    /// connected to is not known: it shows in `nodes`, and its peers miss it here.
    pub fewest_connected: i32,
}

/// A distribution of round-trip times, in microseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RttStatus {
    /// Median, in microseconds.
    pub p50_micros: i64,
    /// 90th percentile, in microseconds.
    pub p90_micros: i64,
    /// 99th percentile, in microseconds.
    pub p99_micros: i64,
    /// Largest, in microseconds.
    pub max_micros: i64,
    /// Number of round trips that these stand on.
    pub samples: i64,
}

/// The round trips from one node to another.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The node that sent the probes.
    #[schemars(length(max = 253))]
    pub from: String,
    /// The node that answered.
    #[schemars(length(max = 253))]
    pub to: String,
    /// 99th percentile of the round-trip time, in microseconds.
    pub rtt_p99_micros: i64,
    /// Probes without an answer in time, in millionths.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: i32,
    /// Number of round trips measured.
    pub samples: i64,
}

/// One node of the network.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name that its identity follows from: the pod's in a StatefulSet, the Kubernetes node's in a DaemonSet.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Name of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// Name of the Kubernetes node that its pod runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// The peer id that it must have, if the network's Secret can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub peer_id: Option<String>,
    /// Whether its pod is ready.
    pub ready: bool,
    /// What became of its last report.
    pub report: ReportOutcome,
    /// Number of this network's nodes that it is connected to, if it reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_peers: Option<i32>,
    /// 99th percentile of its round trips to all peers, in microseconds, if it measured any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_p99_micros: Option<i64>,
}

/// What became of a node's report. Only accepted ones are in any number.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema,
)]
pub enum ReportOutcome {
    /// Its pod does not run, so none was asked for.
    #[default]
    NotAsked,
    /// It is in the numbers.
    Accepted,
    /// The pod could not be reached, or did not speak HTTP as it should.
    Unreachable,
    /// No answer came in time.
    TimedOut,
    /// It is longer than 2 MiB.
    TooLarge,
    /// It is no report, or one of a version that the operator does not know.
    Undecodable,
    /// The signature does not fit.
    WrongSignature,
    /// It was signed by another peer than this node must be.
    WrongPeer,
    /// It answers another question (a replay), or the agent behind it has stopped measuring.
    Stale,
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
    /// Median round-trip time: `212us`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub rtt_p50: Option<String>,
    /// 99th percentile of the round-trip time: `1.4ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub rtt_p99: Option<String>,
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
