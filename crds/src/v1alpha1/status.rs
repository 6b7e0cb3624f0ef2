//! What the operator saw.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::transport::Transport;

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
/// have the first 8. Of these, the first is that of libp2p, the second (TCP) that of HTTP, and the third (UDP) that of STAMP.
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

/// A distribution of times within the last `spec.probe.window`, in microseconds. It is left out if its newest sample is older
/// than three times `spec.probe.interval` and `spec.probe.timeout`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Median, in microseconds.
    pub p50_micros: i64,
    /// 90th percentile, in microseconds.
    pub p90_micros: i64,
    /// 99th percentile, in microseconds.
    pub p99_micros: i64,
    /// Largest, in microseconds.
    pub max_micros: i64,
    /// Number of samples that these stand on.
    pub samples: i64,
    /// When the newest of them was taken, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_time: Option<Time>,
}

/// The network's own round-trip times, and what they are worth.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkDistribution {
    /// The times.
    #[serde(flatten)]
    pub times: Distribution,
    /// Which clock stamped the packets.
    pub clock: Clock,
    /// Samples that a host was late for by more than 3 ms. With the kernel's clock their network time stands; without it,
    /// they are in no number.
    pub host_limited: i64,
    /// Answered probes without a round trip: a clock was stepped between the stamps, or a stamp was missing.
    pub voided: i64,
}

/// Which clock stamped STAMP's packets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Clock {
    /// The kernels of both hosts: the time that agents wait for a CPU is not in the round trip.
    #[default]
    Kernel,
    /// The agents themselves, at one end or at both: the time that they wait for a CPU is in the round trip. Columns show
    /// such numbers with a `~`.
    UserSpace,
    /// Some pairs have the one, some the other. Columns show such numbers with a `~`.
    Mixed,
}

/// What got lost within the last `spec.probe.window`. A pair whose newest probe is too old is left out, as with round trips.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LossStatus {
    /// Probes of libp2p ping without an answer in time, in millionths of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub ppm: Option<i32>,
    /// Number of probes that this stands on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<i64>,
    /// When the newest of them came to an end, answered or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_probe_time: Option<Time>,
    /// Segments that TCP sent again on the measured connections. Each shows as a round trip of some 200 ms, and never as
    /// loss. Left out if no agent can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_retransmissions: Option<i64>,
    /// STAMP packets lost on the way there, in millionths of those whose fate is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub forward_ppm: Option<i32>,
    /// Answers to STAMP packets lost on the way back, in millionths of the packets that got there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub backward_ppm: Option<i32>,
    /// STAMP packets that nobody knows yet where they got lost, in millionths of all: a later answer tells. If no answer
    /// comes any more, all losses end up here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub undirected_ppm: Option<i32>,
    /// Number of STAMP packets that the last three stand on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_probes: Option<i64>,
    /// When the newest of them came to an end, answered or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_udp_probe_time: Option<Time>,
}

/// The links between the nodes over one transport.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportStatus {
    /// The transport.
    pub transport: Transport,
    /// Links from one node to another that should stand over it, as the nodes see that reported.
    pub expected_links: i32,
    /// Those of them that do.
    pub connected_links: i32,
    /// Median of the cold round-trip time, in microseconds. Like the next ones, it is left out if nothing was measured of
    /// late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p50_micros: Option<i64>,
    /// 99th percentile of the cold round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p99_micros: Option<i64>,
    /// Median of the warm round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_p50_micros: Option<i64>,
    /// Number of cold round trips measured.
    pub samples: i64,
    /// When the newest of them was taken, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_time: Option<Time>,
    /// Probes without an answer in time, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,
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
    /// 99th percentile of the cold round-trip time, in microseconds.
    pub rtt_p99_micros: i64,
    /// Probes of libp2p ping without an answer in time, in millionths. Left out if no probe came to an end of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,
    /// Number of cold round trips measured.
    pub samples: i64,
    /// When the newest of them was taken, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_time: Option<Time>,
    /// 99th percentile of the network's own round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_p99_micros: Option<i64>,
    /// 99th percentile of the time in both hosts, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_p99_micros: Option<i64>,
    /// Which clock stamped the packets that the network's time stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// STAMP packets lost on the way to the node that answers, in millionths of those whose fate is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub forward_loss_ppm: Option<i32>,
    /// Answers lost on the way back, in millionths of the packets that got there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub backward_loss_ppm: Option<i32>,
    /// Whose host is late, if more than 1 % of the samples waited in the hosts for more than 3 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_end: Option<LateEnd>,
    /// What was the network and what the hosts, in words: `network 41us, hosts 160us`. Both are 99th percentiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub breakdown: Option<String>,
}

/// The end of a pair whose host is late.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum LateEnd {
    /// The host of the node that sent the probes.
    From,
    /// The host of the node that answered.
    To,
    /// Both hosts.
    Both,
}

/// The round trips from the nodes of one zone to those of another, or of the same.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZonePair {
    /// The zone of the nodes that sent the probes.
    #[schemars(length(max = 63))]
    pub from: String,
    /// The zone of the nodes that answered.
    #[schemars(length(max = 63))]
    pub to: String,
    /// Median of the cold round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p50_micros: Option<i64>,
    /// 99th percentile of the cold round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p99_micros: Option<i64>,
    /// Number of cold round trips measured.
    pub samples: i64,
    /// When the newest sample of either kind was taken, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_time: Option<Time>,
    /// Median of the network's own round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_p50_micros: Option<i64>,
    /// 99th percentile of the network's own round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_p99_micros: Option<i64>,
    /// Number of these round trips measured.
    pub network_samples: i64,
    /// Which clock stamped the packets that these stand on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// Probes of libp2p ping without an answer in time, in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub loss_ppm: Option<i32>,
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
    /// Whether a relay could dial it (AutoNAT v2), if one has tried: each of its addresses is tried once, soon after it starts.
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
