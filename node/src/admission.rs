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
    /// The limits of an agent that dials up to `peers` peers: as many may dial it, and a few connections more leave
    /// room for bootstrap peers, strangers that have not been judged yet, and connections about to end.
    #[must_use]
    pub fn for_peers(peers: usize) -> Self {
        Self {
            pending_incoming: 32,
            pending_outgoing: 32,
            established_incoming: peers + 8,
            established_outgoing: peers + 8,
            established: 2 * peers + 16,
            established_per_peer: 4,
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

/// Refuses connections over the limits, and strangers.
#[derive(Debug)]
pub struct Behaviour {
    limits: Limits,
    strangers: HashMap<PeerId, Instant>,
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
            refused_strangers: 0,
            pending_incoming: HashSet::new(),
            pending_outgoing: HashSet::new(),
            incoming: HashSet::new(),
            outgoing: HashSet::new(),
            per_peer: HashMap::new(),
        }
    }

    /// Keeps a peer out for the next ten minutes. Its connections are the caller's to close.
    pub fn keep_out(&mut self, peer: PeerId, now: Instant) {
        self.strangers
            .retain(|_, since| now.saturating_duration_since(*since) < STRANGER_TTL);
        if self.strangers.len() >= MAX_STRANGERS {
            let oldest = self
                .strangers
                .iter()
                .min_by_key(|(_, since)| **since)
                .map(|(peer, _)| *peer);
            if let Some(oldest) = oldest {
                self.strangers.remove(&oldest);
            }
        }
        self.strangers.insert(peer, now);
    }

    /// Whether a peer is kept out.
    #[must_use]
    pub fn is_stranger(&self, peer: &PeerId, now: Instant) -> bool {
        self.strangers
            .get(peer)
            .is_some_and(|since| now.saturating_duration_since(*since) < STRANGER_TTL)
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
        if self.is_stranger(peer, Instant::now()) {
            self.refused_strangers += 1;
            return Err(ConnectionDenied::new(Refused::Stranger));
        }
        check(held, limit, what)?;
        check(self.established(), self.limits.established, "connections")?;
        let of_peer = self.per_peer.get(peer).copied().unwrap_or_default();
        check(
            of_peer,
            self.limits.established_per_peer,
            "connections to one peer",
        )
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
    fn strangers_are_kept_out_for_a_while_and_their_number_is_bounded() {
        let mut behaviour = Behaviour::new(limits());
        let now = Instant::now();
        let stranger = PeerId::random();
        behaviour.keep_out(stranger, now);
        assert!(connect(&mut behaviour, stranger, 1).is_err());
        assert!(!behaviour.is_stranger(&stranger, now + STRANGER_TTL));
        for n in 0..5_000_u64 {
            behaviour.keep_out(PeerId::random(), now + Duration::from_millis(n + 1));
        }
        assert_eq!(behaviour.strangers.len(), MAX_STRANGERS);
    }
}
