//! Who may connect: limits on every counter of connections, and strangers kept out.
//!
//! `libp2p::connection_limits` has the same six limits, but keeps an entry for every peer id that ever connected: who
//! makes up a new id for each connection makes it grow without end.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Strangers remembered at a time.
const MAX_STRANGERS: usize = 1024;
/// How long a stranger is kept out. Then it may show again who it is.
const STRANGER_TTL: Duration = Duration::from_secs(600);
/// How long a guest that there was no room for is kept out.
const GUEST_TTL: Duration = Duration::from_secs(10);
/// Connections that one guest may hold.
pub const GUEST_CONNECTIONS: usize = 2;

/// Upper bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Inbound connections that are still shaking hands.
    pub pending_incoming: usize,
    /// Dials under way.
    pub pending_outgoing: usize,
    /// Connections that others opened.
    pub established_incoming: usize,
    /// Connections that we opened.
    pub established_outgoing: usize,
    /// All connections.
    pub established: usize,
    /// Connections to one peer.
    pub established_per_peer: usize,
}

impl Limits {
    /// The limits of an agent that dials up to `peers` peers over each of so many transports: as many may dial it, and a
    /// few connections more leave room for bootstrap peers, strangers that have not been judged yet, and connections
    /// about to end. Guests have room of their own, so that they can't take that of members.
    #[must_use]
    pub fn for_peers(peers: usize, transports: usize, guests: usize) -> Self {
        let of_guests = guests * GUEST_CONNECTIONS;
        Self {
            pending_incoming: 32 * transports,
            pending_outgoing: 32 * transports,
            established_incoming: (peers + 8) * transports + of_guests,
            established_outgoing: (peers + 8) * transports,
            established: (2 * peers + 16) * transports + of_guests,
            established_per_peer: 4 * transports,
        }
    }
}

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A limit is reached.
    #[error("at most {limit} {what} are allowed")]
    Limit {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The peer has shown before that it is no member.
    #[error("not a member of this network")]
    Stranger,
}

/// What a peer that is no member is kept from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ban {
    /// Any connection.
    All,
    /// Being dialed: it may come as a guest.
    Dials,
    /// Any connection, for as long as a guest should wait until it asks for room again.
    Pause,
}

/// A peer that is kept out.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    ban: Ban,
    until: Instant,
}

/// Refuses connections over the limits, and strangers.
#[derive(Debug)]
pub struct Behaviour {
    limits: Limits,
    strangers: HashMap<PeerId, Stranger>,
    guests: HashSet<PeerId>,
    refused_strangers: u64,
    pending_incoming: HashSet<ConnectionId>,
    pending_outgoing: HashSet<ConnectionId>,
    incoming: HashSet<ConnectionId>,
    outgoing: HashSet<ConnectionId>,
    per_peer: HashMap<PeerId, usize>,
}

impl Behaviour {
    /// An empty house.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            strangers: HashMap::new(),
            guests: HashSet::new(),
            refused_strangers: 0,
            pending_incoming: HashSet::new(),
            pending_outgoing: HashSet::new(),
            incoming: HashSet::new(),
            outgoing: HashSet::new(),
            per_peer: HashMap::new(),
        }
    }

    /// Keeps a peer out for the next ten minutes, or a short while. Its connections are the caller's to close.
    pub fn keep_out(&mut self, peer: PeerId, ban: Ban, now: Instant) {
        self.strangers.retain(|_, stranger| now < stranger.until);
        if self.strangers.len() >= MAX_STRANGERS {
            let first = self
                .strangers
                .iter()
                .min_by_key(|(_, stranger)| stranger.until)
                .map(|(peer, _)| *peer);
            if let Some(first) = first {
                self.strangers.remove(&first);
            }
        }
        let time = match ban {
            Ban::All | Ban::Dials => STRANGER_TTL,
            Ban::Pause => GUEST_TTL,
        };
        let until = now + time;
        self.strangers.insert(peer, Stranger { ban, until });
    }

    /// From now on a peer is held to the limit of guests, or no more.
    pub fn set_guest(&mut self, peer: PeerId, guest: bool) {
        if guest {
            self.guests.insert(peer);
        } else {
            self.guests.remove(&peer);
        }
    }

    /// Whether a peer is not to be dialed.
    #[must_use]
    pub fn is_stranger(&self, peer: &PeerId, now: Instant) -> bool {
        self.ban(peer, now).is_some()
    }

    fn ban(&self, peer: &PeerId, now: Instant) -> Option<Ban> {
        let stranger = self.strangers.get(peer)?;
        (now < stranger.until).then_some(stranger.ban)
    }

    /// Connections refused to strangers that were known as such, since the start.
    #[must_use]
    pub fn refused_strangers(&self) -> u64 {
        self.refused_strangers
    }

    /// Connections that stand.
    #[must_use]
    pub fn established(&self) -> usize {
        self.incoming.len() + self.outgoing.len()
    }

    fn admit(
        &mut self,
        peer: &PeerId,
        held: usize,
        limit: usize,
        what: &'static str,
    ) -> Result<(), ConnectionDenied> {
        if matches!(self.ban(peer, Instant::now()), Some(Ban::All | Ban::Pause)) {
            self.refused_strangers += 1;
            return Err(ConnectionDenied::new(Refused::Stranger));
        }
        check(held, limit, what)?;
        check(self.established(), self.limits.established, "connections")?;
        let of_peer = self.per_peer.get(peer).copied().unwrap_or_default();
        let limit = if self.guests.contains(peer) {
            GUEST_CONNECTIONS
        } else {
            self.limits.established_per_peer
        };
        check(of_peer, limit, "connections to one peer")
    }
}

fn check(held: usize, limit: usize, what: &'static str) -> Result<(), ConnectionDenied> {
    if held < limit {
        Ok(())
    } else {
        Err(ConnectionDenied::new(Refused::Limit { what, limit }))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        check(
            self.pending_incoming.len(),
            self.limits.pending_incoming,
            "inbound handshakes",
        )?;
        self.pending_incoming.insert(connection);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_incoming.remove(&connection);
        self.admit(
            &peer,
            self.incoming.len(),
            self.limits.established_incoming,
            "inbound connections",
        )?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if peer.is_some_and(|peer| self.is_stranger(&peer, Instant::now())) {
            return Err(ConnectionDenied::new(Refused::Stranger));
        }
        check(self.pending_outgoing.len(), self.limits.pending_outgoing, "dials")?;
        let dialed = self.outgoing.len() + self.pending_outgoing.len();
        check(dialed, self.limits.established_outgoing, "outbound connections")?;
        self.pending_outgoing.insert(connection);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_outgoing.remove(&connection);
        self.admit(
            &peer,
            self.outgoing.len(),
            self.limits.established_outgoing,
            "outbound connections",
        )?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                match established.endpoint {
                    ConnectedPoint::Dialer { .. } => self.outgoing.insert(established.connection_id),
                    ConnectedPoint::Listener { .. } => self.incoming.insert(established.connection_id),
                };
                *self.per_peer.entry(established.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.incoming.remove(&closed.connection_id);
                self.outgoing.remove(&closed.connection_id);
                if closed.remaining_established == 0 {
                    self.per_peer.remove(&closed.peer_id);
                } else {
                    self.per_peer.insert(closed.peer_id, closed.remaining_established);
                }
            }
            FromSwarm::DialFailure(failure) => {
                self.pending_outgoing.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.pending_incoming.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};

    use super::*;

    fn limits() -> Limits {
        Limits {
            pending_incoming: 2,
            pending_outgoing: 2,
            established_incoming: 2,
            established_outgoing: 2,
            established: 3,
            established_per_peer: 1,
        }
    }

    fn dialed() -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: "/memory/1".parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        }
    }

    fn connect(behaviour: &mut Behaviour, peer: PeerId, id: usize) -> Result<(), ConnectionDenied> {
        let (id, addr) = (ConnectionId::new_unchecked(id), "/memory/1".parse().unwrap());
        behaviour.handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer)?;
        let admitted =
            behaviour.handle_established_outbound_connection(id, peer, &addr, Endpoint::Dialer, PortUse::New);
        admitted?;
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &dialed(),
            failed_addresses: &[],
            other_established: 0,
        }));
        Ok(())
    }

    fn disconnect(behaviour: &mut Behaviour, peer: PeerId, id: usize) {
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &dialed(),
            cause: None,
            remaining_established: 0,
        }));
    }

    #[test]
    fn nothing_is_kept_of_peers_that_left() {
        let mut behaviour = Behaviour::new(limits());
        for id in 0..10_000 {
            let peer = PeerId::random();
            connect(&mut behaviour, peer, id).unwrap();
            disconnect(&mut behaviour, peer, id);
        }
        assert_eq!((behaviour.per_peer.len(), behaviour.established()), (0, 0));
        assert!(behaviour.pending_outgoing.is_empty());
    }

    /// What there was too much of.
    fn too_many(denied: Result<(), ConnectionDenied>) -> &'static str {
        match denied.unwrap_err().downcast::<Refused>().unwrap() {
            Refused::Limit { what, .. } => what,
            Refused::Stranger => "strangers",
        }
    }

    #[test]
    fn each_limit_is_enforced() {
        let mut behaviour = Behaviour::new(limits());
        let (a, b, c) = (PeerId::random(), PeerId::random(), PeerId::random());
        connect(&mut behaviour, a, 1).unwrap();
        assert_eq!(too_many(connect(&mut behaviour, a, 2)), "connections to one peer");
        connect(&mut behaviour, b, 3).unwrap();
        assert_eq!(too_many(connect(&mut behaviour, c, 4)), "outbound connections");

        let address: Multiaddr = "/memory/1".parse().unwrap();
        let mut knock = |id| {
            behaviour.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &address, &address)
        };
        knock(5).unwrap();
        knock(6).unwrap();
        assert_eq!(too_many(knock(7)), "inbound handshakes");

        let mut enter = |peer, id| {
            let id = ConnectionId::new_unchecked(id);
            behaviour.handle_established_inbound_connection(id, peer, &address, &address)?;
            let endpoint = ConnectedPoint::Listener {
                local_addr: address.clone(),
                send_back_addr: address.clone(),
            };
            behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
            Ok(())
        };
        enter(c, 5).unwrap();
        assert_eq!(too_many(enter(PeerId::random(), 6)), "connections");
        disconnect(&mut behaviour, a, 1);
        let mut behaviour = Behaviour::new(Limits {
            established: 9,
            established_incoming: 0,
            ..limits()
        });
        let id = ConnectionId::new_unchecked(8);
        let denied = behaviour.handle_established_inbound_connection(id, a, &address, &address);
        assert_eq!(too_many(denied.map(drop)), "inbound connections");
    }

    #[test]
    fn a_guest_is_held_to_fewer_connections_than_a_member() {
        let limits = Limits {
            established: 9,
            established_outgoing: 9,
            established_per_peer: 4,
            ..limits()
        };
        let mut behaviour = Behaviour::new(limits);
        let guest = PeerId::random();
        behaviour.set_guest(guest, true);
        connect(&mut behaviour, guest, 1).unwrap();
        connect(&mut behaviour, guest, 2).unwrap();
        assert_eq!(
            too_many(connect(&mut behaviour, guest, 3)),
            "connections to one peer"
        );
        behaviour.set_guest(guest, false);
        connect(&mut behaviour, guest, 4).unwrap();
    }

    #[test]
    fn guests_have_room_beside_that_of_members() {
        let (without, with) = (Limits::for_peers(8, 1, 0), Limits::for_peers(8, 1, 16));
        let of_guests = 16 * GUEST_CONNECTIONS;
        assert_eq!(
            with.established_incoming,
            without.established_incoming + of_guests
        );
        assert_eq!(with.established, without.established + of_guests);
        assert_eq!(with.established_outgoing, without.established_outgoing);
    }

    #[test]
    fn who_is_only_not_to_be_dialed_may_come_and_who_is_to_wait_may_come_later() {
        let mut behaviour = Behaviour::new(limits());
        let (now, address) = (Instant::now(), "/memory/1".parse::<Multiaddr>().unwrap());
        let comes = |behaviour: &mut Behaviour, peer, id| {
            let id = ConnectionId::new_unchecked(id);
            behaviour
                .handle_established_inbound_connection(id, peer, &address, &address)
                .is_ok()
        };
        let (undialed, waiting) = (PeerId::random(), PeerId::random());
        behaviour.keep_out(undialed, Ban::Dials, now);
        assert!(behaviour.is_stranger(&undialed, now));
        assert!(connect(&mut behaviour, undialed, 1).is_err());
        assert!(comes(&mut behaviour, undialed, 2));
        behaviour.keep_out(waiting, Ban::Pause, now);
        assert!(!comes(&mut behaviour, waiting, 3));
        assert!(!behaviour.is_stranger(&waiting, now + GUEST_TTL));
    }

    #[test]
    fn strangers_are_kept_out_for_a_while_and_their_number_is_bounded() {
        let mut behaviour = Behaviour::new(limits());
        let now = Instant::now();
        let stranger = PeerId::random();
        behaviour.keep_out(stranger, Ban::All, now);
        assert!(connect(&mut behaviour, stranger, 1).is_err());
        assert!(!behaviour.is_stranger(&stranger, now + STRANGER_TTL));
        for n in 0..5_000_u64 {
            behaviour.keep_out(PeerId::random(), Ban::All, now + Duration::from_millis(n + 1));
        }
        assert_eq!(behaviour.strangers.len(), MAX_STRANGERS);
    }
}
