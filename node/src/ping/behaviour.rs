//! Which connections are probed: one per accepted peer and transport, however many there are. A circuit through a relay is
//! probed only while no direct connection stands, over whatever transport.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    task::{Context, Poll},
    time::Instant,
};

use super::{
    Config, Failure, News, Outcome, Over,
    handler::{Command, Handler},
};
use crate::{discovery::Address, pace, relay::is_relayed};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

/// Failures in a row after which a connection is closed, so that a new one is dialed. With a second connection at
/// hand over the same transport, or a circuit in place of the last direct one, the first failure is enough.
const MAX_FAILURES: u32 = 3;

/// What became of a probe to a peer.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The peer that was probed.
    pub peer: PeerId,
    /// Over what.
    pub over: Over,
    /// What became of it.
    pub outcome: Outcome,
}

/// Answers every peer's pings, and probes the peers that [`Behaviour::accept`] names.
pub struct Behaviour {
    config: Config,
    /// The peers with a connection: bounded by the connection limits.
    peers: HashMap<PeerId, Peer>,
    /// Drained on every poll of the swarm; no peer adds to it without having been polled.
    actions: VecDeque<ToSwarm<Event, Command>>,
}

#[derive(Debug, Default)]
struct Peer {
    accepted: bool,
    /// When the first probe over the first transport was to leave: the others keep their distance from it.
    first: Option<Instant>,
    /// The direct ones come before the circuits.
    ways: BTreeMap<Over, Way>,
}

/// The connections to a peer over one transport, or its circuits.
#[derive(Debug, Default)]
struct Way {
    connections: Vec<ConnectionId>,
    /// Given up, but not gone yet.
    closing: Vec<ConnectionId>,
    measured: Option<ConnectionId>,
    failures: u32,
}

impl Way {
    /// The connection to measure: the one that is measured, or else the newest. A new circuit is better than an old one:
    /// it was made because the old one is about to end.
    fn best(&self, over: Over) -> Option<ConnectionId> {
        let measured = self.measured.filter(|_| over != Over::Circuit);
        measured.or_else(|| self.connections.last().copied())
    }
}

impl Peer {
    /// What a connection goes over.
    fn over(&self, connection: ConnectionId) -> Option<Over> {
        let known = |way: &Way| way.connections.contains(&connection) || way.closing.contains(&connection);
        let mut ways = self.ways.iter();
        ways.find_map(|(over, way)| known(way).then_some(*over))
    }

    /// Whether there is a connection over something that this holds for, and it is not given up.
    fn stands(&self, wanted: impl Fn(Over) -> bool) -> bool {
        let mut ways = self.ways.iter();
        ways.any(|(over, way)| wanted(*over) && !way.connections.is_empty())
    }

    /// Whether there is another connection to move on to when one over this fails.
    fn has_spare(&self, failing: Over) -> bool {
        let alike = self.ways.get(&failing);
        alike.is_some_and(|way| way.connections.len() > 1)
            || (failing != Over::Circuit
                && self.stands(|over| over == Over::Circuit)
                && !self.stands(|over| over != Over::Circuit && over != failing))
    }
}

impl Behaviour {
    /// A behaviour that probes nobody yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: HashMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// Starts probing a connected peer, over each transport that it is connected by, also later. It ends with the peer's
    /// last connection.
    pub fn accept(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.accepted = true;
        }
        self.measure(peer);
    }

    /// The connection that a peer is probed on over this.
    #[must_use]
    pub fn measured(&self, peer: &PeerId, over: Over) -> Option<ConnectionId> {
        self.peers.get(peer)?.ways.get(&over)?.measured
    }

    /// Whether a peer is probed on this connection.
    #[must_use]
    pub fn is_measured(&self, peer: &PeerId, connection: ConnectionId) -> bool {
        self.peers.get(peer).is_some_and(|peer| {
            let mut ways = peer.ways.values();
            ways.any(|way| way.measured == Some(connection))
        })
    }

    /// The best of the connections that a peer is probed on: a circuit only if there is no direct one.
    #[must_use]
    pub fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        let mut ways = self.peers.get(peer)?.ways.values();
        ways.find_map(|way| way.measured)
    }

    /// Starts to probe the best connection of an accepted peer over each transport, and ends with those that were probed
    /// before.
    fn measure(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id).filter(|peer| peer.accepted) else {
            return;
        };
        let direct = peer.stands(|over| over != Over::Circuit);
        let (now, interval) = (Instant::now(), self.config.interval);
        for (over, way) in &mut peer.ways {
            let best = way.best(*over).filter(|_| *over != Over::Circuit || !direct);
            if best == way.measured {
                continue;
            }
            let before = std::mem::replace(&mut way.measured, best);
            way.failures = 0;
            let stop = before.map(|before| (before, Command::Stop));
            let start = best.map(|best| {
                let first = *peer.first.get_or_insert_with(|| pace::first(now, interval));
                let first = pace::next_on_grid(first + over.phase(interval), now, interval);
                (best, Command::Start { first })
            });
            for (connection, event) in stop.into_iter().chain(start) {
                self.actions.push_back(ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::One(connection),
                    event,
                });
            }
        }
    }

    fn closed(&mut self, peer_id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let Some(over) = peer.over(connection) else {
            return;
        };
        if let Some(way) = peer.ways.get_mut(&over) {
            way.connections.retain(|known| *known != connection);
            way.closing.retain(|known| *known != connection);
            if way.measured == Some(connection) {
                way.measured = None;
            }
            if way.connections.is_empty() && way.closing.is_empty() {
                peer.ways.remove(&over);
            }
        }
        if peer.ways.is_empty() {
            self.peers.remove(&peer_id);
        } else {
            self.measure(peer_id);
        }
    }

    /// Closes a connection that fails, and moves on to another one if there is one.
    fn judge(&mut self, peer_id: PeerId, over: Over, connection: ConnectionId, outcome: &Outcome) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let spare = peer.has_spare(over);
        let Some(way) = peer.ways.get_mut(&over) else {
            return;
        };
        if way.measured != Some(connection) {
            return;
        }
        match outcome.news {
            News::Cold { result: Ok(_), .. } => {
                way.failures = 0;
                return;
            }
            // The second says nothing about the connection.
            News::Warm(_)
            | News::Cold {
                result: Err(Failure::Unheard),
                ..
            } => return,
            News::Cold { result: Err(_), .. } => way.failures += 1,
        }
        if way.failures < MAX_FAILURES && !spare {
            return;
        }
        tracing::debug!(peer = %peer_id, ?over, %connection, failures = way.failures, "closing a connection that fails");
        self.actions.push_back(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(connection),
        });
        way.connections.retain(|known| *known != connection);
        way.closing.push(connection);
        way.measured = None;
        self.measure(peer_id);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.config))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.config))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let over = if is_relayed(established.endpoint) {
                    Over::Circuit
                } else if let Some(address) = Address::parse(established.endpoint.get_remote_address()) {
                    Over::Direct(address.transport())
                } else {
                    // What came some other way is answered, and not measured.
                    return;
                };
                let peer = self.peers.entry(established.peer_id).or_default();
                let way = peer.ways.entry(over).or_default();
                way.connections.push(established.connection_id);
                self.measure(established.peer_id);
            }
            FromSwarm::ConnectionClosed(closed) => self.closed(closed.peer_id, closed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        outcome: THandlerOutEvent<Self>,
    ) {
        // It is told before the connection's end is, so that what it goes over is known.
        let known = self.peers.get(&peer);
        let Some(over) = known.and_then(|known| known.over(connection)) else {
            return;
        };
        self.actions
            .push_back(ToSwarm::GenerateEvent(Event { peer, over, outcome }));
        self.judge(peer, over, connection, &outcome);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
