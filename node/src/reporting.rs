//! The reporting thread's state: takes the swarm's events, gives reports and metrics.

use std::time::Duration;

use peernet_api::report::{self, HostReport, PeerReport, Report};

use crate::{
    ledger::{Ledger, Moment, millis},
    metrics::Snapshot,
    telemetry::{Event, State},
};

/// An event loop without a sign of life for this long is dead.
pub const MAX_SILENCE: Duration = Duration::from_secs(10);
/// What a report may have beside its rows: the fields above them, and the envelope.
const FRAME_BYTES: usize = 8 << 10;

/// Who reports.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The network, as `namespace/name`.
    pub network: String,
    /// The name that the agent's peer id belongs to.
    pub name: String,
}

/// All that is reported.
#[derive(Debug)]
pub struct Reporting {
    identity: Identity,
    ledger: Ledger,
    state: State,
}

impl Reporting {
    /// Nothing measured yet. The agent counts as alive from here on, until it is silent for too long.
    #[must_use]
    pub fn new(identity: Identity, window: Duration, now: Moment) -> Self {
        Self {
            identity,
            ledger: Ledger::new(window),
            state: State {
                at: now,
                ..State::default()
            },
        }
    }

    /// Takes one event from the swarm.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Probe { peer, result, at } => self.ledger.record(&peer, result, at),
            Event::Stamp { .. } => {}
            Event::State(state) => {
                self.ledger.set_members(&state.members, state.at);
                self.state = state;
            }
        }
    }

    /// Time since the event loop's newest sign of life.
    #[must_use]
    pub fn silence(&self, now: Moment) -> Duration {
        now.saturating_sub(self.state.at)
    }

    /// Whether the event loop is alive.
    #[must_use]
    pub fn is_alive(&self, now: Moment) -> bool {
        self.silence(now) < MAX_SILENCE
    }

    /// Whether other agents can reach this one.
    #[must_use]
    pub fn is_ready(&self, now: Moment) -> bool {
        self.is_alive(now) && self.state.listening
    }

    /// The report that answers this nonce. It never exceeds what the operator reads.
    #[must_use]
    pub fn report(&self, nonce: &str, now: Moment) -> Report {
        Report {
            version: report::VERSION,
            nonce: nonce.to_owned(),
            network: self.identity.network.clone(),
            name: self.identity.name.clone(),
            agent_version: peernet_api::VERSION.to_owned(),
            uptime_millis: millis(now),
            window_millis: millis(self.ledger.window()),
            heartbeat_age_millis: millis(self.silence(now)),
            events_dropped: self.state.counters.events_dropped + self.ledger.unknown(),
            host: HostReport::default(),
            peers: fit(self.ledger.rows(now), report::MAX_BYTES - FRAME_BYTES),
        }
    }

    /// The numbers for a scrape.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut counters = self.state.counters;
        counters.events_dropped += self.ledger.unknown();
        Snapshot {
            totals: self.ledger.totals().clone(),
            counters,
            peers: self.ledger.connected(),
            connections: self.state.connections,
        }
    }
}

/// Keeps the rows that fit into so many bytes of JSON. Those of connected members go first.
fn fit(mut rows: Vec<PeerReport>, bytes: usize) -> Vec<PeerReport> {
    let size: usize = rows.iter().map(json_bound).sum();
    if size > bytes {
        let all = rows.len();
        rows.sort_by_key(|row| !row.connected);
        let mut left = bytes;
        rows.retain(|row| {
            let fits = json_bound(row) <= left;
            if fits {
                left -= json_bound(row);
            }
            fits
        });
        tracing::warn!(kept = rows.len(), all, "the report is too long for all members");
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    rows
}

/// No less than the row's length as JSON: the longest numbers are assumed.
fn json_bound(row: &PeerReport) -> usize {
    256 + row.peer_id.len() + row.name.len() + 16 * row.rtt.iter().count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use libp2p::PeerId;
    use peernet_api::{envelope, identity::NetworkSecret, report::MAX_PEERS};

    use super::*;
    use crate::ledger::Member;

    fn reporting() -> Reporting {
        let identity = Identity {
            network: "demo/mesh".to_owned(),
            name: "mesh-0".to_owned(),
        };
        Reporting::new(identity, Duration::from_secs(300), Duration::ZERO)
    }

    #[test]
    fn a_silent_event_loop_is_dead_and_says_its_age() {
        let mut reporting = reporting();
        let second = Duration::from_secs(1);
        assert!(reporting.is_alive(second * 9) && !reporting.is_ready(second * 9));
        assert!(!reporting.is_alive(second * 10));
        reporting.apply(Event::State(State {
            at: second * 11,
            listening: true,
            ..State::default()
        }));
        assert!(reporting.is_ready(second * 12));
        assert_eq!(reporting.report("00", second * 15).heartbeat_age_millis, 4_000);
        assert!(!reporting.is_ready(second * 21));
    }

    #[test]
    fn the_largest_report_fits_what_the_operator_reads() {
        let mut reporting = reporting();
        let members: Arc<[Member]> = (0..MAX_PEERS)
            .map(|n| Member {
                peer: PeerId::random(),
                name: format!("{n:0>253}").into(),
            })
            .collect();
        let at = Duration::from_secs(1);
        reporting.apply(Event::State(State {
            at,
            members: Arc::clone(&members),
            ..State::default()
        }));
        for member in members.iter() {
            for n in 0..1_000_u64 {
                let result = Ok(Duration::from_nanos(10_000 + n * n * 60_000));
                reporting.apply(Event::Probe {
                    peer: member.peer,
                    result,
                    at,
                });
            }
        }
        let report = reporting.report(&"f".repeat(64), at);
        assert!(!report.peers.is_empty() && report.peers.len() < MAX_PEERS);
        assert!(report.peers.is_sorted_by_key(|row| &row.name));
        let key = NetworkSecret::new(&[1; 32]).unwrap().keypair("mesh-0");
        let sealed = envelope::seal(&report, &key).unwrap();
        assert!(envelope::open(&sealed).is_ok(), "{} bytes", sealed.len());
    }
}
