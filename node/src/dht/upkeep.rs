//! Which records go to whom, and when: as members come, as they go, now and then, and before this agent ends. Pure: the
//! clock, the members and the store are arguments.
//!
//! All agents that have a record could bring it to one that joins. So that not all do, each ranks itself among the members
//! by the distance to the key: the first [`PUSHERS`] bring it at once, and none of the others. More than one, since the
//! first may itself have joined a moment ago and not have the record yet.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{KBucketKey, RecordKey},
};

use super::{
    ANNOUNCEMENT_INTERVAL, REPLICATION, REPLICATION_INTERVAL, Store,
    queries::{MAX_TASKS, Task},
    store::Stored,
};

/// Members that bring a record to another one.
pub const PUSHERS: usize = 3;
/// A member that joined gets its records after this, when both sides know each other.
const AFTER_JOIN: Duration = Duration::from_millis(300);
/// A member that left may be back soon, as after a restart.
const AFTER_LEAVE: Duration = Duration::from_secs(20);
/// What could not be brought is brought again after this.
const AFTER_MISS: Duration = Duration::from_secs(15);
/// How often the records are looked through.
const ROUND: Duration = Duration::from_secs(15);
/// Each agent further from the key waits this much longer for others to bring a record anew.
const STAGGER: Duration = Duration::from_secs(60);
/// Providers are counted so often, and soon after the members changed.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);
const AFTER_CHANGE: Duration = Duration::from_secs(2);
/// Tasks that wait. What finds no room is found again by the next round.
const MAX_WAITING: usize = 8192;
/// Members that joined and have not got their records yet, and records to be brought again.
const MAX_DUE: usize = 1024;
/// A member that joined within this time may miss records that the others have.
const RECENT: Duration = Duration::from_secs(300);

/// When to do what.
#[derive(Debug)]
pub struct Upkeep {
    own_id: PeerId,
    own_place: KBucketKey<PeerId>,
    /// The services to count the providers of.
    services: Vec<RecordKey>,
    /// Connected members, and since when.
    members: HashMap<PeerId, (KBucketKey<PeerId>, Instant)>,
    joined: Vec<(Instant, PeerId)>,
    left: Vec<(Instant, PeerId)>,
    missed: HashMap<RecordKey, Instant>,
    next_round: Instant,
    next_announcement: Instant,
    next_count: Instant,
    waiting: VecDeque<Task>,
}

impl Upkeep {
    /// Nothing to do yet.
    #[must_use]
    pub fn new(own_id: PeerId, services: Vec<RecordKey>, now: Instant) -> Self {
        Self {
            own_id,
            own_place: KBucketKey::from(own_id),
            services,
            members: HashMap::new(),
            joined: Vec::new(),
            left: Vec::new(),
            missed: HashMap::new(),
            next_round: now + ROUND,
            next_announcement: now + ANNOUNCEMENT_INTERVAL,
            next_count: now + COUNT_INTERVAL,
            waiting: VecDeque::new(),
        }
    }

    /// A member connected, or started again.
    pub fn joined(&mut self, peer: PeerId, now: Instant) {
        self.members.insert(peer, (KBucketKey::from(peer), now));
        self.left.retain(|(_, left)| *left != peer);
        self.joined.retain(|(_, joined)| *joined != peer);
        if self.joined.len() < MAX_DUE {
            self.joined.push((now + AFTER_JOIN, peer));
        }
        // Announcements made before it came did not reach it.
        self.next_announcement = self.next_announcement.min(now + AFTER_JOIN);
        self.next_count = self.next_count.min(now + AFTER_CHANGE);
    }

    /// A member has no connection any more.
    pub fn left(&mut self, peer: PeerId, now: Instant) {
        self.members.remove(&peer);
        self.joined.retain(|(_, joined)| *joined != peer);
        // Where all have everything, nobody takes its place.
        if self.members.len() >= REPLICATION && self.left.len() < MAX_DUE {
            self.left.push((now + AFTER_LEAVE, peer));
        }
        self.next_count = self.next_count.min(now + AFTER_CHANGE);
    }

    /// A record could not be brought to all who should have it.
    pub fn missed(&mut self, key: RecordKey, now: Instant) {
        if self.missed.len() < MAX_DUE {
            self.missed.insert(key, now + AFTER_MISS);
        }
    }

    /// Finds out what is due.
    pub fn tend(&mut self, store: &mut Store, now: Instant) {
        for peer in take_due(&mut self.joined, now) {
            self.give_joined(store, peer);
        }
        for peer in take_due(&mut self.left, now) {
            self.replace_left(store, peer);
        }
        if now >= self.next_round {
            self.next_round = now + ROUND;
            store.sweep(now);
            self.look_through(store, now);
        }
        if now >= self.next_announcement {
            self.next_announcement = now + ANNOUNCEMENT_INTERVAL;
            let keys: Vec<RecordKey> = store.provided_keys().cloned().collect();
            for key in keys {
                self.wait(Task::Announce(key));
            }
        }
        if now >= self.next_count {
            self.next_count = now + COUNT_INTERVAL;
            for (service, key) in self.services.clone().into_iter().enumerate() {
                self.wait(Task::Count(service, key));
            }
        }
    }

    /// The next task, if so many more may begin.
    pub fn next(&mut self, running: usize) -> Option<Task> {
        if running >= MAX_TASKS {
            return None;
        }
        self.waiting.pop_front()
    }

    /// What to bring to whom before this agent ends: each record to those who may miss it, and to the closest in any case.
    #[must_use]
    pub fn hand_over(&self, store: &Store, now: Instant) -> Vec<Task> {
        let mut records: Vec<&Stored> = store.stored().collect();
        // Those that came last are the likeliest to be missing elsewhere.
        records.sort_by_key(|stored| std::cmp::Reverse(stored.refreshed()));
        records
            .into_iter()
            .filter_map(|stored| {
                let peers: Vec<PeerId> = self
                    .closest(stored, None)
                    .into_iter()
                    .filter(|peer| *peer != self.own_id)
                    .enumerate()
                    .filter(|(rank, peer)| *rank < PUSHERS || self.is_recent(peer, now))
                    .map(|(_, peer)| peer)
                    .collect();
                (!peers.is_empty()).then(|| Task::Push(stored.record().key.clone(), peers))
            })
            .collect()
    }

    fn is_recent(&self, peer: &PeerId, now: Instant) -> bool {
        self.members
            .get(peer)
            .is_some_and(|(_, since)| now.saturating_duration_since(*since) < RECENT)
    }

    /// The members that should have a record, this agent among them, closest first. `left`: one that is counted, too.
    fn closest(&self, stored: &Stored, left: Option<PeerId>) -> Vec<PeerId> {
        let place = stored.place();
        let own = std::iter::once((place.distance(&self.own_place), self.own_id));
        let left = left
            .into_iter()
            .map(|peer| (place.distance(&KBucketKey::from(peer)), peer));
        let others = self
            .members
            .iter()
            .map(|(peer, (at, _))| (place.distance(at), *peer));
        let mut all: Vec<_> = own.chain(left).chain(others).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, peer)| peer).take(REPLICATION).collect()
    }

    /// Brings a member that joined what it should have.
    fn give_joined(&mut self, store: &Store, peer: PeerId) {
        let keys: Vec<RecordKey> = store
            .stored()
            .filter(|stored| {
                let closest = self.closest(stored, None);
                let own = closest
                    .iter()
                    .filter(|other| **other != peer)
                    .take(PUSHERS)
                    .any(|other| *other == self.own_id);
                let publisher = stored.record().publisher == Some(self.own_id);
                closest.contains(&peer) && (own || publisher)
            })
            .map(|stored| stored.record().key.clone())
            .collect();
        for key in keys {
            self.wait(Task::Push(key, vec![peer]));
        }
    }

    /// Brings what a member had that left to who takes its place.
    fn replace_left(&mut self, store: &mut Store, peer: PeerId) {
        let keys: Vec<RecordKey> = store
            .stored()
            .filter(|stored| {
                let closest = self.closest(stored, Some(peer));
                let first = closest.iter().find(|other| **other != peer);
                closest.contains(&peer) && first == Some(&self.own_id)
            })
            .map(|stored| stored.record().key.clone())
            .collect();
        for key in keys {
            self.wait(Task::Replicate(key));
        }
    }

    /// Finds the records that nobody brought anew for long, and those that could not be brought to all.
    fn look_through(&mut self, store: &Store, now: Instant) {
        if self.members.is_empty() {
            return;
        }
        let mut due: Vec<RecordKey> = store
            .stored()
            .filter(|stored| {
                let rank = self
                    .closest(stored, None)
                    .iter()
                    .position(|peer| *peer == self.own_id)
                    .unwrap_or(REPLICATION);
                let rank = u32::try_from(rank).unwrap_or(u32::MAX);
                now >= stored.refreshed() + REPLICATION_INTERVAL + STAGGER.saturating_mul(rank)
            })
            .map(|stored| stored.record().key.clone())
            .collect();
        due.extend(self.missed.extract_if(|_, at| *at <= now).map(|(key, _)| key));
        for key in due {
            self.wait(Task::Replicate(key));
        }
    }

    fn wait(&mut self, task: Task) {
        if self.waiting.len() < MAX_WAITING && !self.is_waiting(&task) {
            self.waiting.push_back(task);
        }
    }

    /// What comes back by the clock must not pile up where the agent can't keep pace.
    fn is_waiting(&self, task: &Task) -> bool {
        !matches!(task, Task::Push(..)) && self.waiting.contains(task)
    }
}

fn take_due(list: &mut Vec<(Instant, PeerId)>, now: Instant) -> Vec<PeerId> {
    list.extract_if(.., |(at, _)| *at <= now)
        .map(|(_, peer)| peer)
        .collect()
}

#[cfg(test)]
mod tests;
