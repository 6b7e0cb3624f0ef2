use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn address(n: u16) -> Address {
    let [high, low] = n.to_be_bytes();
    at([10, 0, high, low], 4001)
}

fn at(ip: [u8; 4], port: u16) -> Address {
    Address::tcp(SocketAddr::from((ip, port)))
}

/// Peer ids in ascending order.
fn ids(count: usize) -> Vec<PeerId> {
    let mut ids: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
    ids.sort();
    ids
}

fn planner(own: u16, limit: usize) -> Planner {
    let mut planner = Planner::new(PeerId::random(), limit);
    planner.own_address(address(own));
    planner
}

fn seeds(dials: &[Dial]) -> Vec<Address> {
    let mut seeds: Vec<Address> = dials
        .iter()
        .map(|dial| match dial.target {
            Target::Seed(address) => address,
            Target::Peer(peer) | Target::Member(peer, _) => panic!("a dial to {peer}"),
        })
        .collect();
    seeds.sort();
    seeds
}

/// Lets every dial succeed until there are no more, and says whom they were for.
fn connect_all(mut planner: Planner, all: &[Address]) -> Vec<Address> {
    planner.set_seeds(all.iter().copied());
    let mut now = Instant::now();
    let mut links: HashMap<PeerId, Link> = HashMap::new();
    let mut idle = Duration::ZERO;
    while idle <= GRACE * 2 {
        let dials = planner.plan(&links, now);
        idle = if dials.is_empty() {
            idle + Duration::from_millis(250)
        } else {
            Duration::ZERO
        };
        for dial in dials {
            planner.finished(dial.target, Outcome::Connected, now);
            links.insert(
                PeerId::random(),
                Link {
                    dialed: dial.addresses,
                    member: true,
                    ..Link::default()
                },
            );
        }
        now += Duration::from_millis(250);
    }
    let mut reached: Vec<Address> = links.into_values().flat_map(|link| link.dialed).collect();
    reached.sort();
    reached
}

fn reached(address: Address) -> HashMap<PeerId, Link> {
    let link = Link {
        dialed: vec![address],
        member: true,
        ..Link::default()
    };
    HashMap::from([(PeerId::random(), link)])
}

#[test]
fn of_two_agents_the_lower_address_dials_at_once_and_the_other_after_the_grace() {
    let now = Instant::now();
    let nobody = HashMap::new();
    let (mut low, mut high) = (planner(1, 64), planner(2, 64));
    low.set_seeds([address(1), address(2)]);
    high.set_seeds([address(1), address(2)]);
    assert_eq!(seeds(&low.plan(&nobody, now)), [address(2)]);
    assert!(high.plan(&nobody, now).is_empty());
    assert!(
        high.plan(&nobody, now + GRACE - Duration::from_millis(1))
            .is_empty()
    );
    assert_eq!(seeds(&high.plan(&nobody, now + GRACE)), [address(1)]);
}

#[test]
fn a_connection_from_the_other_side_is_enough_except_on_loopback() {
    let now = Instant::now();
    let mut high = planner(2, 64);
    high.set_seeds([address(1), at([127, 0, 0, 1], 4001)]);
    let sources = vec![address(1).ip(), "127.0.0.1".parse().unwrap()];
    let links = HashMap::from([(
        PeerId::random(),
        Link {
            sources,
            member: true,
            ..Link::default()
        },
    )]);
    high.plan(&links, now);
    let dials = high.plan(&links, now + GRACE * 2);
    assert!(
        seeds(&dials).iter().all(|address| address.ip().is_loopback()),
        "{dials:?}"
    );
}

#[test]
fn an_address_that_a_member_claims_is_tried_late_since_it_may_be_a_lie() {
    let now = Instant::now();
    let mut planner = planner(1, 64);
    planner.set_seeds([address(2)]);
    let link = Link {
        transports: vec![Transport::Tcp],
        claimed: vec![address(2)],
        member: true,
        ..Link::default()
    };
    let links = HashMap::from([(PeerId::random(), link.clone())]);
    planner.plan(&links, now);
    assert!(
        planner
            .plan(&links, now + CLAIM_GRACE - Duration::from_millis(1))
            .is_empty()
    );
    assert_eq!(seeds(&planner.plan(&links, now + CLAIM_GRACE)), [address(2)]);

    let mut other = self::planner(1, 64);
    other.set_seeds([address(2)]);
    let stranger = HashMap::from([(
        PeerId::random(),
        Link {
            member: false,
            ..link
        },
    )]);
    assert_eq!(
        seeds(&other.plan(&stranger, now)),
        [address(2)],
        "what a stranger claims counts for nothing"
    );
}

#[test]
fn who_only_a_circuit_leads_to_is_still_dialed_directly() {
    let now = Instant::now();
    let ids = ids(2);
    let mut planner = Planner::new(ids[0], 64);
    planner.set_seeds([address(3)]);
    planner.discovered(ids[1], [address(2)], Source::Circuit);
    let through_a_relay = |relayed| {
        let link = Link {
            claimed: vec![address(3)],
            member: true,
            relayed,
            ..Link::default()
        };
        HashMap::from([(ids[1], link)])
    };
    // What it claims is no reason to wait: it can't be reached there yet.
    let dials = planner.plan(&through_a_relay(true), now + GRACE);
    let mut targets: Vec<Target> = dials.into_iter().map(|dial| dial.target).collect();
    targets.sort_unstable();
    let mut expected = [Target::Seed(address(3)), Target::Peer(ids[1])];
    expected.sort_unstable();
    assert_eq!(targets, expected);
    for target in targets {
        planner.finished(target, Outcome::Failed, now);
    }
    let later = now + Duration::from_secs(20);
    let dials = planner.plan(&through_a_relay(false), later);
    assert!(
        dials.iter().all(|dial| dial.target != Target::Peer(ids[1])),
        "{dials:?}"
    );
}

#[test]
fn after_a_disconnect_the_same_rule_holds_anew() {
    let now = Instant::now();
    let mut high = planner(2, 64);
    high.set_seeds([address(1)]);
    let links = reached(address(1));
    high.plan(&links, now);
    let later = now + Duration::from_secs(100);
    high.plan(&links, later);
    assert!(high.plan(&HashMap::new(), later).is_empty());
    assert_eq!(seeds(&high.plan(&HashMap::new(), later + GRACE)), [address(1)]);
}

#[test]
fn failed_dials_are_repeated_for_ever_and_ever_slower_up_to_a_bound() {
    let mut now = Instant::now();
    let mut planner = planner(1, 64);
    planner.set_seeds([address(2)]);
    let mut pauses = Vec::new();
    for _ in 0..50 {
        let started = now;
        loop {
            let dials = planner.plan(&HashMap::new(), now);
            if !dials.is_empty() {
                break;
            }
            now += Duration::from_millis(50);
        }
        pauses.push(now - started);
        planner.finished(Target::Seed(address(2)), Outcome::Failed, now);
    }
    assert!(
        pauses[1] >= Duration::from_millis(400) && pauses[1] <= Duration::from_millis(700),
        "{pauses:?}"
    );
    assert!(
        pauses[10..].iter().all(|pause| *pause >= Duration::from_secs(4)),
        "{pauses:?}"
    );
    assert!(
        pauses.iter().all(|pause| *pause <= Duration::from_millis(6_100)),
        "{pauses:?}"
    );
}

#[test]
fn nobody_is_dialed_twice_at_a_time() {
    let now = Instant::now();
    let mut planner = planner(1, 64);
    planner.set_seeds([address(2)]);
    planner.discovered(PeerId::random(), [address(2)], Source::Mdns);
    assert_eq!(planner.plan(&HashMap::new(), now).len(), 1);
    assert!(planner.plan(&HashMap::new(), now + GRACE * 10).is_empty());
}

#[test]
fn ourselves_and_strangers_are_not_dialed_again_soon() {
    let now = Instant::now();
    let mut planner = planner(1, 64);
    planner.set_seeds([address(1), address(2), address(3)]);
    assert_eq!(
        seeds(&planner.plan(&HashMap::new(), now)),
        [address(2), address(3)]
    );
    planner.finished(Target::Seed(address(2)), Outcome::Ourselves, now);
    planner.finished(Target::Seed(address(3)), Outcome::Stranger, now);
    planner.set_seeds([address(1), address(2), address(3)]);
    assert!(
        planner
            .plan(&HashMap::new(), now + Duration::from_secs(59))
            .is_empty()
    );
    assert_eq!(
        seeds(&planner.plan(&HashMap::new(), now + Duration::from_secs(60))),
        [address(3)]
    );
}

#[test]
fn of_two_peers_the_lower_id_dials_at_once() {
    let now = Instant::now();
    let ids = ids(2);
    let mut low = Planner::new(ids[0], 64);
    let mut high = Planner::new(ids[1], 64);
    low.discovered(ids[1], [address(2)], Source::Mdns);
    high.discovered(ids[0], [address(1)], Source::Mdns);
    assert_eq!(low.plan(&HashMap::new(), now).len(), 1);
    assert!(high.plan(&HashMap::new(), now).is_empty());
    assert_eq!(high.plan(&HashMap::new(), now + GRACE).len(), 1);
}

#[test]
fn bootstrap_peers_are_dialed_at_once_and_are_never_forgotten() {
    let mut now = Instant::now();
    let ids = ids(2);
    let mut planner = Planner::new(ids[1], 1);
    planner.discovered(ids[0], [], Source::Bootstrap);
    assert!(
        planner.plan(&HashMap::new(), now).is_empty(),
        "its name is not looked up yet"
    );
    planner.resolved(ids[0], vec![address(9)]);
    planner.forget(&ids[0]);
    for _ in 0..30 {
        assert_eq!(planner.plan(&HashMap::new(), now).len(), 1);
        planner.finished(Target::Peer(ids[0]), Outcome::Failed, now);
        now += Duration::from_secs(40);
    }
}

#[test]
fn forged_announcements_fill_nothing_and_are_dialed_slowly() {
    let now = Instant::now();
    let mut planner = planner(1, 512);
    for n in 0..5_000 {
        let many = (0..100).map(|port| at([10, 1, 0, 1], 1 + port));
        planner.discovered(PeerId::random(), many.chain([address(n)]), Source::Mdns);
    }
    assert_eq!(planner.candidates.len(), MAX_PEERS);
    assert!(
        planner
            .candidates
            .values()
            .all(|known| known.addresses.len() <= MAX_ADDRESSES)
    );
    let mut dials = 0;
    for millis in (0..10_000).step_by(250) {
        for dial in planner.plan(&HashMap::new(), now + Duration::from_millis(millis)) {
            dials += 1;
            planner.finished(dial.target, Outcome::Failed, now + Duration::from_millis(millis));
        }
    }
    assert!(dials <= 44, "{dials} dials in ten seconds");
    let newcomer = PeerId::random();
    planner.discovered(newcomer, [address(7)], Source::Mdns);
    assert!(
        planner.candidates.contains_key(&Target::Peer(newcomer)),
        "one that failed made room"
    );
    assert_eq!(planner.candidates.len(), MAX_PEERS);
}

#[test]
fn what_only_kademlia_says_is_forgotten_after_some_failures() {
    let mut now = Instant::now();
    let peer = PeerId::random();
    let mut planner = planner(1, 64);
    planner.discovered(peer, [address(2)], Source::Kademlia);
    for _ in 0..100 {
        now += Duration::from_secs(40);
        for dial in planner.plan(&HashMap::new(), now) {
            planner.finished(dial.target, Outcome::Failed, now);
        }
    }
    assert!(planner.candidates.is_empty());
}

#[test]
fn agents_that_share_a_host_are_told_apart_by_what_they_say() {
    let now = Instant::now();
    let mut planner = planner(1, 64);
    let (one, other) = (at([10, 0, 0, 9], 20_000), at([10, 0, 0, 9], 20_008));
    planner.set_seeds([one, other]);
    let peer = PeerId::random();
    let mut links = HashMap::from([(
        peer,
        Link {
            sources: vec![one.ip()],
            ..Link::default()
        },
    )]);
    // Nobody knows yet which of the two it is.
    assert_eq!(seeds(&planner.plan(&links, now)), [one, other]);
    for target in [one, other] {
        planner.finished(Target::Seed(target), Outcome::Failed, now);
    }
    links.insert(
        peer,
        Link {
            sources: vec![one.ip()],
            transports: vec![Transport::Tcp],
            claimed: vec![one],
            member: true,
            ..Link::default()
        },
    );
    let later = now + Duration::from_secs(60);
    assert_eq!(seeds(&planner.plan(&links, later)), [other]);
}

#[test]
fn what_was_heard_first_is_what_counts() {
    let mut planner = planner(1, 64);
    let (peer, stranger) = (PeerId::random(), PeerId::random());
    planner.set_seeds([address(2)]);
    planner.discovered(peer, [address(3)], Source::Mdns);
    planner.discovered(peer, [address(3)], Source::Kademlia);
    planner.set_seeds([address(2), address(3)]);
    let mdns = Some(Heard::Peer(Source::Mdns));
    assert_eq!(planner.first_heard(&peer, &[address(3)]), mdns);
    assert_eq!(
        planner.first_heard(&peer, &[address(2)]),
        Some(Heard::Address(address(2)))
    );
    assert_eq!(
        planner.first_heard(&stranger, &[address(3)]),
        Some(Heard::Address(address(3)))
    );
    assert_eq!(planner.first_heard(&stranger, &[address(4)]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// With more agents than an agent may dial, it never holds more than its limit, picks the same ones again and
    /// again, and lets go of its choice only for the sake of those that came or went.
    #[test]
    fn dials_are_bounded_and_chosen_stably(own in 0_u16..200, count in 1_u16..200, limit in 1_usize..40) {
        let all: Vec<Address> = (0..count).map(address).collect();
        let others = usize::from(count) - usize::from(own < count);
        let first = connect_all(planner(own, limit), &all);
        prop_assert_eq!(first.len(), others.min(limit));
        prop_assert!(!first.contains(&address(own)));
        prop_assert_eq!(&first, &connect_all(planner(own, limit), &all));
    }

    /// Both ends of a pair give it the same weight.
    #[test]
    fn the_weight_of_a_pair_has_no_direction(a in any::<u16>(), b in any::<u16>()) {
        let ours = weight(PeerId::random(), Some(address(a)), &Target::Seed(address(b)));
        let theirs = weight(PeerId::random(), Some(address(b)), &Target::Seed(address(a)));
        prop_assert_eq!(ours, theirs);
    }
}

fn over(transport: Transport, n: u16) -> Address {
    let port = if transport == Transport::WebSocket {
        4002
    } else {
        4001
    };
    Address::new(transport, SocketAddr::new(address(n).ip(), port))
}

/// A member that is connected over TCP and says that it listens on these.
fn member_at(n: u16, claimed: &[Transport]) -> Link {
    Link {
        dialed: vec![address(n)],
        transports: vec![Transport::Tcp],
        claimed: claimed.iter().map(|transport| over(*transport, n)).collect(),
        member: true,
        ..Link::default()
    }
}

fn of_members(dials: Vec<Dial>) -> Vec<(PeerId, Transport, Vec<Address>)> {
    dials
        .into_iter()
        .filter_map(|Dial { target, addresses }| match target {
            Target::Member(peer, transport) => Some((peer, transport, addresses)),
            Target::Seed(_) | Target::Peer(_) => None,
        })
        .collect()
}

#[test]
fn a_member_is_dialed_over_each_further_transport_that_both_speak() {
    let now = Instant::now();
    let ids = ids(3);
    let low = Planner::new(ids[0], 64).speaking(&Transport::ALL, &[]);
    let mut high = Planner::new(ids[2], 64).speaking(&[Transport::Tcp, Transport::Quic], &[]);
    let mut low = low;
    let links = HashMap::from([(ids[1], member_at(2, &[Transport::Tcp, Transport::Quic]))]);
    let quic = (ids[1], Transport::Quic, vec![over(Transport::Quic, 2)]);
    assert_eq!(of_members(low.plan(&links, now)), vec![quic.clone()]);
    assert!(low.plan(&links, now).is_empty(), "it is under way");
    // The lower id dials at once, the other one only if nothing came.
    assert!(high.plan(&links, now).is_empty());
    assert_eq!(of_members(high.plan(&links, now + GRACE)), vec![quic.clone()]);

    low.finished(Target::Member(ids[1], Transport::Quic), Outcome::Connected, now);
    let mut connected = links.clone();
    if let Some(link) = connected.get_mut(&ids[1]) {
        link.transports.push(Transport::Quic);
    }
    assert!(low.plan(&connected, now).is_empty());
    assert_eq!(of_members(low.plan(&links, now)), [quic], "it was lost");
    low.finished(Target::Member(ids[1], Transport::Quic), Outcome::Failed, now);
    low.plan(&HashMap::new(), now);
    assert!(
        of_members(low.plan(&links, now)).len() == 1,
        "who left and came back starts anew"
    );
}

#[test]
fn strangers_and_our_own_first_connection_get_no_further_one() {
    let now = Instant::now();
    let ids = ids(2);
    let mut planner = Planner::new(ids[0], 64).speaking(&Transport::ALL, &[]);
    let stranger = Link {
        member: false,
        ..member_at(2, &Transport::ALL)
    };
    assert!(planner.plan(&HashMap::from([(ids[1], stranger)]), now).is_empty());
    let only_tcp = member_at(2, &[Transport::Tcp]);
    assert!(
        planner
            .plan(&HashMap::from([(ids[1], only_tcp)]), now + GRACE)
            .is_empty()
    );
}

#[test]
fn a_blocked_transport_is_tried_ever_slower_and_takes_no_turn_from_seeds() {
    let start = Instant::now();
    let mut peers = ids(65);
    let own = peers.remove(0);
    let mut planner = Planner::new(own, 128).speaking(&[Transport::Tcp, Transport::Quic], &[]);
    planner.own_address(address(0));
    let links: HashMap<PeerId, Link> = peers
        .iter()
        .zip(1..)
        .map(|(peer, n)| (*peer, member_at(n, &[Transport::Tcp, Transport::Quic])))
        .collect();
    // Each dial takes as long as a handshake may, and fails.
    let mut ends: Vec<(Instant, Target)> = Vec::new();
    let (mut dials, mut most) = (0, 0);
    for tick in 0..2_400_u32 {
        let now = start + Duration::from_millis(250) * tick;
        let ended = ends.extract_if(.., |(end, _)| *end <= now).collect::<Vec<_>>();
        for (_, target) in ended {
            planner.finished(target, Outcome::Failed, now);
        }
        for (peer, transport, _) in of_members(planner.plan(&links, now)) {
            dials += 1;
            ends.push((now + Duration::from_secs(5), Target::Member(peer, transport)));
        }
        most = most.max(ends.len());
    }
    assert!(most <= 16, "{most} at once");
    assert!(
        (600..=2_000).contains(&dials),
        "{dials} dials to 64 peers in ten minutes"
    );
    planner.set_seeds([address(500)]);
    let seeded = planner.plan(&links, start + Duration::from_secs(600));
    assert!(
        seeded
            .iter()
            .any(|dial| dial.target == Target::Seed(address(500))),
        "{seeded:?}"
    );
}

#[test]
fn where_the_first_transport_fails_the_others_have_their_turn() {
    let mut now = Instant::now();
    let ports = [
        (Transport::Tcp, 4001),
        (Transport::Quic, 4001),
        (Transport::WebSocket, 4002),
    ];
    let mut planner = Planner::new(PeerId::random(), 64).speaking(&Transport::ALL, &ports);
    planner.own_address(over(Transport::Quic, 1));
    planner.own_address(address(1));
    planner.set_seeds([address(1), address(2)]);
    let mut tried = Vec::new();
    while tried.len() < 4 {
        for dial in planner.plan(&HashMap::new(), now) {
            assert_eq!(dial.target, Target::Seed(address(2)));
            tried.extend(dial.addresses);
            planner.finished(dial.target, Outcome::Failed, now);
        }
        now += Duration::from_millis(250);
    }
    let in_turn = [
        Transport::Tcp,
        Transport::Quic,
        Transport::WebSocket,
        Transport::Tcp,
    ];
    assert_eq!(tried, in_turn.map(|transport| over(transport, 2)));
    // Connected over any of them, it is not looked for any more.
    let link = Link {
        dialed: vec![over(Transport::Quic, 2)],
        transports: vec![Transport::Quic],
        claimed: Vec::new(),
        member: true,
        ..Link::default()
    };
    let links = HashMap::from([(PeerId::random(), link)]);
    assert!(planner.plan(&links, now + CLAIM_GRACE * 2).is_empty());
}

#[test]
fn who_ends_each_connection_at_once_is_dialed_ever_more_rarely() {
    let mut planner = Planner::new(PeerId::random(), 64);
    let seed = Address::tcp(([192, 0, 2, 1], 4001).into());
    planner.set_seeds([seed]);
    let start = Instant::now();
    let mut dialed = 0;
    for tick in 0..4 * 60 {
        let now = start + Duration::from_millis(250) * tick;
        for dial in planner.plan(&HashMap::new(), now) {
            dialed += 1;
            planner.finished(dial.target, Outcome::Connected, now);
            planner.finished(dial.target, Outcome::Failed, now);
        }
    }
    assert!((10..=20).contains(&dialed), "{dialed} dials in a minute");
}

#[test]
fn who_ends_each_further_connection_at_once_is_dialed_ever_more_rarely_over_that_transport() {
    let (start, ids) = (Instant::now(), ids(2));
    let mut planner = Planner::new(ids[0], 64).speaking(&[Transport::Tcp, Transport::Quic], &[]);
    let links = HashMap::from([(ids[1], member_at(2, &[Transport::Tcp, Transport::Quic]))]);
    let mut dialed = 0;
    for tick in 0..4 * 60 {
        let now = start + Duration::from_millis(250) * tick;
        for dial in planner.plan(&links, now) {
            dialed += 1;
            planner.finished(dial.target, Outcome::Connected, now);
            planner.finished(dial.target, Outcome::Failed, now);
        }
    }
    assert!((4..=10).contains(&dialed), "{dialed} dials in a minute");
}
