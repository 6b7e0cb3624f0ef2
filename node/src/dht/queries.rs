//! Commands to Kademlia's queries, and its events to answers. What runs is bounded: so many commands, so many queries of
//! the agent's own upkeep, each of which ends by Kademlia's own deadline or is given up here.

mod copies;
mod progress;
mod work;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{self, QueryId, Record, RecordKey, store::RecordStore},
};

use self::work::{Running, Sink, Work};
use super::{
    Behaviour,
    behaviour::Interest,
    command::{Announced, Failure, Found, Got, Peer, Providers, Put, Quorum, Reply},
    store::new_expiry,
};

/// Commands at work at a time. Each has one request under way to a peer at most, and all share the streams of a connection.
pub const MAX_COMMANDS: usize = 8;
/// Queries of the upkeep at work at a time.
pub const MAX_TASKS: usize = 4;
/// A query that Kademlia did not end by then is given up.
const GIVE_UP: Duration = Duration::from_secs(30);

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
}
