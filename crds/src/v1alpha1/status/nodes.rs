//! The nodes one by one, and who was turned away.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// 99th percentile of its cold round trips to all peers, in microseconds, if it measured any of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_p99_micros: Option<i64>,
    /// When the newest of these was taken, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_time: Option<Time>,
    /// 99th percentile of the host delay, in microseconds: the time that its own STAMP probes waited in its host, and that
    /// those of its peers waited in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_delay_p99_micros: Option<i64>,
    /// Share of the window in which its CPU limit kept its agent from running, in millionths. Left out if the kernel does
    /// not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub throttled_ppm: Option<i32>,
    /// Number of libp2p probes that its own host delayed by more than 3 ms. Those whose answer the agent was not there to hear
    /// are no loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_limited: Option<i64>,
    /// With relays: whether others can dial it, which is known once a member has, or a relay has tried (AutoNAT v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// The key of a private network.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateNetworkStatus {
    /// Fingerprint of the key that agents are to connect by: the first one of the Secret. It tells nothing about the key.
    #[schemars(length(max = 16))]
    pub key_fingerprint: String,
    /// Nodes that connect by it, of those that reported. While a change of the Secret makes its way, some still connect by
    /// the key before.
    pub nodes_on_key: i32,
    /// Nodes that reported.
    pub nodes_reporting: i32,
}

/// Who was turned away.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StrangersStatus {
    /// How often somebody was turned away since the agents' start, over all nodes that reported.
    pub turned_away: i64,
    /// Those turned away within the last 10 minutes, the last one first, at most 8.
    #[schemars(length(max = 8))]
    pub recent: Vec<Stranger>,
}

/// One address that was turned away.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stranger {
    /// Where it is: an IP address.
    #[schemars(length(max = 64))]
    pub address: String,
    /// Why it was turned away.
    pub reason: StrangerReason,
    /// The libp2p peer that it is, if it came that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub peer_id: Option<String>,
    /// The node that turned it away last.
    #[schemars(length(max = 253))]
    pub node: String,
    /// When, for the last time, by the API server's clock.
    pub last_time: Time,
}

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub enum StrangerReason {
    /// It began without the key of the private network, as if there were none.
    WithoutKey,
    /// It does not have a key that is accepted here.
    AnotherKey,
    /// It does not hold the network's Secret.
    NoMember,
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
