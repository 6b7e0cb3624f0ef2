//! Relays: what the book decides is done here, and what comes of it is told to the book.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    autonat::v2 as autonat,
    core::{ConnectedPoint, transport::ListenerId},
    dcutr, identify, relay as libp2p_relay, request_response,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::EventLoop;
use crate::{
    discovery::Address,
    relay::{
        self, Counts,
        behaviour::BehaviourEvent,
        book::{Book, Plan, Ways},
        introduction::{self, Answer, Question},
    },
};

/// A circuit that something better has replaced is closed after the longest probe and this: by then, both ends measure the
/// better one.
const MOVE_GRACE: Duration = Duration::from_secs(2);
/// A connection by which AutoNAT tried a member is closed if it is no older than this.
const TRIAL: Duration = Duration::from_secs(30);

/// Peers whose circuits' length is remembered: more than may be connected.
const MAX_LASTING: usize = 2048;

/// What the event loop knows of relays.
pub(super) struct Relaying {
    book: Book,
    /// Listening through a relay, by its listener.
    listeners: HashMap<ListenerId, PeerId>,
    /// Circuits that are asked for.
    dialing: HashMap<ConnectionId, PeerId>,
    /// Questions on the way. The protocol ends each of them in time.
    asked: HashMap<request_response::OutboundRequestId, PeerId>,
    /// How long circuits last: those that we asked for by their relay, those that came by the peer that asked.
    lasting: HashMap<PeerId, Duration>,
    /// Members that have reserved here: no more than the relay grants.
    reserved: HashSet<PeerId>,
    counts: Counts,
    reachable: Option<bool>,
}

/// What a connection through a relay is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circuit {
    /// Whether we asked for it.
    asked: bool,
    /// The relay, if it can be told.
    pub(super) relay: Option<PeerId>,
    /// When the relay ends it, if it does.
    ends: Option<Instant>,
    /// Since when something better is measured in its place.
    superseded: Option<Instant>,
}

impl Relaying {
    pub(super) fn new(own_id: PeerId, limit: usize) -> Self {
        Self {
            book: Book::new(own_id, limit),
            listeners: HashMap::new(),
            dialing: HashMap::new(),
            asked: HashMap::new(),
            lasting: HashMap::new(),
            reserved: HashSet::new(),
            counts: Counts::default(),
            reachable: None,
        }
    }

    /// A member has dialed this agent, as nobody could whom a firewall keeps out.
    pub(super) fn was_dialed(&mut self) {
        self.reachable = Some(true);
    }

    pub(super) fn reachable(&self) -> Option<bool> {
        self.reachable
    }

    pub(super) fn on_listener_closed(&mut self, listener: &ListenerId, error: Option<&std::io::Error>) {
        if let Some(relay) = self.listeners.remove(listener) {
            tracing::debug!(%relay, ?error, "a reservation ended");
            self.book.unreserved(&relay, Instant::now());
        }
    }

    pub(super) fn on_dialed(&mut self, id: &ConnectionId, connected: bool) {
        if let Some(peer) = self.dialing.remove(id) {
            self.book.finished(&peer, connected, Instant::now());
        }
    }

    /// No direct connection leads there any more.
    pub(super) fn lost(&mut self, peer: &PeerId) {
        self.book.lost(peer);
    }

    /// No connection at all leads there any more.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        self.book.lost(peer);
        self.lasting.remove(peer);
        self.reserved.remove(peer);
    }
}

impl EventLoop {
    /// What a new connection is, if it is a circuit.
    pub(super) fn circuit(&self, peer: &PeerId, endpoint: &ConnectedPoint, now: Instant) -> Option<Circuit> {
        let (address, by) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, None),
            ConnectedPoint::Listener { local_addr, .. } => (local_addr, Some(peer)),
        };
        let (at, named) = relay::relay_in(address)?;
        let remote = Address::parse(&at);
        let relay = named.or_else(|| {
            let connections = self.connections.values();
            let mut at_relay = connections.filter(|known| remote.is_some() && known.remote == remote);
            at_relay.next().map(|known| known.peer)
        });
        let lasting = self.relaying.as_ref().and_then(|relaying| {
            let key = by.or(relay.as_ref())?;
            relaying.lasting.get(key).copied()
        });
        Some(Circuit {
            asked: by.is_none(),
            relay,
            ends: lasting.map(|lasting| now + lasting),
            superseded: None,
        })
    }

    /// A member has introduced itself over this connection: it may be a relay.
    pub(super) fn consider_relay(&mut self, peer: PeerId, connection: ConnectionId, info: &identify::Info) {
        let is_direct = self
            .connections
            .get(&connection)
            .is_some_and(|known| known.circuit.is_none());
        let (Some(relaying), true) = (&mut self.relaying, is_direct) else {
            return;
        };
        let offers = info.protocols.contains(&libp2p_relay::HOP_PROTOCOL_NAME);
        let link = self.links.get(&peer);
        let at = link.and_then(|link| link.dialed.first().or_else(|| link.claimed.first()));
        match at {
            Some(at) if offers => {
                if !relaying.book.knows(&peer) {
                    tracing::info!(%peer, at = %at.socket(), "met a relay");
                }
                relaying.book.met(peer, (*at).into(), Instant::now());
            }
            _ => relaying.book.lost(&peer),
        }
    }

    /// Whether a circuit leads to this peer that we asked for.
    pub(super) fn asked_for_circuit(&self, peer: &PeerId) -> bool {
        let mut circuits = self
            .connections
            .values()
            .filter_map(|known| known.circuit.filter(|_| known.peer == *peer));
        circuits.any(|circuit| circuit.asked)
    }

    /// Whether direct dials to this peer go on although it has a connection.
    pub(super) fn has_circuits_only(&self, peer: &PeerId) -> bool {
        self.links.get(peer).is_some_and(|link| link.relayed)
    }

    pub(super) fn on_relay_event(&mut self, event: BehaviourEvent) {
        let Some(relaying) = &mut self.relaying else {
            return;
        };
        match event {
            BehaviourEvent::Server(event) => relaying.on_served(event),
            BehaviourEvent::Client(event) => relaying.on_led(event),
            BehaviourEvent::Introduction(event) => self.on_introduction(event),
            BehaviourEvent::Dcutr(dcutr::Event {
                remote_peer_id,
                result,
            }) => match result {
                Ok(_) => {
                    tracing::info!(peer = %remote_peer_id, "hole punching made a direct connection");
                    relaying.counts.punched += 1;
                }
                Err(error) => tracing::debug!(peer = %remote_peer_id, %error, "hole punching failed"),
            },
            BehaviourEvent::Reachability(autonat::client::Event {
                tested_addr,
                server,
                result,
                ..
            }) => {
                tracing::debug!(address = %tested_addr, by = %server, ?result, "a relay tried to dial us");
                let reachable = relaying.reachable.unwrap_or_default() || result.is_ok();
                relaying.reachable = Some(reachable);
            }
            BehaviourEvent::Trial(autonat::server::Event { client, .. }) => self.close_trials(&client),
        }
    }

    fn on_introduction(&mut self, event: introduction::Event) {
        let Some(relaying) = &mut self.relaying else {
            return;
        };
        match event {
            introduction::Event::Message {
                peer,
                message: request_response::Message::Request { channel, .. },
                ..
            } => {
                // Who is no member gets no answer.
                if let (true, Some(relay)) = (
                    self.members.contains_key(&peer),
                    self.swarm.behaviour_mut().relay.as_mut(),
                ) {
                    let others = relaying.reserved.iter().filter(|other| **other != peer);
                    // An error says that nobody waits for it any more.
                    let _ = relay
                        .introduction
                        .send_response(channel, Answer(others.copied().collect()));
                }
            }
            introduction::Event::Message {
                message:
                    request_response::Message::Response {
                        request_id,
                        response: Answer(peers),
                    },
                ..
            } => {
                if let Some(relay) = relaying.asked.remove(&request_id) {
                    relaying.book.told(&relay, Some(peers), Instant::now());
                }
            }
            introduction::Event::OutboundFailure {
                request_id, error, ..
            } => {
                if let Some(relay) = relaying.asked.remove(&request_id) {
                    tracing::debug!(%relay, %error, "a relay does not tell whom it leads to");
                    relaying.book.told(&relay, None, Instant::now());
                }
            }
            introduction::Event::InboundFailure { .. } | introduction::Event::ResponseSent { .. } => {}
        }
    }

    /// AutoNAT's connections have served: they only showed that they could be had.
    fn close_trials(&mut self, client: &PeerId) {
        let now = Instant::now();
        let ping = &self.swarm.behaviour().ping;
        let is_trial = |id: &ConnectionId, known: &super::Connection| {
            known.peer == *client
                && known.target.is_none()
                && known.dialed.is_some()
                && ping.best(client).is_some()
                && !ping.is_measured(client, *id)
                && now.saturating_duration_since(known.since) < TRIAL
        };
        let trials: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(id, known)| is_trial(id, known))
            .map(|(id, _)| *id)
            .collect();
        for id in trials {
            self.swarm.close_connection(id);
        }
    }

    /// Asks, reserves and dials as the book plans, and closes circuits that are not needed any more.
    pub(super) fn tend_relays(&mut self, now: Instant) {
        if self.relaying.is_none() {
            return;
        }
        self.close_superseded(now);
        let ways = self.ways();
        let Some(relaying) = &mut self.relaying else {
            return;
        };
        let Plan {
            ask,
            reserve,
            circuits,
        } = relaying.book.plan(&ways, now);
        if let Some(behaviour) = self.swarm.behaviour_mut().relay.as_mut() {
            for relay in ask {
                let id = behaviour.introduction.send_request(&relay, Question);
                relaying.asked.insert(id, relay);
            }
        }
        for (relay, address) in reserve {
            match self.swarm.listen_on(address) {
                Ok(listener) => {
                    relaying.listeners.insert(listener, relay);
                }
                Err(error) => {
                    tracing::debug!(%relay, %error, "a relay can't be asked");
                    relaying.book.unreserved(&relay, now);
                }
            }
        }
        for (peer, address) in circuits {
            self.dial_circuit(peer, address);
        }
    }

    fn dial_circuit(&mut self, peer: PeerId, address: Multiaddr) {
        tracing::debug!(%peer, %address, "asking for a circuit");
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![address])
            .allocate_new_port()
            .build();
        let id = options.connection_id();
        if let Some(relaying) = &mut self.relaying {
            relaying.dialing.insert(id, peer);
        }
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_failed(id, &error);
        }
    }

    fn ways(&self) -> HashMap<PeerId, Ways> {
        let mut ways: HashMap<PeerId, Ways> = HashMap::new();
        for connection in self.connections.values() {
            let ways = ways.entry(connection.peer).or_default();
            match connection.circuit {
                None => ways.direct = true,
                // The one that ends last, and one without an end before all.
                Some(circuit) => {
                    ways.circuit = Some(match (ways.circuit, circuit.ends) {
                        (Some(None), _) | (_, None) => None,
                        (Some(Some(known)), Some(ends)) => Some(known.max(ends)),
                        (None, ends) => ends,
                    })
                }
            }
        }
        ways
    }

    fn close_superseded(&mut self, now: Instant) {
        let ping = &self.swarm.behaviour().ping;
        let grace = self.config.probe.timeout + MOVE_GRACE;
        let mut over = Vec::new();
        let mut upgraded = Vec::new();
        let is_direct: HashMap<ConnectionId, bool> = self
            .connections
            .iter()
            .map(|(id, connection)| (*id, connection.circuit.is_none()))
            .collect();
        for (id, connection) in &mut self.connections {
            let Some(circuit) = &mut connection.circuit else {
                continue;
            };
            let better = ping.best(&connection.peer).filter(|best| best != id);
            let Some(better) = better else {
                circuit.superseded = None;
                continue;
            };
            if circuit.superseded.is_none() && is_direct.get(&better) == Some(&true) {
                upgraded.push(connection.peer);
            }
            let since = *circuit.superseded.get_or_insert(now);
            if now.saturating_duration_since(since) >= grace {
                over.push(*id);
            }
        }
        for id in over {
            self.swarm.close_connection(id);
        }
        for peer in upgraded {
            tracing::info!(%peer, "a direct connection replaces the circuit");
            if let Some(relaying) = &mut self.relaying {
                relaying.counts.upgrades += 1;
            }
        }
    }

    pub(super) fn relay_counts(&self) -> Counts {
        let Some(relaying) = &self.relaying else {
            return Counts::default();
        };
        let relay = self.swarm.behaviour().relay.as_ref();
        Counts {
            reservations: relaying.reserved.len(),
            strangers: relay.map_or(0, relay::behaviour::Behaviour::strangers),
            ..relaying.counts
        }
    }
}

impl Relaying {
    /// What this agent's relay did.
    fn on_served(&mut self, event: libp2p_relay::Event) {
        use libp2p_relay::Event as Served;
        let counts = &mut self.counts;
        match event {
            Served::ReservationReqAccepted { src_peer_id, renewed } => {
                counts.reservations_granted += u64::from(!renewed);
                self.reserved.insert(src_peer_id);
            }
            Served::ReservationReqDenied { src_peer_id, status } => {
                tracing::debug!(peer = %src_peer_id, ?status, "refused to lead to a member");
                counts.reservations_refused += 1;
            }
            Served::ReservationTimedOut { src_peer_id } => {
                self.reserved.remove(&src_peer_id);
            }
            Served::CircuitReqAccepted { .. } => {
                counts.circuits_granted += 1;
                counts.circuits += 1;
            }
            Served::CircuitReqDenied {
                src_peer_id,
                dst_peer_id,
                status,
            } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, ?status, "refused a circuit");
                counts.circuits_refused += 1;
            }
            Served::CircuitClosed { .. } => counts.circuits = counts.circuits.saturating_sub(1),
            _ => {}
        }
    }

    /// What others' relays did for this agent.
    fn on_led(&mut self, event: libp2p_relay::client::Event) {
        use libp2p_relay::client::Event as Led;
        let (peer, limit) = match event {
            Led::ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            } => {
                if !renewal {
                    tracing::info!(relay = %relay_peer_id, "a relay leads to this agent");
                }
                self.book.reserved(&relay_peer_id);
                return;
            }
            Led::OutboundCircuitEstablished { relay_peer_id, limit } => (relay_peer_id, limit),
            Led::InboundCircuitEstablished { src_peer_id, limit } => (src_peer_id, limit),
        };
        match limit.and_then(|limit| limit.duration()) {
            Some(lasting) if self.lasting.len() < MAX_LASTING || self.lasting.contains_key(&peer) => {
                self.lasting.insert(peer, lasting);
            }
            _ => {
                self.lasting.remove(&peer);
            }
        }
    }
}
