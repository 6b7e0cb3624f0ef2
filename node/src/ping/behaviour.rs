//! Which connections are probed: one per accepted peer, however many there are.

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

use super::{
    Config, Failure, News, Outcome,
    handler::{Handler, Start},
};

/// Failures in a row after which a connection is closed, so that a new one is dialed. With a second connection at
/// hand, the first failure is enough.
const MAX_FAILURES: u32 = 3;

/// What became of a probe to a peer.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The peer that was probed.
    pub peer: PeerId,
    /// What became of it.
    pub outcome: Outcome,
}

/// Answers every peer's pings, and probes the peers that [`Behaviour::accept`] names.
pub struct Behaviour {
    config: Config,
    /// The peers with a connection: bounded by the connection limits.
    peers: HashMap<PeerId, Peer>,
    /// Drained on every poll of the swarm; no peer adds to it without having been polled.
    actions: VecDeque<ToSwarm<Event, Start>>,
}

#[derive(Debug, Default)]
struct Peer {
    accepted: bool,
    connections: Vec<ConnectionId>,
    /// Given up, but not gone yet.
    closing: Vec<ConnectionId>,
    measured: Option<ConnectionId>,
    failures: u32,
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

    /// Starts to probe the newest connection of an accepted peer if none is probed yet.
    fn measure(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        if !peer.accepted || peer.measured.is_some() {
            return;
        }
        let Some(&connection) = peer.connections.last() else {
            return;
        };
        peer.measured = Some(connection);
        peer.failures = 0;
        self.actions.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Start,
        });
    }

    fn closed(&mut self, peer_id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        peer.connections.retain(|known| *known != connection);
        peer.closing.retain(|known| *known != connection);
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
        peer.connections.retain(|known| *known != connection);
        peer.closing.push(connection);
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
                peer.connections.push(established.connection_id);
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
        self.actions
            .push_back(ToSwarm::GenerateEvent(Event { peer, outcome }));
        self.judge(peer, connection, &outcome);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
