use std::collections::{BTreeMap, BTreeSet};

use libp2p::kad::Record;

use super::*;
use crate::dht::Limits;

/// Agents that know each other, each with a store and an upkeep of its own. Tasks are done at once and in full.
struct Mesh {
    agents: BTreeMap<PeerId, (Store, Upkeep)>,
    now: Instant,
}

impl Mesh {
    fn of(number: usize) -> (Self, Vec<PeerId>) {
        let mut mesh = Self {
            agents: BTreeMap::new(),
            now: Instant::now(),
        };
        let ids: Vec<PeerId> = (0..number).map(|_| PeerId::random()).collect();
        for id in &ids {
            mesh.start(*id);
        }
        mesh.pass(Duration::from_secs(1));
        (mesh, ids)
    }

    /// An agent starts with nothing, and all others meet it.
    fn start(&mut self, id: PeerId) {
        let mut upkeep = Upkeep::new(id, Vec::new(), self.now);
        for (other, (_, theirs)) in &mut self.agents {
            upkeep.joined(*other, self.now);
            theirs.joined(id, self.now);
        }
        self.agents.insert(id, (Store::new(id, Limits::DEFAULT), upkeep));
    }

    fn stop(&mut self, id: PeerId, orderly: bool) {
        if orderly {
            let (store, upkeep) = &self.agents[&id];
            let tasks = upkeep.hand_over(store, self.now);
            self.carry_out(id, tasks);
        }
        self.agents.remove(&id);
        for (_, upkeep) in self.agents.values_mut() {
            upkeep.left(id, self.now);
        }
    }

    fn put(&mut self, at: PeerId, key: &str) {
        let record = Record {
            publisher: Some(at),
            ..Record::new(key.as_bytes().to_vec(), b"value".to_vec())
        };
        let now = self.now;
        let closest = self.closest(key);
        for id in closest.iter().chain([&at]) {
            let (store, _) = self.agents.get_mut(id).unwrap();
            store.insert(record.clone(), now).unwrap();
        }
    }

    fn closest(&self, key: &str) -> Vec<PeerId> {
        let place = KBucketKey::new(RecordKey::new(&key));
        let mut all: Vec<PeerId> = self.agents.keys().copied().collect();
        all.sort_by_key(|id| place.distance(&KBucketKey::from(*id)));
        all.truncate(REPLICATION);
        all
    }

    fn holders(&self, key: &str) -> BTreeSet<PeerId> {
        self.agents
            .iter()
            .filter(|(_, (store, _))| {
                store
                    .stored()
                    .any(|stored| stored.record().key.as_ref() == key.as_bytes())
            })
            .map(|(id, _)| *id)
            .collect()
    }

    fn carry_out(&mut self, from: PeerId, tasks: Vec<Task>) -> usize {
        let mut pushes = 0;
        for task in tasks {
            let (key, to) = match task {
                Task::Push(key, to) => (key, to),
                Task::Replicate(key) => {
                    let to = self.closest(std::str::from_utf8(key.as_ref()).unwrap());
                    (key, to)
                }
                Task::Announce(_) | Task::Count(..) => continue,
            };
            let (store, _) = self.agents.get_mut(&from).unwrap();
            store.refreshed(&key, self.now);
            let record = store
                .stored()
                .find(|stored| stored.record().key == key)
                .unwrap()
                .record()
                .clone();
            for id in to.into_iter().filter(|id| *id != from) {
                pushes += 1;
                if let Some((store, _)) = self.agents.get_mut(&id) {
                    store.insert(record.clone(), self.now).unwrap();
                }
            }
        }
        pushes
    }

    /// Time passes; whoever has something to do does it. Returns how many records were sent.
    fn pass(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut pushes = 0;
        while self.now < end {
            self.now += Duration::from_secs(1);
            let ids: Vec<PeerId> = self.agents.keys().copied().collect();
            for id in ids {
                let (store, upkeep) = self.agents.get_mut(&id).unwrap();
                upkeep.tend(store, self.now);
                let tasks: Vec<Task> = std::iter::from_fn(|| upkeep.next(0)).collect();
                pushes += self.carry_out(id, tasks);
            }
        }
        pushes
    }
}

#[test]
fn a_rolling_restart_one_second_apart_loses_nothing() {
    for size in [2, 3, 5] {
        let (mut mesh, ids) = Mesh::of(size);
        let keys: Vec<String> = (0..50).map(|n| format!("key-{n}")).collect();
        for (n, key) in keys.iter().enumerate() {
            mesh.put(ids[n % size], key);
        }
        for id in &ids {
            mesh.stop(*id, true);
            mesh.start(*id);
            mesh.pass(Duration::from_secs(1));
        }
        for key in &keys {
            assert_eq!(mesh.holders(key).len(), size, "{key} of {size}");
        }
    }
}

#[test]
fn agents_that_are_killed_one_after_the_other_lose_nothing_either() {
    let (mut mesh, ids) = Mesh::of(3);
    mesh.put(ids[0], "k");
    for id in &ids {
        mesh.stop(*id, false);
        assert!(!mesh.holders("k").is_empty());
        mesh.start(*id);
        mesh.pass(Duration::from_secs(1));
    }
    assert_eq!(mesh.holders("k").len(), 3);
}

#[test]
fn a_record_that_only_the_one_that_stops_has_is_handed_over() {
    let (mut mesh, ids) = Mesh::of(3);
    let (store, _) = mesh.agents.get_mut(&ids[0]).unwrap();
    store
        .insert(Record::new(b"only".to_vec(), b"value".to_vec()), mesh.now)
        .unwrap();
    mesh.stop(ids[0], true);
    assert_eq!(mesh.holders("only").len(), 2);
}

#[test]
fn in_a_large_network_the_twenty_closest_have_a_record_whoever_comes_and_goes() {
    let (mut mesh, ids) = Mesh::of(30);
    mesh.put(ids[0], "k");
    // The closest three leave without a word, and others take their places.
    for id in mesh.closest("k").into_iter().take(3) {
        mesh.stop(id, false);
    }
    mesh.pass(AFTER_LEAVE + Duration::from_secs(2));
    let closest: BTreeSet<PeerId> = mesh.closest("k").into_iter().collect();
    assert!(closest.is_subset(&mesh.holders("k")));
    // As many come: the record is with those of them that are close.
    for _ in 0..3 {
        mesh.start(PeerId::random());
    }
    mesh.pass(Duration::from_secs(2));
    let closest: BTreeSet<PeerId> = mesh.closest("k").into_iter().collect();
    assert!(closest.is_subset(&mesh.holders("k")));
}

#[test]
fn who_joins_gets_each_record_from_a_few_and_a_quiet_network_sends_each_record_once_in_a_while() {
    let (mut mesh, ids) = Mesh::of(10);
    mesh.put(ids[0], "k");
    // Who comes among the closest brings a record itself, as soon as it has it: here comes one that does not.
    let place = KBucketKey::new(RecordKey::new(&"k"));
    let distance = |id: PeerId| place.distance(&KBucketKey::from(id));
    let fourth = distance(mesh.closest("k")[PUSHERS]);
    let newcomer = std::iter::repeat_with(PeerId::random).find(|id| distance(*id) > fourth);
    mesh.start(newcomer.unwrap());
    let sent = mesh.pass(Duration::from_secs(2));
    // The three closest, and the publisher if it is not among them.
    assert!((PUSHERS..=PUSHERS + 1).contains(&sent), "{sent}");
    let sent = mesh.pass(REPLICATION_INTERVAL * 3);
    // Each time one agent sends it to the ten others.
    assert!((10..=40).contains(&sent), "{sent}");
}

#[test]
fn what_could_not_be_brought_is_brought_again_soon() {
    let (mut mesh, ids) = Mesh::of(3);
    mesh.put(ids[0], "k");
    for id in &ids[1..] {
        let (store, _) = mesh.agents.get_mut(id).unwrap();
        *store = Store::new(*id, Limits::DEFAULT);
    }
    let now = mesh.now;
    let (_, upkeep) = mesh.agents.get_mut(&ids[0]).unwrap();
    upkeep.missed(RecordKey::new(&"k"), now);
    mesh.pass(AFTER_MISS + ROUND + Duration::from_secs(1));
    assert_eq!(mesh.holders("k").len(), 3);
}

#[test]
fn what_we_provide_is_announced_as_soon_as_somebody_comes_and_then_by_the_clock() {
    let now = Instant::now();
    let own = PeerId::random();
    let key = RecordKey::new(&"service");
    let mut store = Store::new(own, Limits::DEFAULT);
    store
        .insert_provider(
            libp2p::kad::ProviderRecord::new(key.clone(), own, Vec::new()),
            now,
        )
        .unwrap();
    let mut upkeep = Upkeep::new(own, vec![key.clone()], now);
    let mut announced = |upkeep: &mut Upkeep, at: Duration| {
        upkeep.tend(&mut store, now + at);
        std::iter::from_fn(|| upkeep.next(0))
            .filter(|task| matches!(task, Task::Announce(_)))
            .count()
    };
    assert_eq!(announced(&mut upkeep, Duration::from_secs(1)), 0);
    upkeep.joined(PeerId::random(), now + Duration::from_secs(1));
    assert_eq!(announced(&mut upkeep, Duration::from_secs(2)), 1);
    assert_eq!(announced(&mut upkeep, Duration::from_secs(3)), 0);
    assert_eq!(
        announced(&mut upkeep, Duration::from_secs(2) + ANNOUNCEMENT_INTERVAL),
        1
    );
}

#[test]
fn no_more_tasks_begin_than_may_be_at_work_and_a_slow_agent_does_not_pile_them_up() {
    let now = Instant::now();
    let own = PeerId::random();
    let keys: Vec<RecordKey> = (0..4).map(|n| RecordKey::new(&format!("s{n}"))).collect();
    let mut upkeep = Upkeep::new(own, keys.clone(), now);
    let mut store = Store::new(own, Limits::DEFAULT);
    for round in 1..100 {
        upkeep.tend(&mut store, now + COUNT_INTERVAL * round);
    }
    assert_eq!(upkeep.next(MAX_TASKS), None);
    let tasks: Vec<Task> = std::iter::from_fn(|| upkeep.next(0)).collect();
    assert_eq!(tasks.len(), keys.len(), "{tasks:?}");
}
