//! The probe: libp2p's ping protocol with a measuring instrument's manners.
//!
//! The wire is that of `libp2p::ping`, in both directions. What differs from it, and why:
//!
//! * Probes leave at a fixed pace with jitter. Waiting for the last answer first would leave out just the times when
//!   answers are slow.
//! * Every failure is told, the first one too, and each kind apart. A timeout is never a latency.
//! * A peer is measured on one connection, also when there are two; when that one fails, the other takes over.
//! * Peers that don't answer are still answered, and every wait leaves a waker behind.
//! * Probing starts when the event loop has accepted the peer as a member, never by itself.

mod behaviour;
mod handler;
mod protocol;

use std::time::Duration;

use libp2p::StreamProtocol;

pub use self::{
    behaviour::{Behaviour, Event},
    handler::{Handler, Outcome, Start},
};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// The pace of probes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time between two probes to one peer.
    pub interval: Duration,
    /// An answer that takes this long is a loss.
    pub timeout: Duration,
}

/// Why a probe has no round trip. Each of them is loss.
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
}
