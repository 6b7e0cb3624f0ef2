//! What the swarm's thread tells the reporting thread: plain data over one bounded channel, never waited for.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use peernet_api::report::StampClock;

use crate::{
    ledger::{Member, Moment},
    ping::Failure,
};

/// Events on the way between the threads. At the fastest pace and with the most peers this is more than a second's.
pub const CAPACITY: usize = 8192;

/// News from the swarm.
#[derive(Clone, Debug)]
pub enum Event {
    /// A probe has come to an end.
    Probe {
        /// The peer that was probed.
        peer: PeerId,
        /// Its round trip, or why there is none.
        result: Result<Duration, Failure>,
        /// When that was known.
        at: Moment,
    },
    /// News of the STAMP probes to a peer.
    Stamp {
        /// The peer that was probed.
        peer: PeerId,
        /// What happened.
        news: StampNews,
        /// When that was known.
        at: Moment,
    },
    /// How things are. Sent every second, and at once when the members change. Each one replaces the one before, so
    /// that one that is lost does no harm for longer than a second.
    State(State),
}

/// What became of a STAMP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampNews {
    /// It was answered in time, and all its stamps are there.
    Sample(StampSample),
    /// It was answered in time, but has no round trip: a clock was stepped, or a stamp was missing.
    Voided,
    /// It was lost on the way to the peer.
    LostForward,
    /// Its answer was lost on the way back.
    LostBackward,
    /// No answer came in time, and nobody knows yet where it got lost. [`StampNews::Located`] may follow.
    LostUndirected,
    /// A probe that was told as [`StampNews::LostUndirected`] turned out to be lost on the way there (`true`) or on the
    /// way back.
    Located {
        /// Whether it never reached the peer.
        forward: bool,
    },
    /// Another copy of an answer came.
    Duplicated,
    /// An answer came that a later one had overtaken. The probe itself is told apart from this.
    Reordered,
}

/// One round trip, taken apart. The user-space time of the probe is the sum of all parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampSample {
    /// Which clock stamped it.
    pub clock: StampClock,
    /// The network's own time.
    pub network: Duration,
    /// Time in this host, before the request left it and after the answer came.
    pub own_host: Duration,
    /// Time in the peer's host, from the request's arrival to the answer's departure.
    pub peer_host: Duration,
    /// How late the timer that sent it was served.
    pub lateness: Duration,
}

/// How the swarm is.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// When this was so: the event loop's sign of life.
    pub at: Moment,
    /// Whether the agent can be reached.
    pub listening: bool,
    /// All members with a connection.
    pub members: Arc<[Member]>,
    /// Connections, strangers' included.
    pub connections: usize,
    /// What was counted since the start.
    pub counters: Counters,
}

/// Counts since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that did not fit into the channel.
    pub events_dropped: u64,
    /// Peers turned away because they are no members.
    pub strangers_rejected: u64,
    /// Dials that led to a connection.
    pub dials_connected: u64,
    /// Dials that nobody answered, or not in time.
    pub dials_failed: u64,
    /// Dials refused by our own limits, or because the peer is known as a stranger.
    pub dials_refused: u64,
}
