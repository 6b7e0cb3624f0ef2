//! What was measured.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::transport::Transport;

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
