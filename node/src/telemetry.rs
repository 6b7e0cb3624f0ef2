//! What the swarm's thread tells the reporting thread: plain data over one bounded channel, never waited for.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use peernet_api::report::StampClock;

use crate::{
    dht,
    ledger::{Member, Moment},
    ping, relay, stamp,
    strangers::Strangers,
};

/// Events on the way between the threads. A probe makes two events over each transport and one or two by STAMP: this is
/// more than a second's of 64 peers at the agent's fastest pace, and of [`peernet_api::report::MAX_PEERS`] at 100 ms. The
/// channel takes memory for what is in it, and not for what could be.
pub const CAPACITY: usize = 64 << 10;

/// News from the swarm.
#[derive(Clone, Debug)]
pub enum Event {
    /// News of a probe over libp2p.
    Probe {
        /// The peer that was probed.
        peer: PeerId,
        /// What the probe went over.
        over: ping::Over,
        /// What became of the probe.
        news: ping::News,
        /// When it was sent.
        sent: Moment,
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
    /// How late the event loop's own timer was served. Told every quarter of a second.
    LoopLag {
        /// By how much.
        lag: Duration,
        /// When the answer came, or when the probe's time was up: what is told of it later stands there, too.
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
    /// Guests with a connection, if there may be any.
    pub guests: Option<usize>,
    /// The hosts outside the network that the agent is told to connect to and has a connection to.
    pub external: Arc<[Member]>,
    /// Connections, strangers' included.
    pub connections: usize,
    /// Whether a relay could dial this agent, if one has tried.
    pub reachable: Option<bool>,
    /// The services of the configuration.
    pub services: Arc<[Service]>,
    /// What was counted since the start.
    pub counters: Counters,
    /// Who was turned away.
    pub strangers: Strangers,
    /// What this agent does as a relay, and by relays.
    pub relaying: relay::Counts,
}

/// A service of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// Its providers, this agent among them, if they were counted.
    pub providers: Option<usize>,
    /// When they were.
    pub counted: Option<Moment>,
}

impl Service {
    /// A service whose providers were not counted yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            providers: None,
            counted: None,
        }
    }
}

/// Counts since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that did not fit into the channel.
    pub events_dropped: u64,
    /// Peers turned away because they are no members.
    pub strangers_rejected: u64,
    /// Guests turned away because there were too many.
    pub guests_refused: u64,
    /// Dials that led to a connection.
    pub dials_connected: u64,
    /// Dials that nobody answered, or not in time.
    pub dials_failed: u64,
    /// Dials refused by our own limits, or because the peer is known as a stranger.
    pub dials_refused: u64,
    /// Connections refused since there were too many, or too little memory.
    pub connections_refused: u64,
    /// QUIC handshakes that were not begun before their sender had shown that it is where it says.
    pub handshakes_to_validate: u64,
    /// What came to the STAMP sockets.
    pub stamp: stamp::Counts,
    /// What the DHT stores and refused.
    pub dht: dht::Counts,
}
