//! Guests: libp2p hosts that are no members and may connect all the same, where the network says so. They are identified,
//! their pings are answered, and they may ask the DHT; they are in no number, in no routing table, and never dialed.

use std::{collections::HashSet, time::Instant};

use libp2p::{PeerId, identify, swarm::ConnectionId};

use super::EventLoop;
use crate::{
    admission::{Ban, GUEST_CONNECTIONS},
    membership,
};

/// The guests that are here.
#[derive(Debug, Default)]
pub(super) struct Guests {
    present: HashSet<PeerId>,
}

impl Guests {
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.present.contains(peer)
    }

    pub(super) fn count(&self) -> usize {
        self.present.len()
    }
}

impl EventLoop {
    /// Judges a peer that has shown that it is no member.
    pub(super) fn on_stranger(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        if self.guests.contains(&peer) {
            self.trust(peer, connection);
            return;
        }
        // Who claims to be a member and is none is of another network, or a liar. And a member does not become a guest by
        // saying less.
        let claims = membership::announced(&info.agent_version).is_some();
        if self.config.guests == 0 || claims || self.members.contains_key(&peer) {
            self.reject(peer, &info.agent_version, Ban::All);
        } else if !self.came_by_itself(&peer) {
            // Found on the local network and dialed: it has not asked to be a guest, and may still do so.
            self.reject(peer, &info.agent_version, Ban::Dials);
        } else if self.guests.count() >= self.config.guests {
            self.reject(peer, &info.agent_version, Ban::Pause);
        } else {
            self.welcome(peer, connection, &info.agent_version);
        }
    }

    fn came_by_itself(&self, peer: &PeerId) -> bool {
        self.connections
            .values()
            .any(|connection| connection.peer == *peer && connection.source.is_some())
    }

    fn welcome(&mut self, peer: PeerId, connection: ConnectionId, agent_version: &str) {
        let says = agent_version.chars().take(64).collect::<String>();
        tracing::info!(%peer, says, "guest came");
        self.guests.present.insert(peer);
        self.trust(peer, connection);
        self.swarm.behaviour_mut().admission.set_guest(peer, true);
        if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
            dht.accept_guest(peer);
        }
        // Until now it was held to a member's limit.
        let others = self
            .connections
            .iter()
            .filter(|(id, known)| known.peer == peer && **id != connection);
        let spare: Vec<ConnectionId> = others.map(|(id, _)| *id).skip(GUEST_CONNECTIONS - 1).collect();
        for id in spare {
            self.swarm.close_connection(id);
        }
        self.relink(peer);
        self.tell_state(Instant::now());
    }

    /// The last connection to a guest has ended, or it turned out to be a member.
    pub(super) fn guest_left(&mut self, peer: &PeerId) {
        if self.guests.present.remove(peer) {
            tracing::info!(%peer, "guest left");
            self.swarm.behaviour_mut().admission.set_guest(*peer, false);
            self.tell_state(Instant::now());
        }
    }
}
