//! libp2p's mDNS, with bounds.
//!
//! Nothing in mDNS is verified, and libp2p-mdns 0.49 keeps whatever a packet says for as long as the packet says: one
//! sender can plant any number of peers for 136 years. So the behaviour is dropped and started anew when it holds too
//! many, and what it found goes nowhere but to the planner, which has bounds of its own. Membership is judged later, by
//! what a peer can prove.

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, PortUse},
    },
    mdns,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::NewListenAddr, dummy,
    },
};

pub use libp2p::mdns::Event;

/// Records held at a time. A thousand agents on one link are far beyond what mDNS carries.
const MAX_RECORDS: usize = 1024;
/// Least time between two new starts, so that a flood of packets does not become a flood of sockets.
const MIN_LIFE: Duration = Duration::from_secs(60);

/// mDNS that can't be filled up.
pub struct Behaviour {
    own_id: PeerId,
    inner: Option<mdns::tokio::Behaviour>,
    started: Instant,
    /// What a dropped behaviour had found, to be told as expired.
    dropped: Option<Event>,
    listening: Vec<(ListenerId, Multiaddr)>,
}

impl Behaviour {
    /// Starts mDNS on all interfaces.
    ///
    /// # Errors
    /// If the interfaces can't be watched.
    pub fn new(own_id: PeerId) -> io::Result<Self> {
        let inner = mdns::tokio::Behaviour::new(mdns::Config::default(), own_id)?;
        Ok(Self {
            own_id,
            inner: Some(inner),
            started: Instant::now(),
            dropped: None,
            listening: Vec::new(),
        })
    }

    /// Drops a behaviour that holds too much, and starts another one when its time has come. Call this now and then.
    pub fn tend(&mut self, now: Instant) {
        if let Some(inner) = self
            .inner
            .take_if(|inner| inner.discovered_nodes().len() > MAX_RECORDS)
        {
            tracing::warn!(
                records = MAX_RECORDS,
                "mDNS was flooded with announcements: starting anew"
            );
            let found = inner
                .discovered_nodes()
                .map(|peer| (*peer, Multiaddr::empty()))
                .collect();
            self.dropped = Some(Event::Expired(found));
        }
        if self.inner.is_none() && now.saturating_duration_since(self.started) >= MIN_LIFE {
            self.started = now;
            match mdns::tokio::Behaviour::new(mdns::Config::default(), self.own_id) {
                Ok(mut inner) => {
                    for (listener_id, addr) in &self.listening {
                        let listener_id = *listener_id;
                        inner.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }));
                    }
                    self.inner = Some(inner);
                }
                Err(error) => tracing::warn!(%error, "mDNS can't start"),
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(new) => self.listening.push((new.listener_id, new.addr.clone())),
            FromSwarm::ExpiredListenAddr(expired) => {
                self.listening
                    .retain(|(id, addr)| *id != expired.listener_id || addr != expired.addr);
            }
            _ => {}
        }
        if let Some(inner) = &mut self.inner {
            inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.dropped.take() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            let Some(inner) = &mut self.inner else {
                return Poll::Pending;
            };
            match ready!(inner.poll(cx)) {
                ToSwarm::GenerateEvent(event) => return Poll::Ready(ToSwarm::GenerateEvent(event)),
                // Unverified addresses are for the planner alone: other behaviours don't hear of them.
                other => drop::<ToSwarm<Event, Infallible>>(other),
            }
            if self
                .inner
                .as_ref()
                .is_some_and(|inner| inner.discovered_nodes().len() > MAX_RECORDS)
            {
                self.tend(Instant::now());
            }
        }
    }
}
