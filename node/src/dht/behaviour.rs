//! libp2p's Kademlia for members only.
//!
//! Kademlia's own filter ([`kad::StoreInserts::FilterBoth`]) acknowledges a record before anybody has looked at it. Here
//! every message is looked at before Kademlia sees it: who sends a record that is not stored gets an error, and what a
//! peer sends before it has shown that it is a member waits until it has.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    kad::{self, KadPeer, QueryId, QueryInfo, store::RecordStore},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ExternalAddrConfirmed,
    },
};

use super::{REPLICATION, Refusal, Store};

/// Messages of peers that are not known as members yet: of one connection, and of all.
const MAX_HELD: (usize, usize) = (8, 256);
/// Providers that one answer may name. Kademlia gives twenty.
const MAX_PROVIDERS_PER_ANSWER: usize = 64;
/// Addresses gathered of one peer.
const MAX_ADDRESSES: usize = 8;
/// Peers whose addresses are gathered by one query.
const MAX_GATHERED: usize = 1024;

type Inner = kad::Behaviour<Store>;
type Heard = THandlerOutEvent<Inner>;
type Said = THandlerInEvent<Inner>;

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were not stored.
    pub records_refused: u64,
    /// Records stored now.
    pub records: usize,
    /// Bytes of their keys and values.
    pub record_bytes: usize,
    /// Providers stored now.
    pub providers: usize,
}

/// What a query should remember of the answers beside what Kademlia does.
#[derive(Clone, Copy, Debug)]
pub enum Interest {
    /// The addresses of all providers.
    Providers,
    /// The addresses of one peer. The query ends as soon as somebody names one.
    Peer(PeerId),
}

/// What was gathered by one query.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Addresses, by peer.
    pub addresses: HashMap<PeerId, Vec<Multiaddr>>,
    /// Whether an answer had as many providers as one can have: there may be more.
    pub full: bool,
}

/// A message from a peer that is not known as a member yet.
struct Held {
    peer: PeerId,
    connection: ConnectionId,
    heard: Heard,
}

/// Kademlia, for members only.
pub struct Behaviour {
    kad: Inner,
    own_id: PeerId,
    /// Connected peers that are members: bounded by the connection limits.
    members: HashSet<PeerId>,
    /// Connected peers that may ask and not store: bounded by the connection limits, too.
    guests: HashSet<PeerId>,
    held: VecDeque<Held>,
    /// Drained on every poll of the swarm.
    said: VecDeque<(PeerId, ConnectionId, Said)>,
    /// One entry a running query of the caller's, who takes it out.
    interests: HashMap<QueryId, (Interest, Gathered)>,
    leaving: bool,
    refused: u64,
}

impl Behaviour {
    /// Kademlia of the agent with this id, as configured. It takes itself for a client until somebody confirms that it
    /// can be reached: members can be.
    #[must_use]
    pub fn new(own_id: PeerId, store: Store, config: kad::Config) -> Self {
        let mut kad = kad::Behaviour::with_config(own_id, store, config);
        kad.set_mode(Some(kad::Mode::Server));
        Self {
            kad,
            own_id,
            members: HashSet::new(),
            guests: HashSet::new(),
            held: VecDeque::new(),
            said: VecDeque::new(),
            interests: HashMap::new(),
            leaving: false,
            refused: 0,
        }
    }

    /// Kademlia itself.
    pub fn kad(&mut self) -> &mut Inner {
        &mut self.kad
    }

    /// From now on this agent is announced with this address, too. Kademlia alone takes it for confirmed: `AutoNAT` and hole
    /// punching try only what is not.
    pub fn announce(&mut self, address: &Multiaddr) {
        let event = FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr: address });
        self.kad.on_swarm_event(event);
    }

    /// What is stored.
    pub fn store(&mut self) -> &mut Store {
        self.kad.store_mut()
    }

    /// Listens to a connected peer from now on, and to what it said before. It ends with the peer's last connection.
    pub fn accept(&mut self, peer: PeerId) {
        self.guests.remove(&peer);
        self.members.insert(peer);
        self.replay(peer);
    }

    /// Answers a connected peer's questions from now on, and takes no records and providers of it.
    pub fn accept_guest(&mut self, peer: PeerId) {
        self.guests.insert(peer);
        self.replay(peer);
    }

    fn replay(&mut self, peer: PeerId) {
        let (accepted, held): (VecDeque<Held>, VecDeque<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.peer == peer);
        self.held = held;
        for Held {
            peer,
            connection,
            heard,
        } in accepted
        {
            self.hear(peer, connection, heard);
        }
    }

    /// The members that are connected.
    pub fn members(&self) -> impl Iterator<Item = PeerId> {
        self.members.iter().copied()
    }

    /// Whether a member is connected.
    #[must_use]
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.members.contains(peer)
    }

    /// Takes no more records and providers: what comes now would be lost.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Gathers from the answers to a query what Kademlia's events leave out.
    pub fn gather(&mut self, query: QueryId, interest: Interest) {
        self.interests.insert(query, (interest, Gathered::default()));
    }

    /// What was gathered by a query that has ended.
    pub fn gathered(&mut self, query: &QueryId) -> Gathered {
        self.interests
            .remove(query)
            .map(|(_, gathered)| gathered)
            .unwrap_or_default()
    }

    /// What was counted.
    pub fn counts(&mut self) -> Counts {
        let refused = self.refused;
        let store = self.store();
        Counts {
            records_refused: refused,
            records: store.len(),
            record_bytes: store.bytes(),
            providers: store.provider_count(),
        }
    }

    fn hear(&mut self, peer: PeerId, connection: ConnectionId, heard: Heard) {
        if self.members.contains(&peer) {
            self.take(peer, connection, heard);
        } else if self.guests.contains(&peer) {
            match &heard {
                Heard::FindNodeReq { .. } | Heard::GetProvidersReq { .. } | Heard::GetRecord { .. } => {
                    self.take(peer, connection, heard);
                }
                _ => {
                    self.refused += u64::from(matches!(heard, Heard::PutRecord { .. }));
                    self.refuse(peer, connection, &heard);
                }
            }
        } else {
            self.hold(peer, connection, heard);
        }
    }

    fn hold(&mut self, peer: PeerId, connection: ConnectionId, heard: Heard) {
        let of_connection = self.held.iter().filter(|held| held.connection == connection);
        if of_connection.count() < MAX_HELD.0 && self.held.len() < MAX_HELD.1 {
            self.held.push_back(Held {
                peer,
                connection,
                heard,
            });
        } else {
            self.refuse(peer, connection, &heard);
        }
    }

    /// Answers a request by an error. Kademlia's handler does not wake the stream that it closes here, so that the other side
    /// most often hears of it by its own deadline.
    fn refuse(&mut self, peer: PeerId, connection: ConnectionId, heard: &Heard) {
        let request = match heard {
            Heard::FindNodeReq { request_id, .. }
            | Heard::GetProvidersReq { request_id, .. }
            | Heard::GetRecord { request_id, .. }
            | Heard::PutRecord { request_id, .. } => *request_id,
            _ => return,
        };
        self.said.push_back((peer, connection, Said::Reset(request)));
    }

    /// Answers who brings an old value by the newer one, and keeps that. It is no error: what was put was overwritten.
    fn show_newer(&mut self, peer: PeerId, connection: ConnectionId, heard: &Heard) {
        let Heard::PutRecord { record, request_id } = heard else {
            return;
        };
        let newer = self
            .kad
            .store_mut()
            .get(&record.key)
            .map(|newer| newer.value.clone());
        let answer = Said::PutRecordRes {
            key: record.key.clone(),
            value: newer.unwrap_or_default(),
            request_id: *request_id,
        };
        self.said.push_back((peer, connection, answer));
    }

    /// Takes what a member said.
    fn take(&mut self, peer: PeerId, connection: ConnectionId, mut heard: Heard) {
        match &mut heard {
            Heard::PutRecord { record, .. } => {
                // Kademlia would acknowledge a record of ours that comes back to us, and not store it: it takes for
                // granted that we have it. A restarted agent has not.
                if record.publisher == Some(self.own_id) {
                    record.publisher = None;
                }
                let verdict = self.kad.store_mut().check(record, Instant::now());
                if verdict == Err(Refusal::Older) && !self.leaving {
                    self.show_newer(peer, connection, &heard);
                    return;
                }
                if self.leaving || verdict.is_err() {
                    tracing::debug!(%peer, ?verdict, leaving = self.leaving, "a record was refused");
                    self.refused += 1;
                    self.refuse(peer, connection, &heard);
                    return;
                }
            }
            Heard::AddProvider { provider, .. } => {
                if self.leaving {
                    return;
                }
                provider.multiaddrs.truncate(MAX_ADDRESSES);
            }
            Heard::GetRecordRes {
                record,
                closer_peers,
                query_id,
            } => {
                closer_peers.truncate(REPLICATION);
                let asked = match self.kad.query(query_id).as_ref().map(kad::QueryRef::info) {
                    Some(QueryInfo::GetRecord { key, .. }) => Some(key.clone()),
                    _ => None,
                };
                let limit = self.kad.store_mut().limits().value_bytes;
                let fits = record
                    .as_ref()
                    .is_some_and(|record| Some(&record.key) == asked.as_ref() && record.value.len() <= limit);
                if !fits {
                    *record = None;
                }
            }
            Heard::FindNodeRes {
                closer_peers,
                query_id,
            } => {
                closer_peers.truncate(REPLICATION);
                let query = *query_id;
                if let Some((Interest::Peer(wanted), gathered)) = self.interests.get_mut(&query) {
                    let named = closer_peers
                        .iter()
                        .find(|named| named.node_id == *wanted && !named.multiaddrs.is_empty());
                    if let Some(named) = named {
                        note(gathered, named);
                        self.kad.on_connection_handler_event(peer, connection, heard);
                        if let Some(mut query) = self.kad.query_mut(&query) {
                            query.finish();
                        }
                        return;
                    }
                }
            }
            Heard::GetProvidersRes {
                closer_peers,
                provider_peers,
                query_id,
            } => {
                closer_peers.truncate(REPLICATION);
                provider_peers.truncate(MAX_PROVIDERS_PER_ANSWER);
                if let Some((Interest::Providers, gathered)) = self.interests.get_mut(query_id) {
                    gathered.full |= provider_peers.len() >= REPLICATION;
                    for provider in provider_peers.iter() {
                        note(gathered, provider);
                    }
                }
            }
            _ => {}
        }
        self.kad.on_connection_handler_event(peer, connection, heard);
    }
}

fn note(gathered: &mut Gathered, peer: &KadPeer) {
    if gathered.addresses.len() >= MAX_GATHERED && !gathered.addresses.contains_key(&peer.node_id) {
        return;
    }
    let known = gathered.addresses.entry(peer.node_id).or_default();
    for address in &peer.multiaddrs {
        if known.len() < MAX_ADDRESSES && !known.contains(address) {
            known.push(address.clone());
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.kad
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
        self.kad
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = &event {
            self.held.retain(|held| held.connection != closed.connection_id);
            if closed.remaining_established == 0 {
                self.members.remove(&closed.peer_id);
                self.guests.remove(&closed.peer_id);
            }
        }
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, heard: Heard) {
        match heard {
            Heard::ProtocolConfirmed { .. }
            | Heard::ProtocolNotSupported { .. }
            | Heard::QueryError { .. } => {
                self.kad.on_connection_handler_event(peer, connection, heard);
            }
            heard => self.hear(peer, connection, heard),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, Said>> {
        if let Some((peer_id, connection, event)) = self.said.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
        self.kad.poll(cx)
    }
}
