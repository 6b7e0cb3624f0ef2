//! STAMP sessions: agreed here, sent and reflected on a thread of their own.

use std::{collections::HashSet, future};

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::EventLoop;
use crate::{
    ledger::Moment,
    stamp::{Counts, Handle, Order, agreement},
};

/// What the event loop knows of the STAMP thread.
pub(super) struct Stamping {
    handle: Handle,
    stale: mpsc::Receiver<PeerId>,
    /// Peers with a new session, whose probes must still be told when pings leave: no more than there are members.
    unphased: HashSet<PeerId>,
}

impl Stamping {
    pub(super) fn new(handle: Handle, stale: mpsc::Receiver<PeerId>) -> Self {
        Self {
            handle,
            stale,
            unphased: HashSet::new(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.handle.counts()
    }
}

/// The next peer whose session is silent. Waits for ever if there is no STAMP.
pub(super) async fn silent(stamping: &mut Option<Stamping>) -> Option<PeerId> {
    match stamping {
        Some(stamping) => stamping.stale.recv().await,
        None => future::pending().await,
    }
}

impl EventLoop {
    pub(super) fn on_stamp_event(&mut self, event: agreement::Event) {
        let Some(stamping) = &mut self.stamp else {
            return;
        };
        stamping.handle.order(match event {
            agreement::Event::Sending(agreed) => {
                stamping.unphased.insert(agreed.peer);
                Order::Send(agreed)
            }
            agreement::Event::Reflecting(agreed) => Order::Reflect(agreed),
            agreement::Event::Restarted(peer) => Order::Forget(peer),
            agreement::Event::Ended(peer) => {
                stamping.unphased.remove(&peer);
                Order::End(peer)
            }
        });
    }

    pub(super) fn on_silent(&mut self, peer: &PeerId) {
        if let Some(stamp) = self.swarm.behaviour_mut().stamp.as_mut() {
            stamp.renew(peer);
        }
    }

    /// Pings and STAMP probes to the same peer leave half an interval apart: together they would wait for each other. Both
    /// keep their grid, so that it is enough to say it once.
    pub(super) fn keep_apart(&mut self, peer: PeerId, ping: Moment) {
        if let Some(stamping) = &mut self.stamp
            && stamping.unphased.remove(&peer)
        {
            stamping.handle.order(Order::Avoid(peer, ping));
        }
    }
}
