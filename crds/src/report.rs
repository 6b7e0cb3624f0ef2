//! What an agent tells the operator: one member's view of its peers over the sliding window.
//!
//! The report is JSON inside a signed envelope ([`crate::envelope`]). Fields may be added; a reader ignores what it does
//! not know. All ages and spans come from the agent's monotonic clock, so that a stepped wall clock changes nothing.

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// The version of this format. A reader refuses others.
pub const VERSION: u32 = 1;
/// Longest report that the operator reads, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most peers that an agent reports.
pub const MAX_PEERS: usize = 512;
/// Longest nonce, in characters.
pub const MAX_NONCE: usize = 64;
/// Path on the agent's HTTP port. Needs the query parameter `nonce`: 1 to [`MAX_NONCE`] hex digits.
pub const PATH: &str = "/v1/report";
/// Port on which agents speak HTTP.
pub const HTTP_PORT: u16 = 8080;
/// Port on which agents speak libp2p over TCP.
pub const P2P_PORT: u16 = 4001;

/// One agent's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The nonce of the request that this answers: a replayed report has another one.
    pub nonce: String,
    /// The network that the agent serves, as `namespace/name`.
    pub network: String,
    /// The name that the agent's identity was derived from.
    pub name: String,
    /// Version of the agent's program.
    pub agent_version: String,
    /// Time since the agent started, in milliseconds.
    pub uptime_millis: u64,
    /// Length of the sliding window that the numbers cover, in milliseconds.
    pub window_millis: u64,
    /// Age of the newest sign of life from the agent's event loop, in milliseconds: a stuck agent can still answer HTTP.
    pub heartbeat_age_millis: u64,
    /// Measurements that were lost inside the agent because it could not keep up, since its start.
    pub events_dropped: u64,
    /// The members that this agent knows, at most [`MAX_PEERS`], ordered by name.
    pub peers: Vec<PeerReport>,
}

/// One agent's view of one other member, over the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// The peer's id, in base58.
    pub peer_id: String,
    /// The name that the peer's id was derived from.
    pub name: String,
    /// Whether a connection to the peer stands now.
    pub connected: bool,
    /// Probes that were answered in time.
    pub answered: u64,
    /// Probes that no answer came to in time. They are loss, and in no latency.
    pub timed_out: u64,
    /// Probes that failed at once: the stream was reset, refused or not supported. They are loss, too.
    pub failed: u64,
    /// Age of the newest answer, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_age_millis: Option<u64>,
    /// Round-trip times of the answered probes, in nanoseconds.
    pub rtt: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_may_add_fields() {
        let json = r#"{"version":1,"nonce":"00","network":"a/b","name":"b-0","agentVersion":"9","uptimeMillis":1,
            "windowMillis":1,"heartbeatAgeMillis":0,"eventsDropped":0,"later":{},
            "peers":[{"peerId":"x","name":"b-1","connected":true,"answered":1,"timedOut":0,"failed":0,"rtt":[[64,1]],"later":1}]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        assert_eq!(report.peers[0].rtt.count(), 1);
        assert_eq!(report.peers[0].newest_sample_age_millis, None);
    }
}
