use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits {
    records: 8,
    bytes: 200,
    key_bytes: 8,
    value_bytes: 50,
    provider_keys: 4,
    providers_per_key: 30,
    providers: 40,
    addresses: 2,
    provided: 3,
};

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn store() -> Store {
    Store::new(PeerId::random(), SMALL)
}

fn record(key: &str, value: &str, publisher: Option<PeerId>, expires: Instant) -> Record {
    Record {
        publisher,
        expires: Some(expires),
        ..Record::new(key.as_bytes().to_vec(), value.as_bytes().to_vec())
    }
}

fn value(store: &Store, key: &str) -> Option<Vec<u8>> {
    store
        .get(&RecordKey::new(&key))
        .map(|record| record.value.clone())
}

#[test]
fn a_full_store_refuses_what_is_new_and_keeps_what_it_has() {
    let now = Instant::now();
    let mut store = store();
    for n in 0..SMALL.records {
        let publisher = Some(PeerId::random());
        store
            .insert(record(&format!("k{n}"), "v", publisher, now + hour()), now)
            .unwrap();
    }
    let more = record("more", "v", Some(PeerId::random()), now + hour());
    assert_eq!(store.insert(more.clone(), now), Err(Refusal::Records(8)));
    assert_eq!(store.len(), 8);
    // A record that is there may change, and what has expired makes room.
    store
        .insert(record("k0", "w", None, now + hour() * 2), now)
        .unwrap();
    assert_eq!(value(&store, "k0").unwrap(), b"w");
    let later = now + hour();
    store
        .insert(
            Record {
                expires: None,
                ..more
            },
            later,
        )
        .unwrap();
    assert_eq!(store.len(), 2);
}

#[test]
fn one_publisher_may_fill_half_and_another_still_finds_room() {
    let now = Instant::now();
    let (mut store, greedy) = (store(), Some(PeerId::random()));
    let mut stored = 0;
    for n in 0..20 {
        match store.insert(record(&format!("g{n}"), "v", greedy, now + hour()), now) {
            Ok(()) => stored += 1,
            Err(refusal) => assert_eq!(refusal, Refusal::Share),
        }
    }
    assert_eq!(stored, SMALL.records / 2);
    store
        .insert(record("mine", "v", Some(PeerId::random()), now + hour()), now)
        .unwrap();
    // Half of the bytes, too.
    let mut store = self::store();
    let large = "x".repeat(SMALL.value_bytes);
    store
        .insert(record("a", &large, greedy, now + hour()), now)
        .unwrap();
    assert_eq!(
        store.insert(record("b", &large, greedy, now + hour()), now),
        Err(Refusal::Share)
    );
    store
        .insert(record("b", &large, None, now + hour()), now)
        .unwrap();
}

#[test]
fn an_older_value_never_replaces_a_newer_one_and_the_same_value_only_lives_longer() {
    let now = Instant::now();
    let mut store = store();
    store
        .insert(record("k", "new", None, now + hour() * 2), now)
        .unwrap();
    assert_eq!(
        store.insert(record("k", "old", None, now + hour()), now),
        Err(Refusal::Older)
    );
    // A copy of the same value that has less time left.
    store.insert(record("k", "new", None, now + hour()), now).unwrap();
    let kept = store.get(&RecordKey::new(&"k")).unwrap().expires;
    assert_eq!(kept, Some(now + hour() * 2));
    store
        .insert(record("k", "newer", None, now + hour() * 3), now)
        .unwrap();
    assert_eq!(value(&store, "k").unwrap(), b"newer");
}

#[test]
fn nothing_lives_longer_than_if_it_were_put_now() {
    let now = Instant::now();
    let mut store = store();
    store
        .insert(record("k", "v", None, now + RECORD_TTL * 9), now)
        .unwrap();
    let no_end = Record::new(b"l".to_vec(), b"v".to_vec());
    store.insert(no_end, now).unwrap();
    for record in store.records() {
        assert_eq!(record.expires, Some(now + RECORD_TTL));
    }
    let expired = record("m", "v", None, now);
    assert_eq!(store.insert(expired, now), Err(Refusal::Expired));
    store.sweep(now + RECORD_TTL);
    assert!(store.is_empty() && store.bytes() == 0 && store.shares.is_empty());
}

#[test]
fn keys_and_values_have_lengths() {
    let now = Instant::now();
    let mut store = store();
    let mut put = |key: &str, value: &str| store.insert(record(key, value, None, now + hour()), now);
    assert_eq!(put("", "v"), Err(Refusal::KeyLength { bytes: 0, limit: 8 }));
    assert_eq!(
        put("123456789", "v"),
        Err(Refusal::KeyLength { bytes: 9, limit: 8 })
    );
    let limit = SMALL.value_bytes;
    assert_eq!(
        put("k", &"x".repeat(limit + 1)),
        Err(Refusal::ValueTooLarge {
            bytes: limit + 1,
            limit
        })
    );
    put("k", "").unwrap();
}

fn provider(key: &str, peer: PeerId) -> ProviderRecord {
    ProviderRecord::new(key.as_bytes().to_vec(), peer, Vec::new())
}

#[test]
fn more_than_twenty_providers_of_a_key_are_kept_and_all_come_to_light() {
    let now = Instant::now();
    let mut store = store();
    for _ in 0..SMALL.providers_per_key {
        store
            .insert_provider(provider("s", PeerId::random()), now)
            .unwrap();
    }
    assert!(
        store
            .insert_provider(provider("s", PeerId::random()), now)
            .is_err()
    );
    let key = RecordKey::new(&"s");
    let mut seen = std::collections::HashSet::new();
    // What Kademlia answers: the first twenty.
    for _ in 0..100 {
        seen.extend(
            store
                .providers(&key)
                .into_iter()
                .take(20)
                .map(|found| found.provider),
        );
    }
    assert_eq!(seen.len(), SMALL.providers_per_key);
}

#[test]
fn a_provider_that_is_not_heard_of_again_is_forgotten_and_our_own_are_not() {
    let now = Instant::now();
    let mut store = store();
    let (own, other) = (store.own_id, PeerId::random());
    let forever = ProviderRecord {
        expires: Some(now + hour()),
        ..provider("s", other)
    };
    store.insert_provider(forever, now).unwrap();
    store.insert_provider(provider("s", own), now).unwrap();
    assert_eq!(store.provider_count(), 2);
    store.sweep(now + PROVIDER_TTL - Duration::from_secs(1));
    assert_eq!(store.provider_count(), 2);
    store.sweep(now + PROVIDER_TTL);
    let left = store.providers(&RecordKey::new(&"s"));
    assert_eq!(left, [provider("s", own)]);
    assert!(store.provides(&RecordKey::new(&"s")));
    store.remove_provider(&RecordKey::new(&"s"), &own);
    assert!(store.provider_count() == 0 && !store.provides(&RecordKey::new(&"s")));
}

#[test]
fn an_agent_provides_so_many_keys_and_no_more() {
    let now = Instant::now();
    let mut store = store();
    let own = store.own_id;
    for n in 0..SMALL.provided {
        store
            .insert_provider(provider(&format!("s{n}"), own), now)
            .unwrap();
    }
    assert!(store.insert_provider(provider("more", own), now).is_err());
    // To announce one again is no more.
    store.insert_provider(provider("s0", own), now).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: usize,
        publisher: Option<usize>,
        lives: u64,
    },
    Remove(u8),
    Provide(u8, usize),
    Forget(u8, usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (
            0..20u8,
            0..80usize,
            proptest::option::of(0..4usize),
            0..100_000u64
        )
            .prop_map(|(key, value, publisher, lives)| Step::Put {
                key,
                value,
                publisher,
                lives
            }),
        (0..20u8).prop_map(Step::Remove),
        (0..8u8, 0..50usize).prop_map(|(key, peer)| Step::Provide(key, peer)),
        (0..8u8, 0..50usize).prop_map(|(key, peer)| Step::Forget(key, peer)),
        (0..5_000u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn no_sequence_of_steps_exceeds_a_bound_or_loses_count(steps in steps()) {
        let peers: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        let mut store = store();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Put { key, value, publisher, lives } => {
                    let before = value_of(&store, key);
                    let new = record(
                        &format!("k{key}"),
                        &"x".repeat(value),
                        publisher.map(|at| peers[at]),
                        now + Duration::from_secs(lives),
                    );
                    if store.insert(new, now).is_err() {
                        // What is refused changes nothing but what had expired.
                        let after = value_of(&store, key);
                        prop_assert!(after == before || after.is_none());
                    }
                }
                Step::Remove(key) => store.remove(&RecordKey::new(&format!("k{key}"))),
                Step::Provide(key, peer) => {
                    let _ = store.insert_provider(provider(&format!("s{key}"), peers[peer]), now);
                }
                Step::Forget(key, peer) => {
                    store.remove_provider(&RecordKey::new(&format!("s{key}")), &peers[peer]);
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            let bytes: usize = store.stored().map(Stored::bytes).sum();
            prop_assert_eq!(store.bytes(), bytes);
            prop_assert!(store.len() <= SMALL.records && bytes <= SMALL.bytes);
            prop_assert!(store.shares.len() <= store.len());
            for share in store.shares.values() {
                prop_assert!(share.records <= SMALL.records / 2 && share.bytes <= SMALL.bytes / 2);
            }
            let providers: usize = store.providers.values().map(Vec::len).sum();
            prop_assert_eq!(store.provider_count(), providers);
            prop_assert!(providers <= SMALL.providers && store.providers.len() <= SMALL.provider_keys);
            prop_assert!(store.providers.values().all(|of_key| of_key.len() <= SMALL.providers_per_key));
        }
    }
}

fn value_of(store: &Store, key: u8) -> Option<Vec<u8>> {
    value(store, &format!("k{key}"))
}
