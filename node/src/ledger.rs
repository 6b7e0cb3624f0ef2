//! What was measured: per member, a sliding window of round-trip times and losses.
//!
//! Pure: no clock, no swarm. Times are the agent's monotonic clock, as the time since its start. The window is a ring
//! of [`SLOTS`] sub-windows, so that it slides in steps of a tenth and costs the same however fast probes are sent.
//!
//! Invariants: a loss is never in a latency; a member's numbers leave with it; unknown is `None` and never 0.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use libp2p::PeerId;
use peernet_api::{
    histogram::Histogram,
    report::{MAX_PEERS, PeerReport},
};

use crate::ping::Failure;

/// Sub-windows of the window.
pub const SLOTS: usize = 10;

/// Time since the agent's start, by the monotonic clock.
pub type Moment = Duration;

/// A connected member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its proven id.
    pub peer: PeerId,
    /// The name that the id belongs to.
    pub name: Arc<str>,
}

/// Everything since the start, over all peers: what counters are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Round-trip times of all answered probes.
    pub rtt: RttBuckets,
    /// Probes without an answer in time.
    pub timed_out: u64,
    /// Probes whose stream broke or could not be opened.
    pub reset: u64,
    /// Probes to peers that don't speak the protocol.
    pub unsupported: u64,
    /// Probes on the way when their connection ended.
    pub closed: u64,
}

/// Counts of round-trip times by fixed upper bounds, for Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub struct RttBuckets {
    /// Counts by [`RttBuckets::BOUNDS`], and those above the last bound at the end. Not cumulative.
    pub counts: [u64; RttBuckets::BOUNDS.len() + 1],
    /// Sum of all round-trip times in seconds.
    pub sum: f64,
}

impl RttBuckets {
    /// Upper bounds in seconds: 1, 2, 5 from 10 µs to 10 s.
    pub const BOUNDS: [f64; 19] = [
        10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3,
        500e-3, 1.0, 2.0, 5.0, 10.0,
    ];

    fn record(&mut self, rtt: Duration) {
        let seconds = rtt.as_secs_f64();
        let at = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// How many round trips were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Default for RttBuckets {
    fn default() -> Self {
        Self {
            counts: [0; Self::BOUNDS.len() + 1],
            sum: 0.0,
        }
    }
}

/// The measurements of one agent.
#[derive(Debug)]
pub struct Ledger {
    window: Duration,
    slot: Duration,
    rows: BTreeMap<PeerId, Row>,
    totals: Totals,
    unknown: u64,
}

#[derive(Debug)]
struct Row {
    name: Arc<str>,
    /// Since when no connection stands. `None` while one does.
    away_since: Option<Moment>,
    newest: Option<Moment>,
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    /// Which sub-window since the start this is.
    number: u64,
    rtt: Histogram,
    answered: u64,
    timed_out: u64,
    failed: u64,
}

impl Ledger {
    /// An empty ledger for a window of this length.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        let slot = (window / SLOTS as u32).max(Duration::from_nanos(1));
        Self {
            window,
            slot,
            rows: BTreeMap::new(),
            totals: Totals::default(),
            unknown: 0,
        }
    }

    /// The length of the window.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Everything since the start.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Outcomes of probes to peers that the ledger did not know. They are in no number.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Members with a connection.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.rows.values().filter(|row| row.away_since.is_none()).count()
    }

    /// Takes the list of all members that have a connection now. The others are away; who was away for a whole window
    /// is forgotten, so that nothing of what it measured lingers.
    pub fn set_members(&mut self, members: &[Member], now: Moment) {
        for row in self.rows.values_mut() {
            row.away_since.get_or_insert(now);
        }
        for member in members {
            if let Some(row) = self.rows.get_mut(&member.peer) {
                row.away_since = None;
            } else if self.make_room() {
                let row = Row {
                    name: Arc::clone(&member.name),
                    away_since: None,
                    newest: None,
                    slots: Default::default(),
                };
                self.rows.insert(member.peer, row);
            }
        }
        let window = self.window;
        self.rows.retain(|_, row| {
            row.away_since
                .is_none_or(|since| now.saturating_sub(since) < window)
        });
    }

    /// Counts what became of one probe.
    pub fn record(&mut self, peer: &PeerId, result: Result<Duration, Failure>, at: Moment) {
        let Some(row) = self.rows.get_mut(peer) else {
            self.unknown += 1;
            return;
        };
        match result {
            Ok(rtt) => self.totals.rtt.record(rtt),
            Err(Failure::Timeout) => self.totals.timed_out += 1,
            Err(Failure::Reset) => self.totals.reset += 1,
            Err(Failure::Unsupported) => self.totals.unsupported += 1,
            Err(Failure::Closed) => self.totals.closed += 1,
        }
        let number = slot_number(at, self.slot);
        let Some(slot) = row
            .slots
            .get_mut(usize::try_from(number % SLOTS as u64).unwrap_or_default())
        else {
            return;
        };
        if slot.number > number {
            // It left the window while it waited to be counted here.
            return;
        }
        if slot.number < number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        match result {
            Ok(rtt) => {
                slot.answered += 1;
                slot.rtt.record(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX));
                row.newest = row.newest.max(Some(at));
            }
            Err(Failure::Timeout) => slot.timed_out += 1,
            Err(Failure::Reset | Failure::Unsupported | Failure::Closed) => slot.failed += 1,
        }
    }

    /// The members' rows over the window that ends now, ordered by name.
    #[must_use]
    pub fn rows(&self, now: Moment) -> Vec<PeerReport> {
        let newest_slot = slot_number(now, self.slot);
        let mut rows: Vec<PeerReport> = self
            .rows
            .iter()
            .map(|(peer, row)| {
                let mut report = PeerReport {
                    peer_id: peer.to_string(),
                    name: row.name.to_string(),
                    connected: row.away_since.is_none(),
                    ..PeerReport::default()
                };
                for slot in row
                    .slots
                    .iter()
                    .filter(|slot| slot.number + SLOTS as u64 > newest_slot)
                {
                    report.answered += slot.answered;
                    report.timed_out += slot.timed_out;
                    report.failed += slot.failed;
                    report.rtt.merge(&slot.rtt);
                }
                if report.answered > 0 {
                    report.newest_sample_age_millis =
                        row.newest.map(|newest| millis(now.saturating_sub(newest)));
                }
                report
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// Makes room for one more row, if need be at the cost of the member that is away for the longest time.
    fn make_room(&mut self) -> bool {
        if self.rows.len() < MAX_PEERS {
            return true;
        }
        let longest = self
            .rows
            .iter()
            .filter_map(|(peer, row)| row.away_since.map(|since| (since, *peer)))
            .min();
        longest.is_some_and(|(_, peer)| self.rows.remove(&peer).is_some())
    }
}

fn slot_number(at: Moment, slot: Duration) -> u64 {
    u64::try_from(at.as_nanos() / slot.as_nanos().max(1)).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds, as reports have it.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
