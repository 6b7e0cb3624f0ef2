//! Who may connect: limits on every counter of connections, and strangers kept out.
//!
//! Who has not shown yet what it is could hold all places, and members would find none. So those have few places, one
//! source address has only some of these, and none are left when memory runs short. Whose connections come to nothing again and
//! again has to wait.
//!
//! `libp2p::connection_limits` has the same six limits, but keeps an entry for every peer id that ever connected: who
//! makes up a new id for each connection makes it grow without end.

mod wasted;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

pub(crate) use self::wasted::Wasted;

/// Strangers remembered at a time.
const MAX_STRANGERS: usize = 1024;
/// How long a stranger is kept out. Then it may show again who it is.
const STRANGER_TTL: Duration = Duration::from_secs(600);
/// How long a guest that there was no room for is kept out.
const GUEST_TTL: Duration = Duration::from_secs(10);
/// Peers remembered that came when all places were taken.
const MAX_NEWCOMERS: usize = 1024;
/// How long a newcomer has to wait until it is let in again beyond the places there are.
const NEWCOMER_PAUSE: Duration = Duration::from_secs(600);
/// Connections that one guest may hold.
pub const GUEST_CONNECTIONS: usize = 2;

/// Upper bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Inbound connections that are still shaking hands.
    pub pending_incoming: usize,
    /// Those of them that come from one address.
    pub pending_per_source: usize,
    /// Inbound connections of peers that have not shown yet what they are.
    pub unknown: usize,
    /// Those of them that come from one address.
    pub unknown_per_source: usize,
    /// Dials under way.
    pub pending_outgoing: usize,
    /// Connections that others opened.
    pub established_incoming: usize,
    /// Connections that others opened beyond those. They stand for a short while only: whoever knows nobody but agents that are
    /// full finds others meanwhile.
    pub newcomers: usize,
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
        let newcomers = 8 * transports;
        Self {
            pending_incoming: 32 * transports,
            pending_per_source: 8 * transports,
            unknown: 32,
            unknown_per_source: 8,
            pending_outgoing: 32 * transports,
            established_incoming: (peers + 8) * transports + of_guests,
            newcomers,
            established_outgoing: (peers + 8) * transports,
            established: (2 * peers + 16) * transports + of_guests + newcomers,
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
    /// There is not enough memory for those who have not shown yet what they are.
    #[error("memory is short")]
    Memory,
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
    /// Who had its turn as a newcomer, and until when it has no other one.
    had_turn: HashMap<PeerId, Instant>,
    refused_strangers: u64,
    refused_limits: u64,
    memory_is_short: bool,
    pending_incoming: HashMap<ConnectionId, Option<IpAddr>>,
    pending_outgoing: HashSet<ConnectionId>,
    incoming: HashMap<ConnectionId, Inbound>,
    wasted: Wasted,
    outgoing: HashSet<ConnectionId>,
    per_peer: HashMap<PeerId, usize>,
    /// Connected peers that have shown what they are.
    known: HashSet<PeerId>,
}

/// A connection that somebody else opened.
#[derive(Clone, Copy, Debug)]
struct Inbound {
    peer: PeerId,
    source: Option<IpAddr>,
}

impl Behaviour {
    /// An empty house.
    #[must_use]
    pub(crate) fn new(limits: Limits, wasted: Wasted) -> Self {
        Self {
            limits,
            strangers: HashMap::new(),
            guests: HashSet::new(),
            had_turn: HashMap::new(),
            refused_strangers: 0,
            refused_limits: 0,
            memory_is_short: false,
            pending_incoming: HashMap::new(),
            pending_outgoing: HashSet::new(),
            incoming: HashMap::new(),
            wasted,
            outgoing: HashSet::new(),
            per_peer: HashMap::new(),
            known: HashSet::new(),
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

    /// A connected peer has shown what it is, and may stay: it takes none of the unknown ones' places until its last
    /// connection ends.
    pub fn know(&mut self, peer: PeerId) {
        if self.per_peer.contains_key(&peer) {
            self.known.insert(peer);
        }
    }

    /// Whether memory is short: nobody unknown comes in as long as it is.
    pub fn set_memory_is_short(&mut self, short: bool) {
        self.memory_is_short = short;
    }

    /// Connections of those who have not shown yet what they are.
    pub fn unknown(&self) -> impl Iterator<Item = ConnectionId> {
        self.incoming
            .iter()
            .filter(|(_, inbound)| !self.known.contains(&inbound.peer))
            .map(|(connection, _)| *connection)
    }

    /// From now on a peer is held to the limit of guests, or no more.
    pub fn set_guest(&mut self, peer: PeerId, guest: bool) {
        if guest {
            self.guests.insert(peer);
        } else {
            self.guests.remove(&peer);
        }
    }

    /// How many inbound connections stand beyond the places that there are for good.
    #[must_use]
    pub fn too_many(&self) -> usize {
        self.incoming
            .len()
            .saturating_sub(self.limits.established_incoming)
    }

    /// A newcomer has to go, and comes in for the next ten minutes only if there is a place for good. Its connection is the caller's
    /// to close.
    pub fn end_turn(&mut self, peer: PeerId, now: Instant) {
        self.had_turn.retain(|_, until| now < *until);
        if self.had_turn.len() < MAX_NEWCOMERS {
            self.had_turn.insert(peer, now + NEWCOMER_PAUSE);
        }
    }

    fn places(&self, peer: &PeerId, now: Instant) -> usize {
        let had_turn = self.had_turn.get(peer).is_some_and(|until| now < *until);
        let newcomers = if had_turn { 0 } else { self.limits.newcomers };
        self.limits.established_incoming + newcomers
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

    /// Connections refused since a limit was reached or memory was short, since the start.
    #[must_use]
    pub fn refused_limits(&self) -> u64 {
        self.refused_limits
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
        let of_peer = self.per_peer.get(peer).copied().unwrap_or_default();
        let per_peer = if self.guests.contains(peer) {
            GUEST_CONNECTIONS
        } else {
            self.limits.established_per_peer
        };
        check(held, limit, what)
            .and_then(|()| check(self.established(), self.limits.established, "connections"))
            .and_then(|()| check(of_peer, per_peer, "connections to one peer"))
            .map_err(|refused| self.refuse(refused))
    }

    /// Whether there is a place for one more inbound connection of somebody who has not shown yet what it is.
    fn admit_unknown(&self, source: Option<IpAddr>) -> Result<(), Refused> {
        if self.memory_is_short {
            return Err(Refused::Memory);
        }
        let unknown = || {
            self.incoming
                .values()
                .filter(|inbound| !self.known.contains(&inbound.peer))
        };
        let here = unknown()
            .filter(|inbound| is_from(inbound.source, source))
            .count();
        check(
            unknown().count(),
            self.limits.unknown,
            "connections of unknown peers",
        )?;
        check(
            here,
            self.limits.unknown_per_source,
            "connections of unknown peers from one address",
        )
    }

    fn admit_pending(&self, source: Option<IpAddr>) -> Result<(), Refused> {
        if self.memory_is_short {
            return Err(Refused::Memory);
        }
        let limits = &self.limits;
        let here = self
            .pending_incoming
            .values()
            .filter(|of| is_from(**of, source))
            .count();
        if source.is_some_and(|source| self.wasted.is_too_much(source, Instant::now())) {
            return Err(Refused::Limit {
                what: "connections from one address that come to nothing",
                limit: wasted::ALLOWED.burst as usize,
            });
        }
        check(
            self.pending_incoming.len(),
            limits.pending_incoming,
            "inbound handshakes",
        )?;
        check(
            here,
            limits.pending_per_source,
            "inbound handshakes from one address",
        )
    }

    fn waste(&mut self, source: Option<IpAddr>) {
        // Circuits have none.
        if let Some(source) = source {
            self.wasted.count(source, Instant::now());
        }
    }

    fn refuse(&mut self, refused: Refused) -> ConnectionDenied {
        self.refused_limits += 1;
        ConnectionDenied::new(refused)
    }
}

/// The address that a connection comes from.
fn source(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// Whether a connection comes from this address. Circuits have none: relays open them for members only, and bound them.
fn is_from(source: Option<IpAddr>, address: Option<IpAddr>) -> bool {
    address.is_some() && source == address
}

fn check(held: usize, limit: usize, what: &'static str) -> Result<(), Refused> {
    if held < limit {
        Ok(())
    } else {
        Err(Refused::Limit { what, limit })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let source = source(remote);
        self.admit_pending(source)
            .map_err(|refused| self.refuse(refused))?;
        self.pending_incoming.insert(connection, source);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_incoming.remove(&connection);
        if !self.known.contains(&peer) {
            self.admit_unknown(source(remote))
                .map_err(|refused| self.refuse(refused))?;
        }
        self.admit(
            &peer,
            self.incoming.len(),
            self.places(&peer, Instant::now()),
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
        let dialed = self.outgoing.len() + self.pending_outgoing.len();
        let limits = self.limits;
        check(self.pending_outgoing.len(), limits.pending_outgoing, "dials")
            .and_then(|()| check(dialed, limits.established_outgoing, "outbound connections"))
            .map_err(|refused| self.refuse(refused))?;
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
                    ConnectedPoint::Dialer { .. } => {
                        self.outgoing.insert(established.connection_id);
                    }
                    ConnectedPoint::Listener { send_back_addr, .. } => {
                        let inbound = Inbound {
                            peer: established.peer_id,
                            source: source(send_back_addr),
                        };
                        self.incoming.insert(established.connection_id, inbound);
                    }
                }
                *self.per_peer.entry(established.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(inbound) = self.incoming.remove(&closed.connection_id)
                    && !self.known.contains(&inbound.peer)
                {
                    self.waste(inbound.source);
                }
                self.outgoing.remove(&closed.connection_id);
                if closed.remaining_established == 0 {
                    self.per_peer.remove(&closed.peer_id);
                    self.known.remove(&closed.peer_id);
                } else {
                    self.per_peer.insert(closed.peer_id, closed.remaining_established);
                }
            }
            FromSwarm::DialFailure(failure) => {
                self.pending_outgoing.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                // Whom there was no place for is not among them any more.
                if let Some(source) = self.pending_incoming.remove(&failure.connection_id) {
                    self.waste(source);
                }
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
mod tests;
