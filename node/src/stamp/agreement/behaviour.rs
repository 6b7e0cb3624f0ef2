//! With whom there are sessions, and over which connection they are agreed.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use super::{
    super::MAX_SESSIONS,
    Ask, Keys, Offer, Reflecting, Sending,
    handler::{self, Failed, Handler, Heard, Say},
};
use crate::{discovery::Address, relay::is_relayed};

/// Pause before a peer is asked again that refused or did not answer: doubled each time, up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A peer that asks more often than this is refused.
const BETWEEN_ASKS: Duration = Duration::from_millis(500);
/// The fastest pace that a session is agreed for.
const FASTEST: Duration = Duration::from_millis(10);

/// What sessions this agent asks for, and where it reflects.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Our own id.
    pub own_id: PeerId,
    /// Time between two of our probes to one peer.
    pub interval: Duration,
    /// Address of our reflector, if we know how others reach us.
    pub address: Option<IpAddr>,
    /// UDP port of our reflector.
    pub port: u16,
}

/// What was agreed, or ended.
#[derive(Clone, Debug)]
pub enum Event {
    /// We send. Replaces the session before.
    Sending(Sending),
    /// We reflect. Replaces the session before. Told before the peer hears of it.
    Reflecting(Reflecting),
    /// Another process has the peer's place: the session in which we sent to the one before has ended.
    Restarted(PeerId),
    /// The peer has no connection any more: all its sessions end.
    Ended(PeerId),
}

/// Agrees on a session in each direction with every peer that [`Behaviour::accept`] names.
#[derive(Debug)]
pub struct Behaviour {
    config: Config,
    /// The peers with a connection: bounded by the connection limits.
    peers: HashMap<PeerId, Peer>,
    next_ssid: u16,
    /// Drained on every poll of the swarm; no peer adds to it without having been polled.
    actions: VecDeque<ToSwarm<Event, handler::Command>>,
}

#[derive(Debug, Default)]
struct Peer {
    accepted: bool,
    connections: Vec<(ConnectionId, Option<IpAddr>)>,
    sending: Asking,
    /// The newest question of the peer that waits for its acceptance.
    waiting: Option<(ConnectionId, u64, Ask)>,
    /// The session in which we reflect, and when it was agreed.
    reflecting: Option<(u16, Instant)>,
    refusals: u32,
}

/// How far we are with our own session.
#[derive(Debug, Default)]
enum Asking {
    /// Nobody has been asked, or it is to be done again at some time.
    #[default]
    Idle,
    Again(Instant),
    Asked(ConnectionId, Ask),
    Agreed(ConnectionId),
    /// The peer does not speak the protocol on that connection.
    Unsupported,
}

impl Behaviour {
    /// A behaviour that asks nobody yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: HashMap::new(),
            next_ssid: rand::random(),
            actions: VecDeque::new(),
        }
    }

    /// Asks a connected peer for a session, and answers when it asks. It ends with the peer's last connection.
    pub fn accept(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        peer.accepted = true;
        if let Some((connection, asked, ask)) = peer.waiting.take() {
            self.offer(peer_id, connection, asked, ask);
        }
        self.ask(peer_id);
    }

    /// Another process has the peer's place. [`Behaviour::accept`] it again, to agree with that one.
    pub fn restarted(&mut self, peer_id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer_id) {
            peer.sending = Asking::Idle;
            self.actions
                .push_back(ToSwarm::GenerateEvent(Event::Restarted(*peer_id)));
        }
    }

    /// Agrees anew: the session is dead.
    pub fn renew(&mut self, peer_id: &PeerId) {
        match self.peers.get_mut(peer_id) {
            Some(peer) => {
                if matches!(peer.sending, Asking::Agreed(_)) {
                    peer.sending = Asking::Idle;
                    self.ask(*peer_id);
                }
            }
            // The end of its sessions got lost on the way.
            None => self
                .actions
                .push_back(ToSwarm::GenerateEvent(Event::Ended(*peer_id))),
        }
    }

    /// Asks those again whose pause is over.
    pub fn tend(&mut self, now: Instant) {
        let due: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.sending, Asking::Again(at) if at <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            self.ask(peer);
        }
    }

    /// Asks over the newest connection, unless there is a session or a question under way.
    fn ask(&mut self, peer_id: PeerId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        if !peer.accepted || !matches!(peer.sending, Asking::Idle | Asking::Again(_)) {
            return;
        }
        let Some((connection, _)) = peer.connections.last() else {
            return;
        };
        let ask = Ask {
            half: rand::random(),
            interval: self.config.interval,
        };
        peer.sending = Asking::Asked(*connection, ask);
        self.actions.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(*connection),
            event: handler::Command(Say::Ask(ask)),
        });
    }

    fn offer(&mut self, peer_id: PeerId, connection: ConnectionId, asked: u64, ask: Ask) {
        let now = Instant::now();
        let ssid = self.free_ssid();
        let sessions = self.peers.values().filter(|peer| peer.reflecting.is_some());
        let full = sessions.count() >= MAX_SESSIONS;
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let allowed = match peer.reflecting {
            Some((_, since)) => now.saturating_duration_since(since) >= BETWEEN_ASKS,
            None => !full,
        };
        let offer = if allowed {
            let half = rand::random();
            let keys = Keys::agree((&peer_id, &ask.half), (&self.config.own_id, &half));
            peer.reflecting = Some((ssid, now));
            self.actions
                .push_back(ToSwarm::GenerateEvent(Event::Reflecting(Reflecting {
                    peer: peer_id,
                    ssid,
                    keys,
                    interval: ask.interval.max(FASTEST),
                })));
            Offer::Agreed {
                ssid,
                address: self.config.address,
                port: self.config.port,
                half,
            }
        } else {
            Offer::Refused
        };
        self.actions.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: handler::Command(Say::Offer { asked, offer }),
        });
    }

    /// An identifier that no session has, nor had for long. Zero stands for no identifier (RFC 8972, section 3).
    fn free_ssid(&mut self) -> u16 {
        loop {
            self.next_ssid = self.next_ssid.wrapping_add(1);
            let ssid = self.next_ssid;
            let taken = |peer: &Peer| peer.reflecting.is_some_and(|(taken, _)| taken == ssid);
            // There are more identifiers than sessions.
            if ssid != 0 && !self.peers.values().any(taken) {
                return ssid;
            }
        }
    }

    fn offered(&mut self, peer_id: PeerId, connection: ConnectionId, result: Result<Offer, Failed>) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let Asking::Asked(asked, ask) = peer.sending else {
            return;
        };
        if asked != connection {
            return;
        }
        let remote = peer
            .connections
            .iter()
            .find(|(known, _)| *known == connection)
            .and_then(|(_, ip)| *ip);
        let ip = match &result {
            Ok(Offer::Agreed { address, .. }) => address.or(remote).filter(|ip| is_sensible(ip, remote)),
            _ => None,
        };
        match (result, ip) {
            (Ok(Offer::Agreed { ssid, port, half, .. }), Some(ip)) if ssid != 0 && port != 0 => {
                let keys = Keys::agree((&self.config.own_id, &ask.half), (&peer_id, &half));
                peer.sending = Asking::Agreed(connection);
                peer.refusals = 0;
                self.actions
                    .push_back(ToSwarm::GenerateEvent(Event::Sending(Sending {
                        peer: peer_id,
                        ip,
                        port,
                        ssid,
                        keys,
                    })));
            }
            (Err(Failed::Unsupported), _) => peer.sending = Asking::Unsupported,
            (Ok(_) | Err(Failed::Broken), _) => {
                let pause = RETRY.0.saturating_mul(1 << peer.refusals.min(10)).min(RETRY.1);
                peer.refusals += 1;
                peer.sending = Asking::Again(Instant::now() + pause);
                tracing::debug!(peer = %peer_id, ?result, ?pause, "no STAMP session yet");
            }
        }
    }

    fn closed(&mut self, peer_id: PeerId, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        peer.connections.retain(|(known, _)| *known != connection);
        if peer.connections.is_empty() {
            self.peers.remove(&peer_id);
            self.actions
                .push_back(ToSwarm::GenerateEvent(Event::Ended(peer_id)));
            return;
        }
        if matches!(&peer.waiting, Some((from, ..)) if *from == connection) {
            peer.waiting = None;
        }
        let over = match peer.sending {
            Asking::Asked(on, _) | Asking::Agreed(on) => on == connection,
            Asking::Unsupported => true,
            Asking::Idle | Asking::Again(_) => false,
        };
        if over {
            peer.sending = Asking::Idle;
            self.ask(peer_id);
        }
    }
}

/// Whether a peer may be sent to at an address. Loopback is only for those who talk to us over it: anywhere else it is
/// ourselves.
fn is_sensible(ip: &IpAddr, remote: Option<IpAddr>) -> bool {
    let local = remote.is_some_and(|remote| remote.is_loopback());
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !broadcast && (local || !ip.is_loopback())
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
        Ok(Handler::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            // STAMP measures the way that packets take by themselves, and not the one through a relay.
            FromSwarm::ConnectionEstablished(established) if is_relayed(established.endpoint) => {}
            FromSwarm::ConnectionEstablished(established) => {
                let remote = Address::parse(established.endpoint.get_remote_address());
                let ip = remote.map(|address| address.ip().to_canonical());
                let peer = self.peers.entry(established.peer_id).or_default();
                peer.connections.push((established.connection_id, ip));
                // It may be another program by now.
                if matches!(peer.sending, Asking::Unsupported) {
                    peer.sending = Asking::Idle;
                }
                self.ask(established.peer_id);
            }
            FromSwarm::ConnectionClosed(closed) if is_relayed(closed.endpoint) => {}
            FromSwarm::ConnectionClosed(closed) => self.closed(closed.peer_id, closed.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection: ConnectionId,
        handler::Event(heard): THandlerOutEvent<Self>,
    ) {
        match heard {
            Heard::Asked { asked, ask } => match self.peers.get_mut(&peer_id) {
                Some(peer) if peer.accepted => self.offer(peer_id, connection, asked, ask),
                Some(peer) => peer.waiting = Some((connection, asked, ask)),
                None => {}
            },
            Heard::Offered(result) => self.offered(peer_id, connection, result),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
