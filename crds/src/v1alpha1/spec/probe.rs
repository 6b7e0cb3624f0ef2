//! What agents measure.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::yes;

/// What agents measure, and how often.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.interval) >= duration('100ms') && duration(self.interval) <= duration('1h')")
        .message("spec.probe.interval: use a duration from 100ms to 1h"),
    validation = Rule::new("duration(self.timeout) >= duration('10ms') && duration(self.timeout) <= duration('60s')")
        .message("spec.probe.timeout: use a duration from 10ms to 60s"),
    validation = Rule::new("duration(self.window) >= duration('10s') && duration(self.window) <= duration('24h')")
        .message("spec.probe.window: use a duration from 10s to 24h"),
    validation = Rule::new("duration(self.window).getMilliseconds() >= 10 * duration(self.interval).getMilliseconds()")
        .message("spec.probe.window: use at least ten times spec.probe.interval, so that percentiles stand on samples"),
)]
pub struct Probe {
    /// Time from one probe of a peer to the next, as `1s` or `500ms`. The pace is kept (with a little jitter) whether or
    /// not answers come. A probe is a burst of libp2p pings and, if `stamp` is enabled, one STAMP packet.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub interval: String,

    /// Time after which a probe without an answer counts as lost. A lost probe is never part of a round-trip time.
    #[serde(default = "default_timeout")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub timeout: String,

    /// Span of time that the reported numbers cover: they are those of the last `window`.
    #[serde(default = "default_window")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub window: String,

    /// Most peers that an agent connects to on its own. In a larger network each agent takes a stable choice, so that the
    /// cost per agent stays the same however many there are.
    #[serde(default = "default_peers_per_node")]
    #[schemars(range(min = 1, max = 256))]
    pub peers_per_node: i32,

    /// Pings of one burst. The first one leaves at the pace of `interval`, each next one as soon as the answer before it
    /// came. The first answer is the cold round trip, what a rare request feels; the smallest of the burst is the warm one,
    /// the path's floor. With 1, the two are the same.
    #[serde(default = "default_burst")]
    #[schemars(range(min = 1, max = 16))]
    pub burst: i32,

    /// The probe that tells the network's own time from the hosts'.
    #[serde(default)]
    pub stamp: Stamp,
}

/// The probe that tells the network's own time from the hosts': STAMP (RFC 8762) over UDP, with the kernel's timestamps.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.enabled || !self.openReflector").message(
    "spec.probe.stamp.openReflector: needs spec.probe.stamp.enabled, since without STAMP there is no reflector"))]
pub struct Stamp {
    /// Send one STAMP packet to each peer in each `interval`, over UDP, to port 8620 of its pod. Turn it off where the
    /// cluster network carries no UDP. Without it, the network's own time, the hosts' time and the direction of losses
    /// are not known.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// Also answer unauthenticated STAMP packets of anybody who can reach UDP port 8620 of the pods, so that other STAMP
    /// senders (routers, probes of other makes) can measure towards the agents. Answers are never longer than what asks
    /// for them, and limited in rate. Without it, strangers get no answer.
    #[serde(default)]
    pub open_reflector: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: default_interval(),
            timeout: default_timeout(),
            window: default_window(),
            peers_per_node: default_peers_per_node(),
            burst: default_burst(),
            stamp: Stamp::default(),
        }
    }
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            enabled: true,
            open_reflector: false,
        }
    }
}

fn default_interval() -> String {
    "1s".to_owned()
}

fn default_timeout() -> String {
    "2s".to_owned()
}

fn default_window() -> String {
    "5m".to_owned()
}

fn default_peers_per_node() -> i32 {
    64
}

fn default_burst() -> i32 {
    5
}
