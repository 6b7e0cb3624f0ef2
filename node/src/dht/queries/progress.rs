//! From Kademlia's events to answers.

use std::{num::NonZeroUsize, time::Instant};

use libp2p::{
    PeerId,
    kad::{
        self, GetClosestPeersError, GetClosestPeersOk, GetProvidersError, GetProvidersOk, GetRecordOk,
        PutRecordError, QueryId, QueryResult, QueryStats, store::RecordStore,
    },
};

use super::{
    Answer, Done, Queries,
    copies::{Copy, newest},
    work::{Running, Sink, Work},
};
use crate::dht::{
    Behaviour, REPLICATION,
    behaviour::{Gathered, Interest},
    command::{Announced, Failure, Found, Peer, Providers, Put, Quorum},
};

/// Providers are asked for again as long as that brings new ones, so often at most.
const MAX_ROUNDS: u32 = 12;
/// Rounds in a row that bring nothing new before the search ends.
const QUIET_ROUNDS: u32 = 2;

impl Queries {
    /// Takes an event of a query, if it is one of ours.
    pub fn on_progress(
        &mut self,
        dht: &mut Behaviour,
        query: QueryId,
        result: QueryResult,
        stats: &QueryStats,
    ) -> Option<Done> {
        let Running { begun, mut work } = self.running.remove(&query)?;
        match (&mut work, &result) {
            (
                Work::Get { quorum, copies, .. },
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))),
            ) => {
                copies.push(Copy {
                    value: found.record.value.clone(),
                    publisher: found.record.publisher,
                    expires: found.record.expires,
                    own: found.peer.is_none(),
                });
                let enough = match quorum {
                    Quorum::One => true,
                    Quorum::Count(count) => copies.len() >= *count,
                    Quorum::Majority | Quorum::All => false,
                };
                if !enough {
                    self.run(query, begun, work);
                    return None;
                }
                if let Some(mut running) = dht.kad().query_mut(&query) {
                    running.finish();
                }
            }
            (
                Work::Providers { found, .. },
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
            ) => {
                for provider in providers {
                    found.entry(*provider).or_default();
                }
                self.run(query, begun, work);
                return None;
            }
            _ => {}
        }
        self.on_end(dht, query, Running { begun, work }, result, stats)
    }

    fn on_end(
        &mut self,
        dht: &mut Behaviour,
        query: QueryId,
        Running { begun, work }: Running,
        result: QueryResult,
        stats: &QueryStats,
    ) -> Option<Done> {
        let took = begun.elapsed();
        match work {
            Work::Place {
                record,
                quorum,
                reply,
            } => {
                let peers = closest(result);
                let (needed, of) = (quorum.needed(peers.len()), peers.len());
                if peers.is_empty() {
                    let _ = reply.send(Err(Failure::QuorumFailed {
                        reached: 0,
                        needed,
                        of,
                    }));
                    return None;
                }
                let enough = NonZeroUsize::new(needed.min(of)).map_or(kad::Quorum::One, kad::Quorum::N);
                // Kademlia stops when enough have it: who is not connected yet then has not been asked.
                let missed = peers.iter().any(|peer| !dht.is_member(peer));
                let (expires, key) = (record.expires.unwrap_or(begun), record.key.clone());
                let query = dht.kad().put_record_to(record, peers.into_iter(), enough);
                let asked = stats.num_requests();
                let work = Work::Store {
                    expires,
                    needed,
                    of,
                    asked,
                    reply,
                };
                self.run(query, begun, work);
                missed.then_some(Done::Missed(key))
            }
            Work::Store {
                expires,
                needed,
                of,
                asked,
                reply,
            } => {
                let stored = match result {
                    QueryResult::PutRecord(Err(
                        PutRecordError::QuorumFailed { success, .. }
                        | PutRecordError::Timeout { success, .. },
                    )) => success.len(),
                    _ => usize::try_from(stats.num_successes()).unwrap_or(of),
                };
                let answer = if stored >= needed {
                    Ok(Put {
                        stored,
                        needed,
                        of,
                        expires_in: expires.saturating_duration_since(Instant::now()),
                        asked,
                        took,
                    })
                } else {
                    Err(Failure::QuorumFailed {
                        reached: stored,
                        needed,
                        of,
                    })
                };
                let _ = reply.send(answer);
                None
            }
            Work::Get {
                quorum,
                copies,
                reply,
            } => {
                let _ = reply.send(newest(copies, quorum, stats, took));
                None
            }
            Work::Announce { reply } => {
                if let Some(reply) = reply {
                    let requests = stats.num_requests();
                    let _ = reply.send(Ok(Announced { requests, took }));
                }
                None
            }
            Work::Providers { .. } => {
                let timed_out = matches!(
                    result,
                    QueryResult::GetProviders(Err(GetProvidersError::Timeout { .. }))
                );
                let gathered = dht.gathered(&query);
                self.on_round(dht, Running { begun, work }, gathered, timed_out, stats)
            }
            Work::FindPeer { peer, reply } => {
                let mut addresses = dht.gathered(&query).addresses.remove(&peer).unwrap_or_default();
                if let QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { peers, .. })) = result
                    && addresses.is_empty()
                    && let Some(found) = peers.into_iter().find(|found| found.peer_id == peer)
                {
                    addresses = found.addrs;
                }
                let asked = stats.num_requests();
                if addresses.is_empty() {
                    let _ = reply.send(Err(Failure::NotFound { asked }));
                    return None;
                }
                let found = Found {
                    peer: Peer {
                        id: peer,
                        name: None,
                        addresses,
                    },
                    connected: false,
                    asked,
                    took,
                };
                self.answers.push(Answer::Found(found, reply));
                None
            }
            Work::PlaceAgain { record } => {
                let peers = closest(result);
                let key = record.key.clone();
                if peers.is_empty() {
                    return Some(Done::Missed(key));
                }
                let query = dht
                    .kad()
                    .put_record_to(record, peers.into_iter(), kad::Quorum::All);
                self.run(query, begun, Work::Push { key });
                None
            }
            Work::Push { key } => {
                matches!(result, QueryResult::PutRecord(Err(_))).then_some(Done::Missed(key))
            }
        }
    }

    /// One answer of Kademlia names at most twenty providers, in an order of its own each time. So it is asked again while
    /// there may be more.
    fn on_round(
        &mut self,
        dht: &mut Behaviour,
        Running { begun, work }: Running,
        gathered: Gathered,
        timed_out: bool,
        stats: &QueryStats,
    ) -> Option<Done> {
        let Work::Providers {
            key,
            mut found,
            round,
            quiet,
            before,
            asked,
            sink,
        } = work
        else {
            return None;
        };
        for (provider, addresses) in gathered.addresses {
            let known = found.entry(provider).or_default();
            for address in addresses {
                if !known.contains(&address) {
                    known.push(address);
                }
            }
        }
        for own in dht.store().providers(&key) {
            if let Some(known) = found.get_mut(&own.provider).filter(|known| known.is_empty()) {
                *known = own.addresses;
            }
        }
        let asked = asked + stats.num_requests();
        let quiet = if found.len() > before { 0 } else { quiet + 1 };
        let may_be_more = gathered.full && quiet < QUIET_ROUNDS;
        if may_be_more && !timed_out && round < MAX_ROUNDS {
            let query = dht.kad().get_providers(key.clone());
            dht.gather(query, Interest::Providers);
            let work = Work::Providers {
                before: found.len(),
                round: round + 1,
                key,
                found,
                quiet,
                asked,
                sink,
            };
            self.run(query, begun, work);
            return None;
        }
        match sink {
            Sink::Service(service) => Some(Done::Counted(service, found.len())),
            Sink::Reply(reply) => {
                let mut providers: Vec<Peer> = found
                    .into_iter()
                    .map(|(id, addresses)| Peer {
                        id,
                        name: None,
                        addresses,
                    })
                    .collect();
                providers.sort_by_key(|provider| provider.id);
                let answer = Providers {
                    providers,
                    asked,
                    may_be_more: may_be_more || timed_out,
                    took: begun.elapsed(),
                };
                self.answers.push(Answer::Providers(answer, reply));
                None
            }
        }
    }
}

/// The agents closest to a key that answered.
fn closest(result: QueryResult) -> Vec<PeerId> {
    let QueryResult::GetClosestPeers(result) = result else {
        return Vec::new();
    };
    let peers = match result {
        Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
    };
    peers
        .into_iter()
        .map(|peer| peer.peer_id)
        .take(REPLICATION)
        .collect()
}
