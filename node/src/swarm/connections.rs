//! Connections: made, lost, and judged too late.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    swarm::{
        ConnectionId, DialError, ListenError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use peernet_api::{report::StrangerReason, transport::Transport};

use super::{EventLoop, relaying::Circuit};
use crate::{
    admission,
    discovery::{
        Address,
        planner::{Dial, Outcome, Target},
    },
    ledger::Member,
    private::{self, handshake::Refusal},
};

/// Hole punching has had its turns when a circuit is so old: from then on, dials from the agent's own port take over.
const PUNCHED: Duration = Duration::from_secs(10);
/// A connection whose peer has not said who it is by then is closed.
const IDENTIFY_DEADLINE: Duration = Duration::from_secs(10);

/// Who is turned away has this long to hear who we are: else the faster one of two networks' agents that meet would be gone
/// before the other one knows whom it met.
const TURNED_AWAY_TIME: Duration = Duration::from_secs(1);

/// Who came when all places were taken has this long to find others. It is the grace period of go-libp2p's connection manager, too.
const NEWCOMER_TIME: Duration = Duration::from_secs(20);

/// One connection.
pub(super) struct Connection {
    pub(super) peer: PeerId,
    pub(super) since: Instant,
    pub(super) dialed: Option<Address>,
    pub(super) source: Option<IpAddr>,
    /// The other end of it, as the kernel knows it.
    pub(super) remote: Option<Address>,
    pub(super) target: Option<Target>,
    /// Whether its peer has shown what it is, or the planner knows already that it has not.
    pub(super) judged: bool,
    /// Since when its peer is known as one that may not stay.
    pub(super) turned_away: Option<Instant>,
    /// Whether all places were taken when it came.
    pub(super) newcomer: bool,
    /// Whether it goes through a relay, and which.
    pub(super) circuit: Option<Circuit>,
}

impl EventLoop {
    pub(super) fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let target = self.dialing.remove(&id);
        if let Some(target) = target {
            self.planner.finished(target, Outcome::Connected, now);
        }
        if let Some(relaying) = &mut self.relaying {
            relaying.on_dialed(&id, true);
        }
        let circuit = self.circuit(&peer, endpoint, now);
        let remote = Address::parse(endpoint.get_remote_address());
        let (dialed, source) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => {
                self.counters.dials_connected += 1;
                (Address::parse(address), None)
            }
            ConnectedPoint::Listener { .. } => (None, remote.map(|address| address.ip())),
        };
        let newcomer = endpoint.is_listener() && self.swarm.behaviour().admission.too_many() > 0;
        tracing::debug!(%peer, connection = %id, ?dialed, ?source, ?circuit, newcomer, "connected");
        self.connections.insert(
            id,
            Connection {
                peer,
                since: now,
                dialed,
                source,
                remote,
                target,
                judged: false,
                turned_away: None,
                newcomer,
                circuit,
            },
        );
        self.relink(peer);
    }

    pub(super) fn on_closed(&mut self, peer: PeerId, id: ConnectionId, last: bool, cause: Option<&str>) {
        tracing::debug!(%peer, connection = %id, cause, "disconnected");
        // It ended before its peer said who it is: most likely there was no place for us.
        if let Some(Connection {
            target: Some(target),
            judged: false,
            ..
        }) = self.connections.remove(&id)
        {
            self.planner.finished(target, Outcome::Failed, Instant::now());
        }
        if !last {
            self.relink(peer);
            return;
        }
        self.links.remove(&peer);
        self.guest_left(&peer);
        if let Some(relaying) = &mut self.relaying {
            relaying.gone(&peer);
        }
        if self.external.remove(&peer).is_some() {
            tracing::info!(%peer, cause = cause.unwrap_or("closed"), "a host outside the network left");
            self.tell_state(Instant::now());
        }
        if let Some(Member { name, .. }) = self.members.remove(&peer) {
            tracing::info!(%name, %peer, cause = cause.unwrap_or("closed"), "member left");
            let now = Instant::now();
            self.dht.left(peer, now);
            self.tell_state(now);
        }
    }

    /// Gathers anew what the planner must know of a peer's connections.
    pub(super) fn relink(&mut self, peer: PeerId) {
        let link = self.links.entry(peer).or_default();
        let of_peer = || {
            self.connections
                .values()
                .filter(|connection| connection.peer == peer)
        };
        link.dialed = of_peer().filter_map(|connection| connection.dialed).collect();
        link.transports = of_peer()
            .filter(|connection| connection.circuit.is_none())
            .filter_map(|connection| Some(connection.remote?.transport()))
            .collect();
        link.transports.sort_unstable();
        link.transports.dedup();
        // A guest may share its address with an agent that is still to be dialed.
        let sources = of_peer().filter_map(|connection| connection.source);
        link.sources = sources.filter(|_| !self.guests.contains(&peer)).collect();
        link.member = self.members.contains_key(&peer);
        link.relayed = of_peer().all(|connection| connection.circuit.is_some());
        if let (true, Some(relaying)) = (link.relayed, &mut self.relaying) {
            relaying.lost(&peer);
        }
    }

    pub(super) fn on_dial_failed(&mut self, id: ConnectionId, error: &DialError) {
        let target = self.dialing.remove(&id);
        if let Some(relaying) = &mut self.relaying {
            relaying.on_dialed(&id, false);
        }
        tracing::debug!(?target, %error, "dial failed");
        self.ping_failed(id, error);
        let outcome = match error {
            DialError::LocalPeerId { .. } => Outcome::Ourselves,
            DialError::DialPeerConditionFalse(_) => Outcome::Connected,
            DialError::Denied { cause } => {
                self.counters.dials_refused += 1;
                match cause.downcast_ref::<admission::Refused>() {
                    Some(admission::Refused::Stranger) => Outcome::Stranger,
                    _ => Outcome::Failed,
                }
            }
            DialError::NoAddresses
            | DialError::Aborted
            | DialError::WrongPeerId { .. }
            | DialError::Transport(_) => {
                self.counters.dials_failed += 1;
                Outcome::Failed
            }
        };
        if let Some(target) = target {
            self.planner.finished(target, outcome, Instant::now());
        }
    }

    /// An inbound connection was refused. Who does not have the private network's key, or is known as no member, is a
    /// stranger; limits refuse members, too.
    pub(super) fn on_refused(&mut self, error: &ListenError, from: &Multiaddr) {
        let reason = match error {
            ListenError::Denied { cause } => match cause.downcast_ref::<admission::Refused>() {
                Some(admission::Refused::Stranger) => StrangerReason::NoMember,
                _ => return,
            },
            ListenError::Transport(error) => match private::handshake::refusal(error) {
                Some(Refusal::WithoutKey) => StrangerReason::WithoutKey,
                Some(Refusal::AnotherKey) => StrangerReason::AnotherKey,
                None => return,
            },
            ListenError::Aborted | ListenError::WrongPeerId { .. } | ListenError::LocalPeerId { .. } => {
                return;
            }
        };
        let address = Address::parse(from).map(|address| address.ip());
        let now = Instant::now().saturating_duration_since(self.started);
        if self.strangers.note(address, reason, None, now) && reason != StrangerReason::NoMember {
            tracing::info!(%from, ?reason, "turned away: not of this private network");
        }
    }

    pub(super) fn close_unidentified(&mut self, now: Instant) {
        let late: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let peer = &connection.peer;
                now.saturating_duration_since(connection.since) >= IDENTIFY_DEADLINE
                    && connection.turned_away.is_none()
                    && !self.members.contains_key(peer)
                    && !self.guests.contains(peer)
                    && !self.bootstrap.contains(peer)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            tracing::debug!(peer = %connection.peer, connection = %id, "closed: it never said who it is");
            connection.judged = true;
            if let Some(target) = connection.target {
                self.planner.finished(target, Outcome::Stranger, now);
            }
            self.swarm.close_connection(id);
        }
    }

    /// Those who were turned away go.
    pub(super) fn close_turned_away(&mut self, now: Instant) {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= TURNED_AWAY_TIME;
        let over = self.connections.iter();
        let over = over.filter(|(_, connection)| connection.turned_away.is_some_and(is_over));
        let over: Vec<ConnectionId> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.swarm.close_connection(id);
        }
    }

    /// Newcomers whose time is over go, unless there are places for them by now.
    pub(super) fn close_newcomers(&mut self, now: Instant) {
        let admission = &mut self.swarm.behaviour_mut().admission;
        let mut too_many = admission.too_many();
        let mut late = Vec::new();
        for (id, connection) in &mut self.connections {
            if !connection.newcomer || now.saturating_duration_since(connection.since) < NEWCOMER_TIME {
                continue;
            }
            connection.newcomer = false;
            if too_many > 0 {
                too_many -= 1;
                admission.end_turn(connection.peer, now);
                late.push((*id, connection.peer));
            }
        }
        for (id, peer) in late {
            tracing::debug!(%peer, connection = %id, "closed: all places are taken, and it had the time to find others");
            self.swarm.close_connection(id);
        }
    }

    /// When memory is short, those who have not shown what they are go, and no more of them come in.
    pub(super) fn spare_memory(&mut self) {
        let short = self.memory.is_short();
        let admission = &mut self.swarm.behaviour_mut().admission;
        admission.set_memory_is_short(short);
        if !short {
            return;
        }
        let unknown: Vec<ConnectionId> = admission.unknown().collect();
        if !unknown.is_empty() {
            tracing::warn!(
                connections = unknown.len(),
                "memory is short: closing those of unknown peers"
            );
        }
        for connection in unknown {
            self.swarm.close_connection(connection);
        }
    }

    /// Whether only circuits lead to a peer, and did for longer than hole punching takes.
    fn is_long_relayed(&self, peer: &PeerId) -> bool {
        let circuits = self
            .connections
            .values()
            .filter(|known| known.peer == *peer && known.circuit.is_some());
        let oldest = circuits.map(|known| known.since).min();
        self.has_circuits_only(peer) && oldest.is_some_and(|since| since.elapsed() >= PUNCHED)
    }

    pub(super) fn dial(&mut self, Dial { target, addresses }: Dial) {
        let over = addresses.first().map(Address::transport);
        // Two firewalls that only let out let in what comes from where something went before: from port to port. Often both
        // ends dial at the same moment then, and share one connection, which needs one dialer: that of the lower id. If the
        // other's dial is there first, though, it is accepted like any, and must be the dialer: which it will be is not known
        // before. So it is one or the other by chance, and not the wrong one time after time.
        let meets = match target {
            Target::Peer(peer) => over == Some(Transport::Tcp) && self.is_long_relayed(&peer),
            Target::Seed(_) | Target::Member(..) => false,
        };
        // QUIC tells connections apart by their ids: it has no use for a socket a dial.
        let shares_port = meets || over == Some(Transport::Quic);
        let mut addresses = addresses.into_iter().map(Multiaddr::from);
        let options = if let Target::Peer(peer) | Target::Member(peer, _) = target {
            let condition = match target {
                Target::Member(..) => PeerCondition::Always,
                _ if self.has_circuits_only(&peer) => PeerCondition::NotDialing,
                _ => PeerCondition::DisconnectedAndNotDialing,
            };
            let options = DialOpts::peer_id(peer)
                .condition(condition)
                .addresses(addresses.collect());
            let options = if meets && *self.swarm.local_peer_id() > peer && rand::random() {
                options.override_role()
            } else {
                options
            };
            if shares_port {
                options
            } else {
                options.allocate_new_port()
            }
            .build()
        } else {
            let Some(address) = addresses.next() else {
                return;
            };
            let options = DialOpts::unknown_peer_id().address(address);
            if shares_port {
                options
            } else {
                options.allocate_new_port()
            }
            .build()
        };
        let id = options.connection_id();
        self.dialing.insert(id, target);
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_failed(id, &error);
        }
    }
}
