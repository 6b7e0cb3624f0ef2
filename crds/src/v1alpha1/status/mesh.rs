//! Who is connected to whom, and how.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::numbers::Distribution;

/// How nodes first heard of the peers that they are connected to: the number of such pairs, each counted from both ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DiscoveryStatus {
    /// By the DNS of the headless Service.
    pub dns: i32,
    /// By multicast DNS on the local network.
    pub mdns: i32,
    /// By another member, through the DHT.
    pub kademlia: i32,
    /// By `spec.discovery.bootstrapPeers`.
    pub bootstrap: i32,
    /// By a member that relays, or by a circuit through one.
    pub relay: i32,
    /// Not before the peer connected by itself: it had heard of the node first.
    pub inbound: i32,
}

/// A host outside the network, as all nodes that report see it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalStatus {
    /// Its peer id.
    #[schemars(length(max = 128))]
    pub peer_id: String,
    /// Where the nodes look for it.
    #[schemars(length(max = 256))]
    pub address: String,
    /// Number of nodes that are connected to it.
    pub connected_nodes: i32,
    /// Number of nodes that report of it.
    pub reporting_nodes: i32,
    /// Median of the cold round-trip time of libp2p ping from all nodes, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p50_micros: Option<i64>,
    /// 99th percentile of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p99_micros: Option<i64>,
    /// Number of round trips measured.
    pub samples: i64,
    /// When the newest of them was taken, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_time: Option<Time>,
    /// Probes without an answer in time, in millionths. Left out if no probe came to an end of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,
}

/// A block of ports, for TCP and UDP alike. Each agent of a StatefulSet has 8 of them, by its ordinal; in a DaemonSet all
/// have the first 8. Of these, the first is that of libp2p (TCP, and UDP with QUIC), the second (TCP) that of HTTP, the third (UDP)
/// that of STAMP, the fourth (TCP) that of the API, and the fifth (TCP) that of libp2p over WebSocket.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPorts {
    /// The first port.
    pub first: i32,
    /// The last port.
    pub last: i32,
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

/// By which ways the nodes are connected to each other.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathsStatus {
    /// Pairs of nodes with a connection of their own.
    pub direct: i32,
    /// Pairs of nodes that are connected through a relay alone. They count as connected, and are in none of the numbers outside of
    /// `paths`.
    pub relayed: i32,
    /// Cold round-trip times through relays, from one end of a relayed pair to the other and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed_rtt: Option<Distribution>,
    /// Probes through relays without an answer in time, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub relayed_loss_ppm: Option<i32>,
    /// The relayed pairs with the longest round trips, worst first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub relayed_pairs: Vec<RelayedPair>,
    /// The members of other networks that share this network's secret, if its nodes are connected to any: a federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federated: Option<FederatedStatus>,
}

/// Two nodes that are connected through a relay alone, as one of them sees it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayedPair {
    /// The node that sent the probes.
    #[schemars(length(max = 253))]
    pub from: String,
    /// The node that answered.
    #[schemars(length(max = 253))]
    pub to: String,
    /// The member that relays, if it is known. It may be one of a federated network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub relay: Option<String>,
    /// Median of the cold round-trip time through the relay, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p50_micros: Option<i64>,
    /// 99th percentile of the cold round-trip time through the relay, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p99_micros: Option<i64>,
    /// Median of the cold round-trip time from `from` to the relay alone, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_rtt_p50_micros: Option<i64>,
    /// Probes through the relay without an answer in time, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,
    /// Number of cold round trips measured.
    pub samples: i64,
}

/// The members of other networks that share this network's secret.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedStatus {
    /// Number of such members that any node is connected to.
    pub members: i32,
    /// Connections of their own that the nodes have to them.
    pub direct: i32,
    /// Circuits through relays that the nodes have to them.
    pub relayed: i32,
    /// Cold round-trip times over the direct ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<Distribution>,
    /// Cold round-trip times through relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed_rtt: Option<Distribution>,
}

/// A service, and who provides it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Providers that every agent finds: those that the agent with the fewest found, of the agents that reported a search of the
    /// last two minutes. Left out if there is none. A provider that has ended is found for up to two minutes more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub providers: Option<i32>,
}
