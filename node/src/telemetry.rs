//! What the swarm's thread tells the reporting thread: plain data over one bounded channel, never waited for.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;

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
    /// How things are. Sent every second, and at once when the members change. Each one replaces the one before, so
    /// that one that is lost does no harm for longer than a second.
    State(State),
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
