use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ids(count: usize) -> Vec<PeerId> {
    let mut ids: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
    ids.sort_unstable();
    ids
}

fn at(n: u8) -> Multiaddr {
    format!("/ip4/192.0.2.{n}/tcp/4001").parse().unwrap()
}

fn direct() -> Ways {
    Ways {
        direct: true,
        circuit: None,
    }
}

fn circuit_until(end: Instant) -> Ways {
    Ways {
        direct: false,
        circuit: Some(Some(end)),
    }
}

/// A book of the lower of two peers, with one relay that leads to the other, and the connections that stand.
fn scene(now: Instant) -> (Book, [PeerId; 3], HashMap<PeerId, Ways>) {
    let ids = ids(3);
    let [own, peer, relay] = [ids[0], ids[1], ids[2]];
    let mut book = Book::new(own, 64);
    book.met(relay, at(9), now);
    book.told(&relay, Some(vec![own, peer]), now);
    (book, [own, peer, relay], HashMap::from([(relay, direct())]))
}

#[test]
fn a_circuit_is_asked_for_once_direct_dials_had_their_time() {
    let now = Instant::now();
    let (mut book, [_, peer, relay], ways) = scene(now);
    assert!(book.plan(&ways, now).circuits.is_empty());
    let early = now + DIRECT_GRACE - Duration::from_millis(1);
    assert!(book.plan(&ways, early).circuits.is_empty());
    let circuits = book.plan(&ways, now + DIRECT_GRACE).circuits;
    assert_eq!(circuits, [(peer, circuit(at(9), relay, peer))]);
    assert!(
        book.plan(&ways, now + DIRECT_GRACE * 9).circuits.is_empty(),
        "not twice at a time"
    );
}

#[test]
fn who_has_a_direct_connection_needs_no_circuit_and_who_lost_it_gets_the_time_to_dial_again() {
    let now = Instant::now();
    let (mut book, [_, peer, _], mut ways) = scene(now);
    ways.insert(peer, direct());
    assert!(book.plan(&ways, now + DIRECT_GRACE * 9).circuits.is_empty());
    ways.remove(&peer);
    let lost = now + DIRECT_GRACE * 10;
    assert!(book.plan(&ways, lost).circuits.is_empty());
    assert_eq!(book.plan(&ways, lost + DIRECT_GRACE).circuits.len(), 1);
}

#[test]
fn of_a_pair_the_lower_id_asks_and_the_other_one_after_a_grace() {
    let now = Instant::now();
    let ids = ids(3);
    let mut book = Book::new(ids[1], 64);
    book.met(ids[2], at(9), now);
    book.told(&ids[2], Some(vec![ids[0]]), now);
    let ways = HashMap::new();
    book.plan(&ways, now);
    assert!(book.plan(&ways, now + DIRECT_GRACE).circuits.is_empty());
    assert_eq!(book.plan(&ways, now + DIRECT_GRACE + GRACE).circuits.len(), 1);
}

#[test]
fn a_circuit_is_replaced_before_it_ends_and_one_without_an_end_never() {
    let now = Instant::now();
    let (mut book, [_, peer, _], mut ways) = scene(now);
    let end = now + SECOND * 3600;
    ways.insert(peer, circuit_until(end));
    assert!(book.plan(&ways, now).circuits.is_empty());
    assert!(book.plan(&ways, end - RENEW_BEFORE).circuits.is_empty());
    let late = end - RENEW_BEFORE + SECOND;
    assert_eq!(book.plan(&ways, late).circuits.len(), 1);
    book.finished(&peer, true, late);
    ways.insert(peer, circuit_until(late + SECOND * 3600));
    assert!(book.plan(&ways, late + SECOND).circuits.is_empty());
    ways.insert(
        peer,
        Ways {
            direct: false,
            circuit: Some(None),
        },
    );
    assert!(book.plan(&ways, now + SECOND * 1_000_000).circuits.is_empty());
}

#[test]
fn failures_slow_down_and_take_the_next_relay() {
    let mut now = Instant::now();
    let (mut book, [_, peer, first], ways) = scene(now);
    let second = PeerId::random();
    book.met(second, at(8), now);
    book.told(&second, Some(vec![peer]), now);
    book.plan(&ways, now);
    now += DIRECT_GRACE;
    let mut taken = Vec::new();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let started = now;
        let address = loop {
            if let Some((_, address)) = book.plan(&ways, now).circuits.pop() {
                break address;
            }
            now += Duration::from_millis(250);
        };
        pauses.push(now - started);
        taken.push(super::super::relay_in(&address).unwrap().1.unwrap());
        book.finished(&peer, false, now);
    }
    assert!(taken.contains(&first) && taken.contains(&second), "{taken:?}");
    assert_ne!(taken[0], taken[1]);
    assert!(
        pauses[1] < pauses[4] && pauses[9] <= CIRCUIT_BACKOFF.1 + DIRECT_GRACE,
        "{pauses:?}"
    );
}

#[test]
fn two_relays_lead_to_us_and_another_takes_the_place_of_one_that_refuses() {
    let mut now = Instant::now();
    let mut book = Book::new(PeerId::random(), 64);
    let relays = ids(3);
    for (n, relay) in (1..).zip(&relays) {
        book.met(*relay, at(n), now);
    }
    let nobody = HashMap::new();
    assert!(
        book.plan(&nobody, now).reserve.is_empty(),
        "they must know us first"
    );
    now += SECOND;
    let asked: Vec<PeerId> = book
        .plan(&nobody, now)
        .reserve
        .into_iter()
        .map(|(relay, _)| relay)
        .collect();
    assert_eq!(asked.len(), RESERVATIONS);
    book.reserved(&asked[0]);
    book.unreserved(&asked[1], now);
    let third = book.plan(&nobody, now).reserve;
    assert_eq!(third.len(), 1);
    assert!(!asked.contains(&third[0].0));
    book.reserved(&third[0].0);
    assert_eq!(book.held(), 2);
    assert!(book.plan(&nobody, now + SECOND * 999).reserve.is_empty());
    book.lost(&asked[0]);
    let again = book.plan(&nobody, now + SECOND * 999).reserve;
    assert_eq!(
        again.iter().map(|(relay, _)| *relay).collect::<Vec<_>>(),
        [asked[1]]
    );
}

#[test]
fn relays_are_asked_again_and_again_but_not_while_they_are_about_to_answer() {
    let now = Instant::now();
    let mut book = Book::new(PeerId::random(), 64);
    let relay = PeerId::random();
    book.met(relay, at(1), now);
    let nobody = HashMap::new();
    assert_eq!(book.plan(&nobody, now + SECOND).ask, [relay]);
    assert!(book.plan(&nobody, now + SECOND * 99).ask.is_empty());
    book.told(&relay, None, now + SECOND * 100);
    assert!(book.plan(&nobody, now + SECOND * 104).ask.is_empty());
    assert_eq!(book.plan(&nobody, now + SECOND * 105).ask, [relay]);
}

#[test]
fn who_no_relay_leads_to_any_more_is_forgotten() {
    let now = Instant::now();
    let (mut book, [_, peer, relay], ways) = scene(now);
    book.plan(&ways, now);
    book.told(&relay, Some(Vec::new()), now);
    assert!(book.peers.is_empty());
    book.told(&relay, Some(vec![peer]), now);
    book.lost(&relay);
    assert!(book.peers.is_empty() && book.relays.is_empty());
}

#[test]
fn no_more_circuits_are_made_than_the_agent_may_have_peers() {
    let now = Instant::now();
    let ids = ids(12);
    let mut book = Book::new(ids[0], 3);
    book.met(ids[1], at(1), now);
    book.told(&ids[1], Some(ids[2..].to_vec()), now);
    let ways = HashMap::from([(ids[1], direct())]);
    book.plan(&ways, now);
    assert_eq!(book.plan(&ways, now + DIRECT_GRACE).circuits.len(), 2);
}

proptest! {
    /// Whatever relays say, what is kept and what is under way at a time is bounded.
    #[test]
    fn what_relays_say_is_bounded(answers in prop::collection::vec((0_u8..40, 0_usize..700), 1..20)) {
        let now = Instant::now();
        let relays = ids(40);
        let mut book = Book::new(PeerId::random(), 256);
        for (relay, count) in answers {
            let relay = relays[usize::from(relay)];
            book.met(relay, at(1), now);
            book.told(&relay, Some((0..count).map(|_| PeerId::random()).collect()), now);
        }
        prop_assert!(book.relays.len() <= MAX_RELAYS);
        prop_assert!(book.peers.len() <= MAX_PEERS);
        let nobody = HashMap::new();
        book.plan(&nobody, now);
        let plan = book.plan(&nobody, now + SECOND * 60);
        prop_assert!(plan.circuits.len() <= MAX_DIALING && plan.reserve.len() <= RESERVATIONS);
        prop_assert!(plan.ask.len() <= MAX_RELAYS);
    }
}
