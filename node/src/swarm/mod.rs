//! The event loop: the only owner of the swarm. It never blocks and waits for no other thread; the one lock that it takes
//! (on the private network's keys) is held for as long as it takes to copy a few of them. What it
//! decides by itself is who is a member; whom to dial is the planner's business, and numbers are the ledger's.

mod connections;
mod dht;
mod guests;
mod members;
mod names;
mod relaying;
mod stamping;
mod start;
mod telling;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    identify, kad,
    swarm::{ConnectionId, SwarmEvent},
};
use peernet_api::transport::Transport;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    connections::Connection, dht::Dht, guests::Guests, names::Name, relaying::Relaying, stamping::Stamping,
};
use crate::{
    behaviour::{Behaviour, BehaviourEvent},
    config::Config,
    dht::Command,
    discovery::{
        Address, dialable,
        dns::Resolution,
        mdns,
        planner::{Link, Planner, Source, Target},
    },
    host::memory::Memory,
    ledger::Member,
    ping,
    probation::Probation,
    strangers::Strangers,
    telemetry::{Counters, Event},
    transport,
};

/// How often dials are planned.
const TICK: Duration = Duration::from_millis(250);
/// Sign of life to the reporting thread.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Pause between two searches for members by Kademlia: short after a new member came, long otherwise.
const KAD_SEARCH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Connections have this long to be closed at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the event loop could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A transport can't be had.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The port can't be had.
    #[error("failed to listen on {address}: {reason}")]
    Listen {
        /// What was asked for.
        address: Multiaddr,
        /// Why it can't be had.
        reason: String,
        /// Whether something else has it.
        taken: bool,
    },
    /// The last listening socket failed.
    #[error("the listening socket failed: {0}")]
    ListenerClosed(String),
}

/// The event loop's ends of its channels.
#[derive(Debug)]
pub struct Ends {
    /// Takes what there is to report.
    pub events: mpsc::Sender<Event>,
    /// Hears of one address of each transport, in the order of the configuration.
    pub listening: oneshot::Sender<Vec<Address>>,
    /// What others want of the DHT.
    pub commands: mpsc::Receiver<Command>,
}

/// The swarm and all that decides over it.
pub struct EventLoop {
    swarm: Swarm<Behaviour>,
    config: Config,
    started: Instant,
    listeners: HashMap<ListenerId, Transport>,
    /// The first address that each transport listens at.
    addresses: BTreeMap<Transport, Address>,
    listening: Option<oneshot::Sender<Vec<Address>>>,
    connections: HashMap<ConnectionId, Connection>,
    links: HashMap<PeerId, Link>,
    members: BTreeMap<PeerId, Member>,
    guests: Guests,
    bootstrap: HashSet<PeerId>,
    external: BTreeMap<PeerId, Member>,
    planner: Planner,
    dialing: HashMap<ConnectionId, Target>,
    names: Vec<Name>,
    resolutions: mpsc::Receiver<Resolution>,
    kad_search: Instant,
    /// The search for members under way.
    kad_searching: Option<kad::QueryId>,
    heartbeat: Instant,
    events: mpsc::Sender<Event>,
    counters: Counters,
    stamp: Option<Stamping>,
    strangers: Strangers,
    relaying: Option<Relaying>,
    dht: Dht,
    probation: Probation,
    memory: Memory,
}

impl EventLoop {
    /// Runs until told to stop, and then closes all connections.
    ///
    /// # Errors
    /// If nobody can reach the agent any more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                event = self.swarm.select_next_some() => {
                    let knocked = matches!(
                        event,
                        SwarmEvent::IncomingConnection { .. } | SwarmEvent::IncomingConnectionError { .. }
                    );
                    self.on_swarm_event(event)?;
                    // Hundreds may wait to be accepted at a time: those who are in already are not to wait for all of them.
                    if knocked {
                        yield_now().await;
                    }
                }
                Some(resolution) = self.resolutions.recv() => self.on_resolution(resolution),
                Some(peer) = stamping::silent(&mut self.stamp) => self.on_silent(&peer),
                Some(command) = self.dht.command() => self.on_command(command),
                due = tick.tick() => self.on_tick(due.into_std(), Instant::now()),
            }
        }
        self.shut_down().await;
        Ok(())
    }

    async fn shut_down(&mut self) {
        tracing::info!(connections = self.connections.len(), "stopping");
        self.hand_over().await;
        for (listener, _) in std::mem::take(&mut self.listeners) {
            self.swarm.remove_listener(listener);
        }
        for peer in self.links.keys() {
            // An error says that the peer has just left by itself.
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if timeout(FAREWELL, closed).await.is_err() {
            tracing::info!("some connections did not close in time");
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) -> Result<(), Error> {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                num_established,
                ..
            } => {
                let cause = cause.map(|cause| cause.to_string());
                self.on_closed(peer_id, connection_id, num_established == 0, cause.as_deref());
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id, error, ..
            } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError {
                error,
                send_back_addr,
                ..
            } => {
                tracing::debug!(%error, from = %send_back_addr, "an inbound connection failed");
                self.on_refused(&error, &send_back_addr);
            }
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(&address),
            SwarmEvent::ListenerClosed {
                listener_id, reason, ..
            } => {
                if let Some(relaying) = &mut self.relaying {
                    relaying.on_listener_closed(&listener_id, reason.as_ref().err());
                }
                let transport = self.listeners.remove(&listener_id);
                let rest = self.listeners.values().copied().map(Some);
                if transport.is_some() && !rest.into_iter().any(|other| other == transport) {
                    let reason = reason
                        .err()
                        .map_or_else(|| "closed".to_owned(), |error| error.to_string());
                    return Err(Error::ListenerClosed(reason));
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::debug!(%error, "an error on the listening socket")
            }
            _ => {}
        }
        Ok(())
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event { peer, over, outcome }) => {
                match outcome.news {
                    ping::News::Cold {
                        result: Err(failure), ..
                    } => tracing::debug!(%peer, ?over, %failure, "probe lost"),
                    news => tracing::trace!(%peer, ?over, ?news, "probe"),
                }
                self.tell_ping(peer, outcome.news);
                let started = self.started;
                let moment = |instant: Instant| instant.saturating_duration_since(started);
                let phase = over.phase(self.config.probe.interval);
                self.keep_apart(peer, moment(outcome.sent).saturating_sub(phase));
                self.tell(Event::Probe {
                    peer,
                    over,
                    news: outcome.news,
                    sent: moment(outcome.sent),
                    at: moment(outcome.at),
                });
            }
            BehaviourEvent::Stamp(event) => self.on_stamp_event(event),
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => {
                self.on_identified(peer_id, connection_id, &info);
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Relay(event) => self.on_relay_event(event),
            BehaviourEvent::Dht(event) => self.on_kad_event(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let now = Instant::now();
                for (peer, address) in &found {
                    if !self.swarm.behaviour().admission.is_stranger(peer, now) {
                        self.planner.discovered(
                            *peer,
                            dialable([address], None, &self.config.transports),
                            Source::Mdns,
                        );
                    }
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                for (peer, _) in gone {
                    self.planner.expired(&peer);
                }
            }
        }
    }

    fn on_kad_event(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed {
            id, result, stats, ..
        } = event
        else {
            return;
        };
        if Some(id) != self.kad_searching {
            self.on_dht_progress(id, result, &stats);
            self.begin_tasks();
            return;
        }
        self.kad_searching = None;
        let kad::QueryResult::GetClosestPeers(result) = result else {
            return;
        };
        let found = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let now = Instant::now();
        for found in found {
            if !self.swarm.behaviour().admission.is_stranger(&found.peer_id, now) {
                let local = self.config.listen.filter(IpAddr::is_loopback);
                let addresses = dialable(&found.addrs, local, &self.config.transports);
                self.planner
                    .discovered(found.peer_id, addresses, Source::Kademlia);
            }
        }
    }

    fn on_listening(&mut self, address: &Multiaddr) {
        tracing::info!(%address, "listening");
        let Some(address) = Address::parse(address) else {
            return;
        };
        // Loopback stands for us only if that is all there is.
        if !address.ip().is_loopback() || self.config.listen.is_some() {
            self.planner.own_address(address);
            // A relay tells those whom it leads to where it is: it must have an address of its own that it is sure of.
            if self.config.relay.is_some_and(|relay| relay.serve.is_some()) {
                self.swarm.add_external_address(address.into());
            }
            self.announce(address.into());
        }
        self.addresses.entry(address.transport()).or_insert(address);
        let first_of = |transport| self.addresses.get(transport).copied();
        let all: Option<Vec<Address>> = self.config.transports.iter().map(first_of).collect();
        if let Some(all) = all
            && let Some(listening) = self.listening.take()
        {
            // Nobody may be waiting any more.
            let _ = listening.send(all);
        }
        self.tell_state(Instant::now());
    }

    fn on_tick(&mut self, due: Instant, now: Instant) {
        self.tell(Event::LoopLag {
            lag: now.saturating_duration_since(due),
            at: now.saturating_duration_since(self.started),
        });
        self.spare_memory();
        if now.saturating_duration_since(self.heartbeat) >= HEARTBEAT {
            self.heartbeat = now;
            self.tell_state(now);
            self.close_unidentified(now);
            self.close_turned_away(now);
            self.close_newcomers(now);
            if let Some(mdns) = self.swarm.behaviour_mut().mdns.as_mut() {
                mdns.tend(now);
            }
        }
        if now >= self.kad_search && self.members.len() < self.config.peers_per_node {
            self.kad_search = now + KAD_SEARCH.1;
            let own_id = *self.swarm.local_peer_id();
            if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
                self.kad_searching = Some(dht.kad().get_closest_peers(own_id));
            }
        }
        if let Some(stamp) = self.swarm.behaviour_mut().stamp.as_mut() {
            stamp.tend(now);
        }
        self.tend_relays(now);
        self.tend_dht(now);
        for dial in self.planner.plan(&self.links, now) {
            self.dial(dial);
        }
    }
}

/// Waits until the agent is told to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is there any more to give the order: that is one, too.
    let _ = stop.wait_for(|stop| *stop).await;
}
