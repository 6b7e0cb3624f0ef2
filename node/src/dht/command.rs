//! What the event loop can be asked for, and how: commands through a bounded channel, each with a place for its answer
//! and a deadline.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, kad::RecordKey};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::Refusal;

/// Commands that wait for the event loop.
const WAITING: usize = 16;
/// No command takes longer. Its parts have deadlines of their own, so that this is hardly ever met.
const DEADLINE: Duration = Duration::from_secs(25);

/// How many agents must have a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// Any.
    One,
    /// More than half of those asked.
    Majority,
    /// All of those asked.
    All,
    /// So many.
    Count(usize),
}

impl Quorum {
    /// How many of `of` agents that is: at least one.
    #[must_use]
    pub fn needed(self, of: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Majority => of / 2 + 1,
            Self::All => of.max(1),
            Self::Count(count) => count.max(1),
        }
    }
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// What the event loop can be asked for.
#[derive(Debug)]
pub enum Command {
    /// Store a record.
    Put {
        /// Its key.
        key: RecordKey,
        /// Its value.
        value: Vec<u8>,
        /// How many other agents must have stored it.
        quorum: Quorum,
        /// Where the answer goes.
        reply: Reply<Put>,
    },
    /// Look for a record.
    Get {
        /// Its key.
        key: RecordKey,
        /// How many copies must be found.
        quorum: Quorum,
        /// Where the answer goes.
        reply: Reply<Got>,
    },
    /// Provide a key from now on.
    Provide {
        /// The key.
        key: RecordKey,
        /// Where the answer goes.
        reply: Reply<Announced>,
    },
    /// Provide it no more.
    StopProviding {
        /// The key.
        key: RecordKey,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// The keys that this agent provides.
    Provided {
        /// Where the answer goes.
        reply: Reply<Vec<RecordKey>>,
    },
    /// Look for the providers of a key.
    Providers {
        /// The key.
        key: RecordKey,
        /// Where the answer goes.
        reply: Reply<Providers>,
    },
    /// The members that this agent is connected to.
    Peers {
        /// Where the answer goes.
        reply: Reply<Vec<Peer>>,
    },
    /// Look for a peer's addresses.
    FindPeer {
        /// Its id.
        peer: PeerId,
        /// Where the answer goes.
        reply: Reply<Found>,
    },
    /// The next probe of a peer.
    Ping {
        /// Its id.
        peer: PeerId,
        /// Where it is, if this agent is not connected to it.
        addresses: Vec<Multiaddr>,
        /// Where the answer goes.
        reply: Reply<Pinged>,
    },
}

impl Command {
    /// Answers that it can't be done.
    pub fn fail(self, failure: Failure) {
        fn tell<T>(reply: Reply<T>, failure: Failure) {
            // Who asked may have gone.
            let _ = reply.send(Err(failure));
        }
        match self {
            Self::Put { reply, .. } => tell(reply, failure),
            Self::Get { reply, .. } => tell(reply, failure),
            Self::Provide { reply, .. } => tell(reply, failure),
            Self::StopProviding { reply, .. } => tell(reply, failure),
            Self::Provided { reply } => tell(reply, failure),
            Self::Providers { reply, .. } => tell(reply, failure),
            Self::Peers { reply } => tell(reply, failure),
            Self::FindPeer { reply, .. } => tell(reply, failure),
            Self::Ping { reply, .. } => tell(reply, failure),
        }
    }
}

/// A record was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Agents beside this one that had stored it when the answer was due.
    pub stored: usize,
    /// How many had to.
    pub needed: usize,
    /// Agents that are to store it.
    pub of: usize,
    /// How long it lives.
    pub expires_in: Duration,
    /// Agents that were asked where it belongs.
    pub asked: u32,
    /// How long it took.
    pub took: Duration,
}

/// A record was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Its value: that which was put last, of all copies found.
    pub value: Vec<u8>,
    /// Copies found, this agent's own among them.
    pub copies: usize,
    /// How many of them have another value, which was put earlier.
    pub older: usize,
    /// The agent it was put on, if known.
    pub publisher: Option<PeerId>,
    /// How long it lives on, if that is known.
    pub expires_in: Option<Duration>,
    /// Agents that were asked.
    pub asked: u32,
    /// How long it took.
    pub took: Duration,
}

/// This agent was announced as a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Requests that were sent for it.
    pub requests: u32,
    /// How long it took.
    pub took: Duration,
}

/// The providers of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Providers {
    /// Who they are.
    pub providers: Vec<Peer>,
    /// Agents that were asked, each as often as it was.
    pub asked: u32,
    /// Whether there may be more.
    pub may_be_more: bool,
    /// How long it took.
    pub took: Duration,
}

/// A peer, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: PeerId,
    /// Its name, if this agent is connected to it and it is a member.
    pub name: Option<String>,
    /// Where it is.
    pub addresses: Vec<Multiaddr>,
}

/// A peer was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The peer.
    pub peer: Peer,
    /// Whether this agent is connected to it, so that nobody had to be asked.
    pub connected: bool,
    /// Agents that were asked.
    pub asked: u32,
    /// How long it took.
    pub took: Duration,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinged {
    /// The peer's name, if it is known.
    pub name: Option<String>,
    /// Its cold round trip, or why there is none.
    pub cold: Result<Duration, String>,
    /// The smallest round trip of the burst, if it was waited for.
    pub warm: Option<Duration>,
}

/// Why something can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The DHT is off.
    #[error("the DHT is off: spec.discovery.kademlia turns it on")]
    Off,
    /// Too many are at work.
    #[error("too many commands at once: try again")]
    Busy,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// Nobody who was asked has it.
    #[error("not found: {asked} agents were asked")]
    NotFound {
        /// How many were asked.
        asked: u32,
    },
    /// Too few agents have it.
    #[error("{reached} of {of} agents have it, {needed} are needed")]
    QuorumFailed {
        /// How many have it.
        reached: usize,
        /// How many are needed.
        needed: usize,
        /// How many were asked.
        of: usize,
    },
    /// This agent's own store does not take it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// This agent provides as many keys as it may.
    #[error("an agent provides at most {0} services")]
    TooManyServices(usize),
    /// The peer was found, but can't be reached.
    #[error("the peer can't be reached: {0}")]
    Unreachable(String),
}

/// Gives commands to the event loop.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// The channel to the event loop: both ends of it.
#[must_use]
pub fn channel() -> (Handle, mpsc::Receiver<Command>) {
    let (commands, received) = mpsc::channel(WAITING);
    (Handle(commands), received)
}

impl Handle {
    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// If it can't be done, or not in time.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::Busy,
            mpsc::error::TrySendError::Closed(_) => Failure::Stopping,
        })?;
        match timeout(DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Failure::Stopping),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}
