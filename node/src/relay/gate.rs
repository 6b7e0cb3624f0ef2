//! A gate before a behaviour that serves others: it hears of nothing that a peer asks before that peer has shown that it is
//! a member.
//!
//! libp2p's relay and AutoNAT serve whoever has a connection, and a stranger has one for as long as it takes to find out.

use std::{
    collections::HashSet,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

/// Addresses of our own that others say they see us at, at most. AutoNAT tries each of them, and forgets none.
const MAX_CANDIDATES: usize = 8;

/// A behaviour that serves members alone.
pub struct Gate<B> {
    inner: B,
    members: HashSet<PeerId>,
    dropped: u64,
    candidates: HashSet<Multiaddr>,
}

impl<B> Gate<B> {
    /// Nobody may ask anything yet.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            members: HashSet::new(),
            dropped: 0,
            candidates: HashSet::new(),
        }
    }

    /// This peer has a connection, and is a member. It ends with its last connection.
    pub fn accept(&mut self, peer: PeerId) {
        self.members.insert(peer);
    }

    /// What peers asked that are no members, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                self.members.remove(&closed.peer_id);
            }
            FromSwarm::NewExternalAddrCandidate(candidate) => {
                if self.candidates.len() >= MAX_CANDIDATES && !self.candidates.contains(candidate.addr) {
                    return;
                }
                self.candidates.insert(candidate.addr.clone());
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if self.members.contains(&peer) {
            self.inner.on_connection_handler_event(peer, connection, event);
        } else {
            // Dropped with the stream that it came on, which the stranger takes for a refusal.
            self.dropped += 1;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}
