//! The DHT in the event loop: commands come in, answers go out, and the upkeep has its turn.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId,
    kad::{self, RecordKey},
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::EventLoop;
use crate::{
    dht::{
        Command, Failure,
        command::{Found, Peer, Pinged, Reply},
        queries::{Done, Queries},
        upkeep::Upkeep,
    },
    ping,
    telemetry::Service,
};

/// Pings waited for at a time.
const MAX_PINGS: usize = 16;
/// Nobody waits longer for a ping, however rarely the agent probes.
const PING_DEADLINE: Duration = Duration::from_secs(20);
/// The agent's records are handed over within this time before it ends.
const HAND_OVER: Duration = Duration::from_secs(3);
/// Records on their way at a time then. Each takes a stream of the connection.
const HANDING_OVER: usize = 8;
/// An agent that holds records and has nobody to give them to waits this long for somebody.
const LONELY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// What the event loop knows of the DHT beside Kademlia itself.
pub(super) struct Dht {
    commands: mpsc::Receiver<Command>,
    queries: Queries,
    upkeep: Upkeep,
    services: Vec<Service>,
    pings: Vec<Ping>,
    /// Where this agent listens: no more than its host has addresses.
    own_addresses: Vec<Multiaddr>,
}

/// Somebody waits for a probe.
struct Ping {
    peer: PeerId,
    dial: Option<ConnectionId>,
    deadline: Instant,
    cold: Option<Duration>,
    reply: Reply<Pinged>,
}

impl Dht {
    pub(super) fn new(
        commands: mpsc::Receiver<Command>,
        own_id: PeerId,
        services: &[String],
        now: Instant,
    ) -> Self {
        let keys = services.iter().map(RecordKey::new).collect();
        Self {
            commands,
            queries: Queries::default(),
            upkeep: Upkeep::new(own_id, keys, now),
            services: services.iter().map(|name| Service::new(name)).collect(),
            pings: Vec::new(),
            own_addresses: Vec::new(),
        }
    }

    /// The next command.
    pub(super) async fn command(&mut self) -> Option<Command> {
        self.commands.recv().await
    }

    pub(super) fn joined(&mut self, peer: PeerId, now: Instant) {
        self.upkeep.joined(peer, now);
    }

    pub(super) fn left(&mut self, peer: PeerId, now: Instant) {
        self.upkeep.left(peer, now);
    }

    pub(super) fn services(&self) -> Arc<[Service]> {
        self.services.iter().cloned().collect()
    }
}

impl EventLoop {
    /// From now on this agent is announced with this address, too.
    pub(super) fn announce(&mut self, address: Multiaddr) {
        if self.dht.own_addresses.contains(&address) {
            return;
        }
        if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
            dht.announce(&address);
        }
        self.dht.own_addresses.push(address);
    }

    /// Provides the services of the configuration.
    pub(super) fn provide_services(&mut self) {
        let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() else {
            return;
        };
        for name in &self.config.services {
            self.dht.queries.provide(dht, RecordKey::new(name), None);
        }
    }

    pub(super) fn on_command(&mut self, command: Command) {
        // Those who asked may have gone: an answer that nobody takes is no error.
        let own_id = *self.swarm.local_peer_id();
        match command {
            Command::Peers { reply } => {
                let peers = self.members.keys().map(|peer| self.known(*peer)).collect();
                let _ = reply.send(Ok(peers));
                return;
            }
            Command::Ping {
                peer,
                addresses,
                reply,
            } => {
                self.wait_for_ping(peer, addresses, reply);
                return;
            }
            Command::FindPeer { peer, reply } if peer == own_id || self.members.contains_key(&peer) => {
                let found = Found {
                    peer: self.known(peer),
                    connected: true,
                    asked: 0,
                    took: Duration::ZERO,
                };
                let _ = reply.send(Ok(found));
                return;
            }
            _ => {}
        }
        let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() else {
            command.fail(Failure::Off);
            return;
        };
        let queries = &mut self.dht.queries;
        if !queries.has_room() {
            command.fail(Failure::Busy);
            return;
        }
        match command {
            Command::Put {
                key,
                value,
                quorum,
                reply,
            } => queries.put(dht, own_id, (key, value), quorum, reply),
            Command::Get { key, quorum, reply } => queries.get(dht, key, quorum, reply),
            Command::Provide { key, reply } => queries.provide(dht, key, Some(reply)),
            Command::StopProviding { key, reply } => {
                let provided = dht.store().provides(&key);
                dht.kad().stop_providing(&key);
                let _ = reply.send(if provided {
                    Ok(())
                } else {
                    Err(Failure::NotFound { asked: 0 })
                });
            }
            Command::Provided { reply } => {
                let mut keys: Vec<RecordKey> = dht.store().provided_keys().cloned().collect();
                keys.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
                let _ = reply.send(Ok(keys));
            }
            Command::Providers { key, reply } => queries.providers(dht, key, reply),
            Command::FindPeer { peer, reply } => queries.find_peer(dht, peer, reply),
            Command::Peers { .. } | Command::Ping { .. } => {}
        }
    }

    /// What this agent knows of a peer by itself.
    fn known(&self, id: PeerId) -> Peer {
        if id == *self.swarm.local_peer_id() {
            let mut addresses = self.dht.own_addresses.clone();
            // Those through relays.
            let further = self.swarm.external_addresses();
            let further = further.filter(|address| !self.dht.own_addresses.contains(address));
            addresses.extend(further.cloned());
            return Peer {
                id,
                name: Some(self.config.name.clone()),
                addresses,
            };
        }
        let addresses = self.links.get(&id).map_or_else(Vec::new, |link| {
            let mut addresses: Vec<Multiaddr> = link
                .claimed
                .iter()
                .chain(&link.dialed)
                .map(|address| Multiaddr::from(*address))
                .collect();
            addresses.sort();
            addresses.dedup();
            addresses
        });
        Peer {
            id,
            name: self.members.get(&id).map(|member| member.name.to_string()),
            addresses,
        }
    }

    pub(super) fn on_dht_progress(
        &mut self,
        query: kad::QueryId,
        result: kad::QueryResult,
        stats: &kad::QueryStats,
    ) {
        let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() else {
            return;
        };
        let now = Instant::now();
        match self.dht.queries.on_progress(dht, query, result, stats) {
            Some(Done::Missed(key)) => self.dht.upkeep.missed(key, now),
            Some(Done::Counted(service, providers)) => {
                if let Some(service) = self.dht.services.get_mut(service) {
                    service.providers = Some(providers);
                    service.counted = Some(now.saturating_duration_since(self.started));
                }
            }
            None => {}
        }
        for answer in self.dht.queries.take_answers() {
            answer.complete(|peer| self.known(peer));
        }
    }

    /// What the DHT does by itself.
    pub(super) fn tend_dht(&mut self, now: Instant) {
        let late = |ping: &mut Ping| now >= ping.deadline || ping.reply.is_closed();
        for ping in self.dht.pings.extract_if(.., late) {
            // Who asked may have gone.
            let _ = ping.reply.send(Err(Failure::TimedOut));
        }
        if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
            self.dht.queries.sweep(dht, now);
            self.dht.upkeep.tend(dht.store(), now);
            self.counters.dht = dht.counts();
        }
        self.begin_tasks();
    }

    /// Begins what is due, as much as may be at work at a time.
    pub(super) fn begin_tasks(&mut self) {
        let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() else {
            return;
        };
        while let Some(task) = self.dht.upkeep.next(self.dht.queries.tasks()) {
            self.dht.queries.begin(dht, task);
        }
    }

    fn wait_for_ping(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: Reply<Pinged>) {
        if self.dht.pings.len() >= MAX_PINGS {
            let _ = reply.send(Err(Failure::Busy));
            return;
        }
        let mut dial = None;
        if !self.members.contains_key(&peer) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            dial = Some(options.connection_id());
            if let Err(error) = self.swarm.dial(options) {
                let _ = reply.send(Err(Failure::Unreachable(error.to_string())));
                return;
            }
        }
        let probe = &self.config.probe;
        let patience = (probe.interval + probe.timeout * 2).min(PING_DEADLINE);
        self.dht.pings.push(Ping {
            peer,
            dial,
            deadline: Instant::now() + patience,
            cold: None,
            reply,
        });
    }

    /// A dial that somebody waits for the ping of has failed.
    pub(super) fn ping_failed(&mut self, dial: ConnectionId, error: &dyn std::error::Error) {
        for ping in self.dht.pings.extract_if(.., |ping| ping.dial == Some(dial)) {
            let _ = ping.reply.send(Err(Failure::Unreachable(error.to_string())));
        }
    }

    /// Tells those who wait what became of a probe.
    pub(super) fn tell_ping(&mut self, peer: PeerId, news: ping::News) {
        if self.dht.pings.is_empty() {
            return;
        }
        let name = self.members.get(&peer).map(|member| member.name.to_string());
        let burst = self.config.probe.burst > 1;
        let mut waiting = Vec::new();
        for mut ping in std::mem::take(&mut self.dht.pings) {
            if ping.peer != peer {
                waiting.push(ping);
                continue;
            }
            let (cold, warm) = match (news, ping.cold) {
                (
                    ping::News::Cold {
                        result: Err(ping::Failure::Unheard),
                        ..
                    },
                    _,
                )
                | (ping::News::Warm(_), None) => {
                    waiting.push(ping);
                    continue;
                }
                // The smallest of the burst follows.
                (ping::News::Cold { result: Ok(cold), .. }, None) if burst => {
                    ping.cold = Some(cold);
                    waiting.push(ping);
                    continue;
                }
                (ping::News::Cold { result, .. }, None) => (result.map_err(|error| error.to_string()), None),
                (ping::News::Cold { .. }, Some(cold)) => (Ok(cold), None),
                (ping::News::Warm(warm), Some(cold)) => (Ok(cold), Some(warm)),
            };
            let _ = ping.reply.send(Ok(Pinged {
                name: name.clone(),
                cold,
                warm,
            }));
        }
        self.dht.pings = waiting;
    }

    /// Brings this agent's records to those who go on, before it ends.
    pub(super) async fn hand_over(&mut self) {
        self.dht.commands.close();
        let begun = Instant::now();
        if timeout(HAND_OVER, self.hand_over_all()).await.is_err() {
            tracing::warn!("not all records could be handed over in time");
        }
        tracing::info!(took = ?begun.elapsed(), "records handed over");
    }

    async fn hand_over_all(&mut self) {
        let begun = Instant::now();
        let mut tasks = Vec::new();
        let mut planned = false;
        loop {
            let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() else {
                return;
            };
            let lonely = dht.members().next().is_none();
            if dht.store().is_empty() || (lonely && begun.elapsed() >= LONELY) {
                return;
            }
            if !lonely && !planned {
                dht.leave();
                planned = true;
                tasks = self.dht.upkeep.hand_over(dht.store(), Instant::now());
                tracing::info!(records = tasks.len(), "handing records over");
                tasks.reverse();
            }
            while self.dht.queries.tasks() < HANDING_OVER
                && let Some(task) = tasks.pop()
            {
                self.dht.queries.begin(dht, task);
            }
            if planned && tasks.is_empty() && self.dht.queries.tasks() == 0 {
                return;
            }
            tokio::select! {
                event = self.swarm.select_next_some() => {
                    // A listener that fails now is closed in a moment anyway.
                    let _ = self.on_swarm_event(event);
                }
                () = sleep(PAUSE) => {
                    if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
                        self.dht.queries.sweep(dht, Instant::now());
                    }
                }
            }
        }
    }
}
