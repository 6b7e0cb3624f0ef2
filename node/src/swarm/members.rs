//! Members: who comes in, and who is turned away.

use std::time::Instant;

use libp2p::{PeerId, identify, swarm::ConnectionId};
use peernet_api::{
    report::{FoundBy, Path, StrangerReason},
    transport::Transport,
};

use super::{EventLoop, KAD_SEARCH};
use crate::{
    admission::Ban,
    discovery::{
        Address, MAX_ADDRESSES, dialable,
        planner::{Heard, Link, Outcome, Source},
    },
    ledger::Member,
    membership::{self, Announced},
};

impl EventLoop {
    pub(super) fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let known = self.connections.get(&connection);
        if known.is_some_and(|known| known.turned_away.is_some()) {
            // It says the same again, or something else: it was judged by its first words.
            return;
        }
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
                Some(said) => {
                    let found_by = self.found_by(&peer, &claimed);
                    self.join(peer, connection, said, found_by);
                }
                None if self.bootstrap.contains(&peer) => {
                    self.meet_external(peer, connection, info);
                    return;
                }
                None => {
                    self.on_stranger(peer, connection, info);
                    return;
                }
            }
        }
        self.trust(peer, connection);
        // AutoNAT asks over connections that the agent opened itself. This one was opened by the other end, which says as much,
        // unless a firewall was passed with the help of a circuit, or of what we sent there before: from port to port.
        let is_from_port_to_port = |remote: &Address| {
            let mut listens = claimed.iter().map(Address::socket);
            remote.transport() == Transport::Tcp && listens.any(|at| at.port() == remote.socket().port())
        };
        let comes_in = self.connections.get(&connection).is_some_and(|known| {
            known.source.is_some() && !known.remote.as_ref().is_some_and(is_from_port_to_port)
        }) && self
            .connections
            .values()
            .all(|known| known.peer != peer || known.circuit.is_none());
        if let (true, Some(relaying)) = (comes_in, &mut self.relaying) {
            relaying.was_dialed();
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

    /// A bootstrap peer that is no member is measured, apart from the members. It is asked for no STAMP session, and takes part in
    /// the DHT only if that is one of many networks.
    fn meet_external(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        self.trust(peer, connection);
        let host = Member {
            peer,
            name: peer.to_string().into(),
            instance: None,
            found_by: FoundBy::Bootstrap,
            link: None,
            transports: Vec::new(),
            path: Path::Direct,
            relay: None,
        };
        if self.external.insert(peer, host).is_none() {
            let says = info.agent_version.chars().take(64).collect::<String>();
            tracing::info!(%peer, says, "connected to a host outside the network");
            // The ledger hears of it before the first probe leaves.
            self.tell_state(Instant::now());
        }
        self.swarm.behaviour_mut().ping.accept(peer);
        if let (Some(dht), Some(protocol)) = (
            self.swarm.behaviour_mut().dht.as_mut(),
            &self.config.kademlia_protocol,
        ) && info.protocols.contains(protocol)
        {
            // It may ask, and store nothing here.
            dht.accept_guest(peer);
            for address in info.listen_addrs.iter().take(MAX_ADDRESSES) {
                dht.kad().add_address(&peer, address.clone());
            }
        }
    }

    /// Somebody has shown what it is, and may stay.
    pub(super) fn trust(&mut self, peer: PeerId, connection: ConnectionId) {
        self.swarm.behaviour_mut().admission.know(peer);
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        known.judged = true;
        if let Some(remote) = known.remote {
            self.probation.lift(&remote.socket());
        }
    }

    /// How we first heard of a peer that says that it listens on these addresses.
    fn found_by(&self, peer: &PeerId, claimed: &[Address]) -> FoundBy {
        let link = self.links.get(peer);
        let mut at: Vec<Address> = link.map(|link| link.dialed.clone()).unwrap_or_default();
        // Of what it says itself, only what is where it comes from.
        let here = |address: &&Address| link.is_some_and(|link| link.sources.contains(&address.ip()));
        at.extend(claimed.iter().filter(here));
        match self.planner.first_heard(peer, &at) {
            // A relay named it, if there is a circuit that we asked for.
            None if self.asked_for_circuit(peer) => FoundBy::Relay,
            // The DHT dials by itself whom it searches, before it says whom it found.
            None if link.is_some_and(|link| !link.dialed.is_empty()) => FoundBy::Kademlia,
            None => FoundBy::Inbound,
            Some(Heard::Address(address)) if self.config.seeds.contains(&address) => FoundBy::Bootstrap,
            Some(Heard::Address(_)) => FoundBy::Dns,
            Some(Heard::Peer(Source::Bootstrap)) => FoundBy::Bootstrap,
            Some(Heard::Peer(Source::Mdns)) => FoundBy::Mdns,
            Some(Heard::Peer(Source::Kademlia)) => FoundBy::Kademlia,
            Some(Heard::Peer(Source::Circuit)) => FoundBy::Relay,
        }
    }

    fn join(&mut self, peer: PeerId, connection: ConnectionId, said: Announced<'_>, found_by: FoundBy) {
        self.guest_left(&peer);
        let member = Member {
            peer,
            name: said.name.into(),
            instance: said.instance,
            found_by,
            link: None,
            path: Path::Direct,
            relay: None,
            transports: Vec::new(),
        };
        self.external.remove(&peer);
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
            tracing::info!(name = said.name, %peer, ?found_by, "member joined");
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

    /// Turns a peer away: its connections end as soon as it had the time to hear who we are.
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
        for connection in self.connections.values_mut().filter(|known| known.peer == peer) {
            connection.judged = true;
            connection.turned_away.get_or_insert(now);
            if let Some(target) = connection.target {
                self.planner.finished(target, Outcome::Stranger, now);
            }
        }
        self.planner.forget(&peer);
        self.swarm.behaviour_mut().admission.keep_out(peer, ban, now);
    }
}
