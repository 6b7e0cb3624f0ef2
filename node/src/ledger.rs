//! What was measured: per member, a sliding window of round-trip times and losses; and what the own host did meanwhile.
//!
//! Pure: no clock, no swarm. Times are the agent's monotonic clock, as the time since its start. The window is a ring
//! of [`SLOTS`] sub-windows, so that it slides in steps of a tenth and costs the same however fast probes are sent.
//!
//! Invariants: a loss is never in a latency; a member's numbers leave with it, and with the process that it was; what
//! this host delayed is not blamed on the network; unknown is `None` and never 0.

mod pings;
mod ring;
mod row;
mod totals;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use libp2p::PeerId;
use peernet_api::{
    histogram::Histogram,
    report::{FoundBy, HostReport, MAX_PEERS, Path, PeerReport, StampClock},
    transport::Transport,
};

pub use self::totals::{PingTotals, StampTotals, TimeBuckets, Totals};
use self::{ring::Ring, row::Row};
use crate::{
    host::{Usage, tcp::Sockets},
    membership::{Announced, Instance},
    pace::is_late,
    ping::{News, Over},
    telemetry::{StampNews, StampSample},
};

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
    /// Which start of it this is, if it says.
    pub instance: Option<Instance>,
    /// How it was first heard of.
    pub found_by: FoundBy,
    /// The other end of the connection that it is measured on over the agent's first transport. A circuit has none.
    pub link: Option<SocketAddr>,
    /// The transports over which it has a direct connection.
    pub transports: Vec<Transport>,
    /// The way that it is measured on.
    pub path: Path,
    /// Name of the member that relays, if the way is a circuit through one that is known.
    pub relay: Option<Arc<str>>,
}

impl Member {
    /// Whether that is what this member announced.
    #[must_use]
    pub fn is(&self, said: &Announced<'_>) -> bool {
        *self.name == *said.name && self.instance == said.instance
    }
}

/// The measurements of one agent.
#[derive(Debug)]
pub struct Ledger {
    window: Duration,
    /// The agent's transports. The first one's numbers are those of the rows themselves.
    transports: Vec<Transport>,
    rows: BTreeMap<PeerId, Row>,
    host: Ring<HostSlot>,
    totals: Totals,
    unknown: u64,
}

/// What the host did in one sub-window.
#[derive(Debug, Default)]
struct HostSlot {
    delay: Histogram,
    loop_lag: Histogram,
    usage: Usage,
}

impl Ledger {
    /// An empty ledger for a window of this length, of an agent with these transports.
    #[must_use]
    pub fn new(window: Duration, transports: &[Transport]) -> Self {
        Self {
            window,
            transports: transports.to_vec(),
            rows: BTreeMap::new(),
            host: Ring::new(window),
            totals: Totals::default(),
            unknown: 0,
        }
    }

    /// The length of the window.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The transport that the rows' own numbers are of.
    #[must_use]
    pub fn first_transport(&self) -> Transport {
        self.transports.first().copied().unwrap_or_default()
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

    /// Members that only a circuit leads to.
    #[must_use]
    pub fn relayed(&self) -> usize {
        self.rows.values().filter(|row| row.is_relayed()).count()
    }

    /// Members with a connection.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.rows.values().filter(|row| row.away_since.is_none()).count()
    }

    /// Takes the list of all members that have a connection now. The others are away; who was away for a whole window
    /// is forgotten, so that nothing of what it measured lingers. So is the process that a restarted member was.
    pub fn set_members(&mut self, members: &[Member], now: Moment) {
        for row in self.rows.values_mut() {
            row.away_since.get_or_insert(now);
        }
        for member in members {
            if let Some(row) = self.rows.get_mut(&member.peer)
                && row.is_of(member)
            {
                row.reach(member);
            } else if self.rows.contains_key(&member.peer) || self.make_room() {
                let row = Row::new(member, self.window, now);
                self.rows.insert(member.peer, row);
            }
        }
        let window = self.window;
        self.rows.retain(|_, row| {
            row.away_since
                .is_none_or(|since| now.saturating_sub(since) < window)
        });
    }

    /// Counts news of a probe over libp2p. Of a transport that is not the agent's, there is none.
    pub fn record(&mut self, peer: &PeerId, over: Over, news: News, sent: Moment, at: Moment) {
        if let Over::Direct(transport) = over
            && !self.transports.contains(&transport)
        {
            return;
        }
        let row = self.rows.get_mut(peer);
        match row.map(|row| row.record(over, news, sent, at)) {
            Some(true) => match over {
                Over::Circuit => self.totals.count_relayed(news),
                Over::Direct(first) if first == self.first_transport() => self.totals.count_probe(news),
                Over::Direct(transport) => self.totals.count_further(transport, news),
            },
            Some(false) => {}
            None => self.unknown += 1,
        }
    }

    /// Counts news of a STAMP probe.
    pub fn record_stamp(&mut self, peer: &PeerId, news: StampNews, at: Moment) {
        match self.rows.get_mut(peer).map(|row| row.record_stamp(news, at)) {
            Some(true) => self.totals.count_stamp(news),
            Some(false) => return,
            None => {
                self.unknown += 1;
                return;
            }
        }
        if let StampNews::Sample(StampSample {
            clock: StampClock::Kernel,
            own_host,
            ..
        }) = news
            && let Some(slot) = self.host.at(at)
        {
            slot.delay.record(nanos(own_host));
        }
    }

    /// Counts how late the event loop's timer was served.
    pub fn record_loop_lag(&mut self, lag: Duration, at: Moment) {
        self.totals.loop_lag.record(lag);
        if let Some(slot) = self.host.at(at) {
            slot.loop_lag.record(nanos(lag));
        }
    }

    /// Adds what the agent used of its host and what was withheld from it since this was last told.
    pub fn record_usage(&mut self, usage: &Usage, at: Moment) {
        self.totals.host.add(usage);
        if let Some(slot) = self.host.at(at) {
            slot.usage.add(usage);
        }
    }

    /// Takes what the kernel says of the measured connections of these members.
    pub fn record_sockets(&mut self, members: &[Member], sockets: &Sockets, at: Moment) {
        for member in members {
            let socket = member.link.and_then(|link| sockets.get(&link));
            if let (Some(socket), Some(row)) = (socket, self.rows.get_mut(&member.peer)) {
                self.totals.retransmitted += row.record_socket(*socket, at);
            }
        }
    }

    /// The members' rows over the window that ends now, ordered by name.
    #[must_use]
    pub fn rows(&self, now: Moment) -> Vec<PeerReport> {
        let rows = self.rows.iter();
        let mut rows: Vec<PeerReport> = rows
            .map(|(peer, row)| row.report(peer.to_string(), &self.transports, now))
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// What the own host did over the window that ends now.
    #[must_use]
    pub fn host(&self, now: Moment) -> HostReport {
        let mut report = HostReport::default();
        let mut usage = Usage::default();
        for slot in self.host.window(now) {
            report.delay.merge(&slot.delay);
            report.loop_lag.merge(&slot.loop_lag);
            usage.add(&slot.usage);
        }
        let micros =
            |time: Option<Duration>| time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        HostReport {
            run_delay_micros: micros(usage.run_delay),
            cpu_micros: micros(usage.cpu),
            throttled_micros: micros(usage.throttled),
            throttled_periods: usage.throttled_periods,
            ..report
        }
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

/// Whether a host was late for this sample.
fn is_host_limited(sample: &StampSample) -> bool {
    [sample.own_host, sample.peer_host, sample.lateness]
        .into_iter()
        .any(is_late)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds, as reports have it.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
