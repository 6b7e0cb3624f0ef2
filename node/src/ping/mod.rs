//! The probe: libp2p's ping protocol with a measuring instrument's manners.
//!
//! The wire is that of `libp2p::ping`, in both directions
//! ([libp2p ping](https://github.com/libp2p/specs/blob/master/ping/ping.md)): 32 random bytes go out, the same 32 bytes
//! come back. What differs from it, and why:
//!
//! * Probes leave at a fixed pace with jitter. Waiting for the last answer first would leave out just the times when
//!   answers are slow.
//! * A probe is a burst of pings. Its first answer is the *cold* time, what a request feels after a pause. Each other ping
//!   leaves when the answer before it is there, at once, so that both hosts are still awake; the smallest round trip of
//!   all of them is the *warm* time, with the least of what the hosts add. The burst ends when it is complete or when
//!   the next probe is due. Answered, lost or failed is the first ping alone: the others follow an answer.
//! * A probe that this host delayed says so, and what nobody listened for is no loss.
//! * Every failure is told, the first one too, and each kind apart. A timeout is never a latency.
//! * A peer is measured on one connection per transport, also when there are two; when that one fails, the other takes
//!   over. A circuit is measured only while there is no direct connection.
//! * Peers that don't answer are still answered, and every wait leaves a waker behind.
//! * Probing starts when the event loop has accepted the peer as a member, never by itself.

mod behaviour;
mod handler;
mod prober;
mod responder;

use std::time::{Duration, Instant};

use libp2p::StreamProtocol;
use peernet_api::transport::Transport;

pub use self::{
    behaviour::{Behaviour, Event},
    handler::{Command, Handler},
};

use crate::pace;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Bytes in one ping.
const SIZE: usize = 32;

/// The pace of probes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time between two probes to one peer.
    pub interval: Duration,
    /// An answer that takes this long is a loss.
    pub timeout: Duration,
    /// Pings in one probe. 0 counts as 1.
    pub burst: usize,
}

/// What a probe goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Over {
    /// A direct connection over this transport.
    Direct(Transport),
    /// A circuit through a relay: only while no direct connection stands.
    Circuit,
}

impl Over {
    /// How far into the interval its probes leave.
    #[must_use]
    pub fn phase(self, interval: Duration) -> Duration {
        match self {
            Self::Direct(transport) => pace::phase(transport, interval),
            Self::Circuit => Duration::ZERO,
        }
    }
}

/// What became of a probe, and when that was known.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// When the probe's first ping was sent, or was to be.
    pub sent: Instant,
    /// When this was known.
    pub at: Instant,
    /// What became of it.
    pub news: News,
}

/// What there is to say of a probe: first how its first ping ended, and then, if there was an answer, its warm time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The first ping came to its end.
    Cold {
        /// Its round trip, or why there is none.
        result: Result<Duration, Failure>,
        /// Whether this process was late while it was on the way, or late to send it.
        host_limited: bool,
    },
    /// The burst is over: the smallest round trip in it.
    Warm(Duration),
}

/// Why a probe has no round trip. Each of them is loss, except [`Failure::Unheard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Failure {
    /// No answer came in time.
    #[error("timeout")]
    Timeout,
    /// The stream broke, or could not be opened.
    #[error("reset")]
    Reset,
    /// The peer does not speak the protocol.
    #[error("unsupported")]
    Unsupported,
    /// The connection ended while the probe was on the way.
    #[error("closed")]
    Closed,
    /// This process did not run when the probe's time was up: an answer may have come in time, and nobody read it.
    #[error("unheard")]
    Unheard,
}

impl Failure {
    /// This failure, or [`Failure::Unheard`] if nobody listened.
    fn unless_unheard(self, unheard: bool) -> Self {
        if unheard { Self::Unheard } else { self }
    }
}
