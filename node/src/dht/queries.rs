//! Commands to Kademlia's queries, and its events to answers. What runs is bounded: so many commands, so many queries of
//! the agent's own upkeep, each of which ends by Kademlia's own deadline or is given up here.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{
        self, GetClosestPeersError, GetClosestPeersOk, GetProvidersError, GetProvidersOk, GetRecordOk,
        PutRecordError, QueryId, QueryResult, QueryStats, Record, RecordKey, store::RecordStore,
    },
};

use super::{
    Behaviour, REPLICATION,
    behaviour::{Gathered, Interest},
    command::{Announced, Failure, Found, Got, Peer, Providers, Put, Quorum, Reply},
    store::new_expiry,
};

/// Commands at work at a time. Each has one request under way to a peer at most, and all share the streams of a connection.
pub const MAX_COMMANDS: usize = 8;
/// Queries of the upkeep at work at a time.
pub const MAX_TASKS: usize = 4;
/// A query that Kademlia did not end by then is given up.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Providers are asked for again as long as that brings new ones, so often at most.
const MAX_ROUNDS: u32 = 12;
/// Rounds in a row that bring nothing new before the search ends.
const QUIET_ROUNDS: u32 = 2;

/// What the agent does by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Bring a record to these members.
    Push(RecordKey, Vec<PeerId>),
    /// Bring a record to all who should have it.
    Replicate(RecordKey),
    /// Say that we provide a key.
    Announce(RecordKey),
    /// Count the providers of the service of this number.
    Count(usize, RecordKey),
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A record could not be brought to all.
    Missed(RecordKey),
    /// So many providers of the service of this number were found.
    Counted(usize, usize),
}

/// A copy of a record.
#[derive(Debug)]
struct Copy {
    value: Vec<u8>,
    publisher: Option<PeerId>,
    expires: Option<Instant>,
    own: bool,
}

/// Who waits for a search for providers.
#[derive(Debug)]
enum Sink {
    Reply(Reply<Providers>),
    Service(usize),
}

#[derive(Debug)]
enum Work {
    /// Looks for the agents that should have a record that was put here.
    Place {
        record: Record,
        quorum: Quorum,
        reply: Reply<Put>,
    },
    /// Brings it to them.
    Store {
        expires: Instant,
        needed: usize,
        of: usize,
        asked: u32,
        reply: Reply<Put>,
    },
    Get {
        quorum: Quorum,
        copies: Vec<Copy>,
        reply: Reply<Got>,
    },
    Announce {
        reply: Option<Reply<Announced>>,
    },
    Providers {
        key: RecordKey,
        found: HashMap<PeerId, Vec<Multiaddr>>,
        round: u32,
        quiet: u32,
        before: usize,
        asked: u32,
        sink: Sink,
    },
    FindPeer {
        peer: PeerId,
        reply: Reply<Found>,
    },
    /// Looks for the agents that should have a record.
    PlaceAgain {
        record: Record,
    },
    /// Brings it to some.
    Push {
        key: RecordKey,
    },
}

impl Work {
    fn is_task(&self) -> bool {
        match self {
            Self::Place { .. } | Self::Store { .. } | Self::Get { .. } | Self::FindPeer { .. } => false,
            Self::Announce { reply } => reply.is_none(),
            Self::Providers { sink, .. } => matches!(sink, Sink::Service(_)),
            Self::PlaceAgain { .. } | Self::Push { .. } => true,
        }
    }

    fn give_up(self) {
        // Who asked may have gone.
        match self {
            Self::Place { reply, .. } | Self::Store { reply, .. } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Get { reply, .. } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Providers {
                sink: Sink::Reply(reply),
                ..
            } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::FindPeer { reply, .. } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Announce { reply: Some(reply) } => {
                let _ = reply.send(Err(Failure::TimedOut));
            }
            Self::Announce { reply: None }
            | Self::Providers { .. }
            | Self::PlaceAgain { .. }
            | Self::Push { .. } => {}
        }
    }
}

#[derive(Debug)]
struct Running {
    begun: Instant,
    work: Work,
}

/// An answer that names peers: the caller may know more of them.
#[derive(Debug)]
pub enum Answer {
    /// The providers of a key.
    Providers(Providers, Reply<Providers>),
    /// A peer's addresses.
    Found(Found, Reply<Found>),
}

impl Answer {
    /// Sends it, with the name and the addresses that the caller knows.
    pub fn complete(self, known: impl Fn(PeerId) -> Peer) {
        let complete = |peer: &mut Peer| {
            let known = known(peer.id);
            peer.name = known.name;
            if peer.addresses.is_empty() {
                peer.addresses = known.addresses;
            }
        };
        // Who asked may have gone.
        match self {
            Self::Providers(mut answer, reply) => {
                answer.providers.iter_mut().for_each(complete);
                let _ = reply.send(Ok(answer));
            }
            Self::Found(mut answer, reply) => {
                complete(&mut answer.peer);
                let _ = reply.send(Ok(answer));
            }
        }
    }
}

/// The queries under way.
#[derive(Debug, Default)]
pub struct Queries {
    running: HashMap<QueryId, Running>,
    /// Taken out after each event.
    answers: Vec<Answer>,
}

impl Queries {
    /// Whether one more command may begin.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.running
            .values()
            .filter(|running| !running.work.is_task())
            .count()
            < MAX_COMMANDS
    }

    /// Number of tasks at work.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.running
            .values()
            .filter(|running| running.work.is_task())
            .count()
    }

    /// The answers that name peers, since the last call.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Stores a record here, and then where it belongs.
    pub fn put(
        &mut self,
        dht: &mut Behaviour,
        own_id: PeerId,
        (key, value): (RecordKey, Vec<u8>),
        quorum: Quorum,
        reply: Reply<Put>,
    ) {
        let now = Instant::now();
        let record = Record {
            publisher: Some(own_id),
            expires: Some(new_expiry(now)),
            ..Record::new(key, value)
        };
        if let Err(refusal) = dht.store().insert(record.clone(), now) {
            let _ = reply.send(Err(refusal.into()));
            return;
        }
        let query = dht.kad().get_closest_peers(record.key.to_vec());
        self.run(
            query,
            now,
            Work::Place {
                record,
                quorum,
                reply,
            },
        );
    }

    /// Looks for a record.
    pub fn get(&mut self, dht: &mut Behaviour, key: RecordKey, quorum: Quorum, reply: Reply<Got>) {
        let query = dht.kad().get_record(key);
        let work = Work::Get {
            quorum,
            copies: Vec::new(),
            reply,
        };
        self.run(query, Instant::now(), work);
    }

    /// Provides a key from now on.
    pub fn provide(&mut self, dht: &mut Behaviour, key: RecordKey, reply: Option<Reply<Announced>>) {
        match dht.kad().start_providing(key) {
            Ok(query) => self.run(query, Instant::now(), Work::Announce { reply }),
            Err(error) => {
                tracing::debug!(%error, "a key can't be provided");
                if let Some(reply) = reply {
                    let limit = dht.store().limits().provided;
                    let _ = reply.send(Err(Failure::TooManyServices(limit)));
                }
            }
        }
    }

    /// Looks for the providers of a key.
    pub fn providers(&mut self, dht: &mut Behaviour, key: RecordKey, reply: Reply<Providers>) {
        self.search(dht, key, Sink::Reply(reply));
    }

    fn search(&mut self, dht: &mut Behaviour, key: RecordKey, sink: Sink) {
        let query = dht.kad().get_providers(key.clone());
        dht.gather(query, Interest::Providers);
        let work = Work::Providers {
            found: HashMap::new(),
            round: 1,
            quiet: 0,
            before: 0,
            asked: 0,
            key,
            sink,
        };
        self.run(query, Instant::now(), work);
    }

    /// Looks for a peer.
    pub fn find_peer(&mut self, dht: &mut Behaviour, peer: PeerId, reply: Reply<Found>) {
        let query = dht.kad().get_closest_peers(peer);
        dht.gather(query, Interest::Peer(peer));
        self.run(query, Instant::now(), Work::FindPeer { peer, reply });
    }

    /// Begins a task.
    pub fn begin(&mut self, dht: &mut Behaviour, task: Task) {
        let now = Instant::now();
        let stored =
            |dht: &mut Behaviour, key: &RecordKey| dht.store().get(key).map(|record| record.into_owned());
        match task {
            Task::Push(key, peers) => {
                let Some(record) = stored(dht, &key).filter(|record| !record.is_expired(now)) else {
                    return;
                };
                let query = dht
                    .kad()
                    .put_record_to(record, peers.into_iter(), kad::Quorum::All);
                self.run(query, now, Work::Push { key });
            }
            Task::Replicate(key) => {
                let Some(record) = stored(dht, &key).filter(|record| !record.is_expired(now)) else {
                    return;
                };
                dht.store().refreshed(&key, now);
                let query = dht.kad().get_closest_peers(key.to_vec());
                self.run(query, now, Work::PlaceAgain { record });
            }
            // It may have been given up meanwhile.
            Task::Announce(key) if !dht.store().provides(&key) => {}
            Task::Announce(key) => self.provide(dht, key, None),
            Task::Count(service, key) => self.search(dht, key, Sink::Service(service)),
        }
    }

    /// Gives up what takes too long.
    pub fn sweep(&mut self, dht: &mut Behaviour, now: Instant) {
        let late = self
            .running
            .extract_if(|_, running| now.saturating_duration_since(running.begun) >= GIVE_UP);
        for (query, running) in late {
            dht.gathered(&query);
            if let Some(mut query) = dht.kad().query_mut(&query) {
                query.finish();
            }
            running.work.give_up();
        }
    }

    fn run(&mut self, query: QueryId, begun: Instant, work: Work) {
        self.running.insert(query, Running { begun, work });
    }

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

/// The copy that was put last, if there are enough.
fn newest(copies: Vec<Copy>, quorum: Quorum, stats: &QueryStats, took: Duration) -> Result<Got, Failure> {
    let asked = stats.num_requests();
    let now = Instant::now();
    let copies: Vec<Copy> = copies
        .into_iter()
        .filter(|copy| copy.expires.is_none_or(|expires| expires > now))
        .collect();
    let found = copies.len();
    let own = usize::from(copies.iter().any(|copy| copy.own));
    let answered = usize::try_from(stats.num_successes()).unwrap_or(usize::MAX);
    let of = answered.saturating_add(own).max(found);
    let needed = quorum.needed(of);
    // A copy that says nothing of its time is the oldest.
    let latest = copies.iter().filter_map(|copy| copy.expires).max();
    let Some(newest) = copies
        .iter()
        .find(|copy| copy.expires == latest)
        .or_else(|| copies.first())
    else {
        return Err(Failure::NotFound { asked });
    };
    if found < needed {
        return Err(Failure::QuorumFailed {
            reached: found,
            needed,
            of,
        });
    }
    Ok(Got {
        value: newest.value.clone(),
        copies: found,
        older: copies.iter().filter(|copy| copy.value != newest.value).count(),
        publisher: newest.publisher,
        expires_in: newest
            .expires
            .map(|expires| expires.saturating_duration_since(now)),
        asked,
        took,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(value: &str, expires: Option<Duration>) -> Copy {
        Copy {
            value: value.into(),
            publisher: None,
            expires: expires.map(|lives| Instant::now() + lives),
            own: false,
        }
    }

    fn hour(hours: u64) -> Option<Duration> {
        Some(Duration::from_secs(hours * 3600))
    }

    fn read(copies: Vec<Copy>, quorum: Quorum) -> Result<Got, Failure> {
        newest(copies, quorum, &QueryStats::empty(), Duration::ZERO)
    }

    #[test]
    fn of_several_values_the_one_put_last_is_read_and_the_others_are_counted() {
        let got = read(
            vec![copy("old", hour(1)), copy("new", hour(2)), copy("older", None)],
            Quorum::One,
        )
        .unwrap();
        assert_eq!((got.value.as_slice(), got.copies, got.older), (&b"new"[..], 3, 2));
        assert!(got.expires_in.is_some_and(|left| left > hour(1).unwrap()));
    }

    #[test]
    fn copies_that_have_expired_are_none() {
        let expired = || copy("x", Some(Duration::ZERO));
        assert_eq!(
            read(vec![expired()], Quorum::One),
            Err(Failure::NotFound { asked: 0 })
        );
        assert_eq!(
            read(vec![expired(), copy("x", hour(1))], Quorum::Count(2)),
            Err(Failure::QuorumFailed {
                reached: 1,
                needed: 2,
                of: 1
            })
        );
    }

    #[test]
    fn a_quorum_is_of_those_asked_and_at_least_one() {
        for (quorum, of, needed) in [
            (Quorum::One, 0, 1),
            (Quorum::Majority, 0, 1),
            (Quorum::Majority, 2, 2),
            (Quorum::Majority, 3, 2),
            (Quorum::Majority, 20, 11),
            (Quorum::All, 0, 1),
            (Quorum::All, 7, 7),
            (Quorum::Count(0), 7, 1),
            (Quorum::Count(9), 7, 9),
        ] {
            assert_eq!(quorum.needed(of), needed, "{quorum:?} of {of}");
        }
    }
}
