//! What an agent tells the operator: one member's view of its peers over the sliding window.
//!
//! The report is JSON inside a signed envelope ([`crate::envelope`]). Fields may be added; a reader ignores what it does
//! not know. All ages and spans come from the agent's monotonic clock, so that a stepped wall clock changes nothing.

use serde::{Deserialize, Serialize};

use crate::{histogram::Histogram, transport::Transport};

/// The version of this format. A reader refuses others.
pub const VERSION: u32 = 2;
/// Longest report that the operator reads, in bytes. One on 100 peers, with five minutes of samples at one probe a second
/// that spread as on a busy cluster, has some 490,000: 4,900 a peer.
pub const MAX_BYTES: usize = 2 << 20;
/// Most peers that an agent reports.
pub const MAX_PEERS: usize = 512;
/// Most strangers that an agent names.
pub const MAX_STRANGERS: usize = 8;
/// Most hosts outside the network that an agent reports.
pub const MAX_EXTERNAL: usize = 16;
/// Longest nonce, in characters.
pub const MAX_NONCE: usize = 64;
/// Path on the agent's HTTP port. Needs the query parameter `nonce`: 1 to [`MAX_NONCE`] hex digits.
pub const PATH: &str = "/v1/report";
/// Port on which agents speak HTTP.
pub const HTTP_PORT: u16 = 8080;
/// Port on which agents speak libp2p: over TCP, and of UDP over QUIC.
pub const P2P_PORT: u16 = 4001;
/// TCP port on which agents speak libp2p over WebSocket.
pub const WEBSOCKET_PORT: u16 = 4002;
/// UDP port on which agents reflect STAMP probes. The protocol's own port, 862, is a privileged one.
pub const STAMP_PORT: u16 = 8620;
/// Port on which agents serve their API: records, services, peers.
pub const API_PORT: u16 = 8081;
/// Most services that a network's agents advertise.
pub const MAX_SERVICES: usize = 16;
/// Longest name of such a service, in bytes.
pub const MAX_SERVICE_NAME: usize = 63;
/// A host that takes longer than this to let its agent run, on either side of a round trip, was late. A host that does
/// nothing else wakes a process within this time, timers of whole milliseconds included.
pub const HOST_LATE_NANOS: u64 = 3_000_000;

/// One agent's report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether others can dial this agent: `true` once a member has, else what came of a relay's trial (AutoNAT v2). Each
    /// address is tried once, some seconds after a relay first saw the agent there. Left out while neither is known, or if
    /// the agent uses no relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// The transports that the agent speaks. The numbers of [`PeerReport`] itself are those of the first.
    #[serde(default = "only_tcp")]
    pub transports: Vec<Transport>,
    /// What the agent's own host did to it, over the window.
    #[serde(default)]
    pub host: HostReport,
    /// The keys of the private network. Left out if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_network: Option<PrivateNetworkReport>,
    /// Who was turned away.
    #[serde(default)]
    pub strangers: StrangersReport,
    /// Guests that are connected to this agent. Left out where the network receives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<u32>,
    /// The services that agents are to advertise, at most [`MAX_SERVICES`], and who was found to do so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceReport>,
    /// The members that this agent knows, at most [`MAX_PEERS`], ordered by name.
    pub peers: Vec<PeerReport>,
    /// The hosts outside the network that this agent is told to connect to, at most [`MAX_EXTERNAL`]: those of the bootstrap
    /// peers that have not shown that they are members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<ExternalReport>,
}

fn only_tcp() -> Vec<Transport> {
    vec![Transport::Tcp]
}

/// What an agent found of a service by the DHT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// The service's name.
    pub name: String,
    /// Providers that the newest search found, this agent among them. Left out before the first search has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub providers: Option<u32>,
    /// Age of that search, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_millis: Option<u64>,
}

/// What an agent's own host did to it, over the window. Times of the kernel are left out where it does not tell them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// Time that STAMP probes of this agent spent in its own host, before and after the network, in nanoseconds: one
    /// entry a sample, whoever the peer was.
    pub delay: Histogram,
    /// How late the event loop's timer was served, in nanoseconds. Timers have whole milliseconds: up to one of them is
    /// the timer's own.
    pub loop_lag: Histogram,
    /// Time that the agent's threads were ready to run and waited for a CPU, in microseconds, summed over the threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_delay_micros: Option<u64>,
    /// CPU time that the agent used, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_micros: Option<u64>,
    /// Time that the agent's control group was kept from running by its CPU limit, in microseconds. Where several CPUs
    /// were withheld at once, the kernel counts each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_micros: Option<u64>,
    /// How often that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Path {
    /// A connection of its own.
    #[default]
    Direct,
    /// A circuit through a member that relays (libp2p circuit relay v2).
    Relayed,
}

/// One agent's view of one other member, over the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// The peer's id, in base58.
    pub peer_id: String,
    /// The name that the peer's id was derived from.
    pub name: String,
    /// Whether a connection to the peer stands now, over any transport.
    pub connected: bool,
    /// The way to it that is measured now. Left out while it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// Name of the member that relays, while the way is relayed and that member is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Whether one stands over the agent's first transport. Left out if it is as [`Self::connected`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_connected: Option<bool>,
    /// How the agent first heard of it. Older agents don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_by: Option<FoundBy>,
    /// Probes that were answered in time.
    pub answered: u64,
    /// Probes that no answer came to in time. They are loss, and in no latency.
    pub timed_out: u64,
    /// Probes that failed at once: the stream was reset, refused or not supported. They are loss, too.
    pub failed: u64,
    /// Probes that the agent's own host delayed: sent late by more than [`HOST_LATE_NANOS`], or answered or given up while
    /// the agent was late. They are counted among the others, too, unless the agent can't say what became of them: when
    /// it did not run as the time was up, or the connection ended while it did not run. These are in no other number.
    #[serde(default)]
    pub host_limited: u64,
    /// Segments that TCP sent again on the measured connection because they were lost, if the kernel tells. Each shows as
    /// a round trip that is longer by up to some 200 ms, or more if it is lost again, and never as loss. What the peer says it had already (by a duplicate SACK, RFC 2883)
    /// was not lost and is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmitted: Option<u64>,
    /// Age of the newest answer, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_age_millis: Option<u64>,
    /// Age of the newest probe that came to an end, answered or not, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_probe_age_millis: Option<u64>,
    /// Cold round-trip times: the first answer of each burst, in nanoseconds.
    pub rtt: Histogram,
    /// Warm round-trip times: the smallest of each burst, in nanoseconds.
    #[serde(default)]
    pub warm: Histogram,
    /// What STAMP says of the network to this peer. Left out while there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
    /// What was measured through relays: it is in no other number of this row. The way to the relay itself has numbers of its
    /// own, in the relay's row. Left out if there was no relayed probe in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed: Option<RelayedReport>,
    /// The same by the agent's further transports, one entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<TransportReport>,
}

/// One agent's view of one other member over one further transport, over the window. The fields are those of
/// [`PeerReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportReport {
    /// The transport.
    pub transport: Transport,
    /// Whether a connection to the peer stands now over this transport.
    pub connected: bool,
    /// Probes that were answered in time.
    pub answered: u64,
    /// Probes that no answer came to in time.
    pub timed_out: u64,
    /// Probes that failed at once.
    pub failed: u64,
    /// Probes that the agent's own host delayed.
    pub host_limited: u64,
    /// Age of the newest answer, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_age_millis: Option<u64>,
    /// Age of the newest probe that came to an end, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_probe_age_millis: Option<u64>,
    /// Cold round-trip times, in nanoseconds.
    pub rtt: Histogram,
    /// Warm round-trip times, in nanoseconds.
    pub warm: Histogram,
}

/// The probes of one peer that went through a relay, over the window. Its fields are those of [`PeerReport`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RelayedReport {
    /// Probes that were answered in time.
    pub answered: u64,
    /// Probes that no answer came to in time.
    pub timed_out: u64,
    /// Probes that failed at once.
    pub failed: u64,
    /// Probes that the agent's own host delayed.
    pub host_limited: u64,
    /// Age of the newest answer, in milliseconds, if there is one in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_sample_age_millis: Option<u64>,
    /// Age of the newest probe that came to an end, in milliseconds, if there is one in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_probe_age_millis: Option<u64>,
    /// Cold round-trip times through the relay, in nanoseconds.
    pub rtt: Histogram,
    /// Warm round-trip times through the relay, in nanoseconds.
    pub warm: Histogram,
}

/// How an agent first heard of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FoundBy {
    /// Its address stood behind a name that the agent looks up.
    Dns,
    /// It announced itself on the local network.
    Mdns,
    /// Another member named it, by the DHT.
    Kademlia,
    /// Its address was given to the agent at the start.
    Bootstrap,
    /// A member that relays named it, or a circuit led to it first.
    Relay,
    /// It connected to the agent, which had not heard of it before.
    Inbound,
}

/// One agent's view of a host outside the network, over the window. Its numbers are in no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalReport {
    /// The host's peer id, in base58.
    pub peer_id: String,
    /// Where the agent looks for it, as a multiaddr.
    pub address: String,
    /// Whether a connection to it stands now.
    pub connected: bool,
    /// Probes that were answered in time.
    pub answered: u64,
    /// Probes that no answer came to in time.
    pub timed_out: u64,
    /// Probes that failed at once.
    pub failed: u64,
    /// Age of the newest answer, in milliseconds, if there is one in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_sample_age_millis: Option<u64>,
    /// Age of the newest probe that came to an end, in milliseconds, if there is one in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_probe_age_millis: Option<u64>,
    /// Cold round-trip times, in nanoseconds.
    pub rtt: Histogram,
}

/// Which clock stamped STAMP's packets. Ordered by trust: of several, the last one says what they are worth together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StampClock {
    /// The kernel, where packets leave the host's network stack and where they enter it: the time that programs wait for
    /// a CPU is not in the round trip.
    #[default]
    Kernel,
    /// The programs themselves, at one end or at both: the time that they wait for a CPU is in the round trip.
    UserSpace,
}

/// What STAMP ([RFC 8762](https://www.rfc-editor.org/rfc/rfc8762)) says of the network to one peer, over the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkReport {
    /// The worst clock of all samples.
    pub clock: StampClock,
    /// Probes that came to an end: answered in time, or not.
    pub sent: u64,
    /// Probes whose answer came in time.
    pub answered: u64,
    /// Probes lost on the way to the peer.
    pub lost_forward: u64,
    /// Probes whose answer was lost on the way back.
    pub lost_backward: u64,
    /// Probes lost without a word of where: no later answer has told yet.
    pub lost_undirected: u64,
    /// Answers that came more than once.
    pub duplicated: u64,
    /// Answers that a later one overtook.
    pub reordered: u64,
    /// Answered probes without a round trip: a clock was stepped between the stamps, or a stamp was missing.
    pub voided: u64,
    /// Samples that a host was late for by more than [`HOST_LATE_NANOS`]: their network time stands, if the kernel stamped
    /// them; if not, they are in no histogram.
    pub host_limited: u64,
    /// Age of the newest sample, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_sample_age_millis: Option<u64>,
    /// Age of the newest probe that came to an end, in milliseconds, if there is one in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_probe_age_millis: Option<u64>,
    /// The network's own round-trip times, in nanoseconds.
    pub rtt: Histogram,
    /// Time in both hosts, before, between and after the network, in nanoseconds: one entry a sample.
    pub hosts: Histogram,
    /// The part of it that passed at the peer, between receiving and answering, in nanoseconds.
    pub peer_host: Histogram,
}

/// Which keys an agent of a private network has, by their fingerprints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivateNetworkReport {
    /// The key that it connects by.
    pub key: String,
    /// Further keys that it accepts.
    pub accepted: Vec<String>,
}

/// Who an agent turned away: counts since its start, and the last ones by their address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StrangersReport {
    /// Connections that began without the key of the private network.
    pub without_key: u64,
    /// Connections that began with another key.
    pub another_key: u64,
    /// Peers that don't hold the network's secret, each time that they were turned away.
    pub no_member: u64,
    /// The ones met last, at most [`MAX_STRANGERS`], the last one first.
    pub recent: Vec<StrangerReport>,
}

impl StrangersReport {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.without_key
            .saturating_add(self.another_key)
            .saturating_add(self.no_member)
    }
}

/// One address that was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StrangerReport {
    /// Where it is: an IP address.
    pub address: String,
    /// Why it was turned away.
    pub reason: StrangerReason,
    /// The peer that it is, if it came that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// How often, as far as this is remembered.
    pub times: u64,
    /// How long ago for the last time, in milliseconds.
    pub age_millis: u64,
}

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StrangerReason {
    /// It began without the key of the private network, as if there were none.
    WithoutKey,
    /// It does not have a key that is accepted here.
    AnotherKey,
    /// It does not hold the network's secret.
    NoMember,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_may_add_fields() {
        let json = r#"{"version":2,"nonce":"00","network":"a/b","name":"b-0","agentVersion":"9","uptimeMillis":1,
            "windowMillis":1,"heartbeatAgeMillis":0,"eventsDropped":0,"later":{},
            "peers":[{"peerId":"x","name":"b-1","connected":true,"answered":1,"timedOut":0,"failed":0,"rtt":[64,1],"later":1}]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        assert_eq!(report.peers[0].rtt.count(), 1);
        assert_eq!(report.peers[0].newest_sample_age_millis, None);
    }

    #[test]
    fn what_an_agent_of_one_transport_says_is_of_tcp() {
        let json = r#"{"version":2,"nonce":"00","network":"a/b","name":"b-0","agentVersion":"9","uptimeMillis":1,
            "windowMillis":1,"heartbeatAgeMillis":0,"eventsDropped":0,
            "peers":[{"peerId":"x","name":"b-1","connected":true,"answered":1,"timedOut":0,"failed":0,"rtt":[64,1]}]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        assert_eq!(report.transports, [Transport::Tcp]);
        let row = &report.peers[0];
        assert!(row.transports.is_empty() && row.first_connected.is_none());
        let again = serde_json::to_string(row).unwrap();
        assert!(
            !again.contains("ransports") && !again.contains("first"),
            "{again}"
        );
    }
}
