//! Which connections are probed: one per accepted peer, however many there are. A direct one, if there is one.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use peernet_api::report::Path;

use super::{
    Config, Failure, News, Outcome,
    handler::{Command, Handler},
};
use crate::relay::is_relayed;

/// Failures in a row after which a connection is closed, so that a new one is dialed. With a second connection at
/// hand, the first failure is enough.
const MAX_FAILURES: u32 = 3;

/// What became of a probe to a peer.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The peer that was probed.
    pub peer: PeerId,
    /// The way that the probe took.
    pub path: Path,
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
    connections: Vec<(ConnectionId, Path)>,
    /// Given up, but not gone yet.
    closing: Vec<(ConnectionId, Path)>,
    measured: Option<ConnectionId>,
    failures: u32,
}

impl Peer {
    fn path(&self, connection: ConnectionId) -> Path {
        let all = self.connections.iter().chain(&self.closing);
        all.copied()
            .find(|(known, _)| *known == connection)
            .map_or(Path::Direct, |(_, path)| path)
    }

    /// The connection to measure: the one that is measured, unless there is a better one. A direct connection is better
    /// than a circuit, and a new circuit better than an old one: it was made because the old one is about to end.
    fn best(&self) -> Option<ConnectionId> {
        let newest = |wanted: Path| {
            let mut connections = self.connections.iter().rev();
            connections.find(|(_, path)| *path == wanted).map(|(id, _)| *id)
        };
        match self.measured {
            Some(measured) if self.path(measured) == Path::Direct => Some(measured),
            _ => newest(Path::Direct).or_else(|| newest(Path::Relayed)),
        }
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

    /// Starts probing a connected peer. It ends with the peer's last connection.
    pub fn accept(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.accepted = true;
        }
        self.measure(peer);
    }

    /// The connection that a peer is probed on.
    #[must_use]
    pub fn measured(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.peers.get(peer)?.measured
    }

    /// Starts to probe the best connection of an accepted peer, and ends with the one that was probed before.
    fn measure(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        if !peer.accepted {
            return;
        }
        let best = peer.best();
        let Some(connection) = best.filter(|best| Some(*best) != peer.measured) else {
            return;
        };
        let before = peer.measured.replace(connection);
        peer.failures = 0;
        let stop = before.map(|before| (before, Command::Stop));
        for (connection, event) in stop.into_iter().chain([(connection, Command::Start)]) {
            self.actions.push_back(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
    }

    fn closed(&mut self, peer_id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        peer.connections.retain(|(known, _)| *known != connection);
        peer.closing.retain(|(known, _)| *known != connection);
        if peer.measured == Some(connection) {
            peer.measured = None;
        }
        if peer.connections.is_empty() && peer.closing.is_empty() {
            self.peers.remove(&peer_id);
        } else {
            self.measure(peer_id);
        }
    }

    /// Closes a connection that fails, and moves on to another one if there is one.
    fn judge(&mut self, peer_id: PeerId, connection: ConnectionId, outcome: &Outcome) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        if peer.measured != Some(connection) {
            return;
        }
        match outcome.news {
            News::Cold { result: Ok(_), .. } => {
                peer.failures = 0;
                return;
            }
            // The second says nothing about the connection.
            News::Warm(_)
            | News::Cold {
                result: Err(Failure::Unheard),
                ..
            } => return,
            News::Cold { result: Err(_), .. } => peer.failures += 1,
        }
        let spare = peer.connections.len() > 1;
        if peer.failures < MAX_FAILURES && !spare {
            return;
        }
        tracing::debug!(peer = %peer_id, %connection, failures = peer.failures, "closing a connection that fails");
        self.actions.push_back(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(connection),
        });
        let path = peer.path(connection);
        peer.connections.retain(|(known, _)| *known != connection);
        peer.closing.push((connection, path));
        peer.measured = None;
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
                let peer = self.peers.entry(established.peer_id).or_default();
                let path = if is_relayed(established.endpoint) {
                    Path::Relayed
                } else {
                    Path::Direct
                };
                peer.connections.push((established.connection_id, path));
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
        let path = self
            .peers
            .get(&peer)
            .map_or(Path::Direct, |peer| peer.path(connection));
        self.actions
            .push_back(ToSwarm::GenerateEvent(Event { peer, path, outcome }));
        self.judge(peer, connection, &outcome);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
