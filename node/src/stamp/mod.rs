//! The network's own time, by STAMP ([RFC 8762](https://www.rfc-editor.org/rfc/rfc8762),
//! [RFC 8972](https://www.rfc-editor.org/rfc/rfc8972)) with the kernel's time stamps.
//!
//! ```text
//!     our host                                          the peer's host
//!   send ────► t1 ═════════════ network ═════════════► t2 ────► receive
//!                                                                  │
//!   receive ◄─ t4 ◄════════════ network ═════════════ t3 ◄──── send
//!
//!   network   = (t4 - t1) - (t3 - t2)
//!   own host  = (t1 - send) + (receive - t4)
//!   peer host = t3 - t2
//! ```
//!
//! A ping over libp2p takes all of that together: a program that waits for a CPU looks like a slow network. Here the kernel
//! stamps t1 to t4 where packets leave and enter a host's network stack, so that neither program's waiting is in the
//! network's time. The clocks of the two hosts are never compared.
//!
//! * [`agreement`] agrees on sessions and their keys over libp2p; it runs in the swarm.
//! * [`run`] sends and reflects on a thread of its own, since it reads clocks around system calls.
//! * [`sender`], [`reflector`], [`open`], [`wire`], [`clock`] and [`limit`] are pure; [`socket`] is the kernel.

pub mod agreement;
pub mod clock;
pub mod open;
mod peers;
pub mod reflector;
pub mod run;
pub mod sender;
pub mod socket;
mod window;
pub mod wire;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use libp2p::PeerId;
use nix::sys::eventfd::EventFd;
use peernet_api::report::{MAX_PEERS, StampClock};
use tokio::sync::mpsc;

use self::agreement::{Reflecting, Sending};
use crate::ledger::Moment;

/// Most sessions in each direction.
pub const MAX_SESSIONS: usize = MAX_PEERS;
/// Orders on the way to the thread. All sessions may be agreed at once.
const CAPACITY: usize = 4 * MAX_SESSIONS;

/// How to send and where to reflect.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time between two probes to one peer.
    pub interval: Duration,
    /// An answer that takes this long is a loss.
    pub timeout: Duration,
    /// The address that others reach this agent at. All addresses, if there is none.
    pub address: Option<IpAddr>,
    /// UDP port on which probes are answered. 0: any.
    pub port: u16,
    /// Whether to answer unauthenticated probes of anybody, too.
    pub open: bool,
    /// What to stamp packets by. With [`StampClock::Kernel`] the program stands in if the kernel gives no stamps.
    pub clock: StampClock,
}

/// What was counted since the agent's start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Probes answered.
    pub reflected: AtomicU64,
    /// Packets that got silence: of strangers, or damaged.
    pub refused: AtomicU64,
    /// Packets that got silence because they had been answered before.
    pub replayed: AtomicU64,
    /// Packets that got silence because too many came.
    pub limited: AtomicU64,
    /// Replies that no session has sent for.
    pub unexpected: AtomicU64,
    /// News that did not fit into the channel to the reporting thread, and orders that did not fit into the one from the
    /// swarm.
    pub dropped: AtomicU64,
}

/// [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`Counters::reflected`].
    pub reflected: u64,
    /// [`Counters::refused`].
    pub refused: u64,
    /// [`Counters::replayed`].
    pub replayed: u64,
    /// [`Counters::limited`].
    pub limited: u64,
    /// [`Counters::unexpected`].
    pub unexpected: u64,
    /// [`Counters::dropped`].
    pub dropped: u64,
}

impl Counters {
    /// What they are now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            reflected: now(&self.reflected),
            refused: now(&self.refused),
            replayed: now(&self.replayed),
            limited: now(&self.limited),
            unexpected: now(&self.unexpected),
            dropped: now(&self.dropped),
        }
    }
}

/// What the swarm tells the thread.
#[derive(Debug)]
pub enum Order {
    /// Send to a peer from now on.
    Send(Sending),
    /// Answer a peer from now on.
    Reflect(Reflecting),
    /// Pings to that peer leave around that moment, and then at the same pace: probes keep away from them.
    Avoid(PeerId, Moment),
    /// What is on the way to a peer is nobody's any more: another process has its place.
    Forget(PeerId),
    /// All sessions with a peer end.
    End(PeerId),
}

/// The swarm's way to the thread. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    /// Taken only when dropped: the thread must see the end of the channel when it is woken.
    orders: Option<mpsc::Sender<Order>>,
    waker: Arc<EventFd>,
    counters: Arc<Counters>,
    reflector: SocketAddr,
}

impl Handle {
    /// Gives an order. Never waits: if the thread can't keep up, the order is dropped and counted, and the session will be
    /// agreed anew.
    pub fn order(&self, order: Order) {
        let Some(orders) = &self.orders else {
            return;
        };
        if orders.try_send(order).is_ok() {
            self.wake();
        } else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// Where probes are answered.
    #[must_use]
    pub fn reflector(&self) -> SocketAddr {
        self.reflector
    }

    fn wake(&self) {
        // It can only fail if the thread was woken 2^64 times without looking.
        let _ = self.waker.write(1);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.orders = None;
        self.wake();
    }
}
