//! Members: who comes in, and who is turned away.

use std::time::Instant;

use libp2p::{PeerId, identify, swarm::ConnectionId};
use peernet_api::report::{Path, StrangerReason};

use super::{EventLoop, KAD_SEARCH};
use crate::{
    admission::Ban,
    discovery::{
        Address, dialable,
        planner::{Link, Outcome, Source},
    },
    ledger::Member,
    membership::{self, Announced},
};

impl EventLoop {
    pub(super) fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let seen_from = link.address();
        let claimed: Vec<Address> = dialable(&info.listen_addrs, seen_from, &self.config.transports)
            .filter(|address| !self.planner.is_own(address))
            .collect();
        let announced = membership::announced(&info.agent_version);
        let known = self
            .members
            .get(&peer)
            .is_some_and(|member| announced.is_some_and(|said| member.is(&said)));
        if !known {
            match membership::member(&self.config.secret, &peer, &info.agent_version) {
                Some(said) => self.join(peer, connection, said),
                None if self.bootstrap.contains(&peer) => return,
                None => {
                    self.on_stranger(peer, connection, info);
                    return;
                }
            }
        }
        if let (Some(dht), Some(protocol)) = (
            self.swarm.behaviour_mut().dht.as_mut(),
            self.config.kad_protocol(),
        ) && info.protocols.contains(&protocol)
        {
            for address in &claimed {
                dht.kad().add_address(&peer, (*address).into());
            }
        }
        if let Some(link) = self.links.get_mut(&peer) {
            if link.relayed {
                self.planner
                    .discovered(peer, claimed.iter().copied(), Source::Circuit);
            }
            link.claimed = claimed;
            link.member = true;
        }
        // A member that only a circuit led to until now: STAMP starts with the first direct connection.
        if self.links.get(&peer).is_some_and(|link| !link.relayed)
            && let Some(stamp) = self.swarm.behaviour_mut().stamp.as_mut()
        {
            stamp.accept(peer);
        }
        self.consider_relay(peer, connection, info);
    }

    fn join(&mut self, peer: PeerId, connection: ConnectionId, said: Announced<'_>) {
        self.guest_left(&peer);
        let member = Member {
            peer,
            name: said.name.into(),
            instance: said.instance,
            link: None,
            path: Path::Direct,
            relay: None,
            transports: Vec::new(),
        };
        if self.members.insert(peer, member).is_some() {
            tracing::info!(name = said.name, %peer, "member restarted");
            // Those led to the process before: it has gone, but may not have said so.
            let old = self.connections.iter().filter(|(_, known)| known.peer == peer);
            let old: Vec<ConnectionId> = old.map(|(id, _)| *id).filter(|id| *id != connection).collect();
            for id in old {
                self.swarm.close_connection(id);
            }
            if let Some(stamp) = self.swarm.behaviour_mut().stamp.as_mut() {
                stamp.restarted(&peer);
            }
        } else {
            tracing::info!(name = said.name, %peer, "member joined");
        }
        // The ledger hears of the member before the first probe leaves.
        let now = Instant::now();
        self.tell_state(now);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.ping.accept(peer);
        if let Some(stamp) = behaviour.stamp.as_mut() {
            stamp.accept(peer);
        }
        if let Some(relay) = behaviour.relay.as_mut() {
            relay.accept(peer);
        }
        if let Some(dht) = behaviour.dht.as_mut() {
            dht.accept(peer);
        }
        self.dht.joined(peer, now);
        self.kad_search = self.kad_search.min(now + KAD_SEARCH.0);
    }

    pub(super) fn reject(&mut self, peer: PeerId, agent_version: &str, ban: Ban) {
        let says = agent_version.chars().take(64).collect::<String>();
        tracing::info!(%peer, says, ?ban, "turned away: not a member of this network");
        let now = Instant::now();
        if ban == Ban::Pause {
            self.counters.guests_refused += 1;
        } else {
            self.counters.strangers_rejected += 1;
            let address = self.links.get(&peer).and_then(Link::address);
            let since_start = now.saturating_duration_since(self.started);
            self.strangers
                .note(address, StrangerReason::NoMember, Some(peer), since_start);
        }
        let targets = self
            .connections
            .values()
            .filter(|connection| connection.peer == peer);
        for target in targets.filter_map(|connection| connection.target) {
            self.planner.finished(target, Outcome::Stranger, now);
        }
        self.planner.forget(&peer);
        self.swarm.behaviour_mut().admission.keep_out(peer, ban, now);
        // An error says that it has just left by itself.
        let _ = self.swarm.disconnect_peer_id(peer);
    }
}
