use peernet_api::report::{NetworkReport, Path, StampClock};
use proptest::prelude::*;

use super::*;
use crate::{host::tcp::Socket, ping::Failure};

const WINDOW: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn member(n: u8) -> Member {
    let name = format!("mesh-{n}");
    let secret = peernet_api::identity::NetworkSecret::new(&[9; 32]).unwrap();
    Member {
        peer: secret.peer_id(&name),
        name: name.into(),
        instance: None,
        found_by: FoundBy::Mdns,
        link: None,
        path: Path::Direct,
        relay: None,
        transports: vec![Transport::Tcp],
    }
}

fn ledger_of(members: &[Member]) -> Ledger {
    let mut ledger = Ledger::new(WINDOW, &[Transport::Tcp]);
    ledger.set_members(members, Duration::ZERO);
    ledger
}

fn cold(result: Result<Duration, Failure>) -> News {
    News::Cold {
        result,
        host_limited: false,
    }
}

/// A probe that was sent when it came to its end, as far as the ledger cares.
fn record(ledger: &mut Ledger, member: &Member, result: Result<Duration, Failure>, at: Moment) {
    ledger.record(&member.peer, Over::Direct(Transport::Tcp), cold(result), at, at);
}

fn result() -> impl Strategy<Value = Result<Duration, Failure>> {
    prop_oneof![
        6 => (10_000_u64..5_000_000_000).prop_map(|nanos| Ok(Duration::from_nanos(nanos))),
        1 => Just(Err(Failure::Timeout)),
        1 => prop_oneof![Just(Failure::Reset), Just(Failure::Unsupported), Just(Failure::Closed)].prop_map(Err),
        1 => Just(Err(Failure::Unheard)),
    ]
}

fn news() -> impl Strategy<Value = News> {
    prop_oneof![
        3 => (result(), any::<bool>()).prop_map(|(result, host_limited)| News::Cold { result, host_limited }),
        1 => (1_000_u64..5_000_000_000).prop_map(|nanos| News::Warm(Duration::from_nanos(nanos))),
    ]
}

/// The row that the samples make, worked out anew from all of them.
fn expected<'a>(samples: impl Iterator<Item = &'a (u8, Moment, News)>, now: Moment) -> PeerReport {
    let mut row = PeerReport::default();
    let age = |at: Moment| Some(millis(now - at));
    for (_, at, news) in samples {
        let (result, host_limited) = match *news {
            News::Warm(rtt) => {
                row.warm.record(nanos(rtt));
                continue;
            }
            News::Cold { result, host_limited } => (result, host_limited),
        };
        row.host_limited += u64::from(host_limited);
        match result {
            Ok(rtt) => {
                row.answered += 1;
                row.rtt.record(nanos(rtt));
                row.newest_sample_age_millis = age(*at);
            }
            Err(Failure::Timeout) => row.timed_out += 1,
            Err(Failure::Unheard) => continue,
            Err(_) => row.failed += 1,
        }
        row.newest_probe_age_millis = age(*at);
    }
    row
}

proptest! {
    /// Whatever was probed: the rows are those of the samples in the window, no more and no less.
    #[test]
    fn rows_are_exactly_the_samples_of_the_window(
        steps in prop::collection::vec((0_u64..8_000, 0_u8..3, news()), 1..400),
        wait in 0_u64..150_000,
    ) {
        let members: Vec<Member> = (0..3).map(member).collect();
        let mut ledger = ledger_of(&members);
        let mut now = Duration::ZERO;
        let mut samples = Vec::new();
        for (pause, who, news) in steps {
            now += Duration::from_millis(pause);
            ledger.record(&members[usize::from(who)].peer, Over::Direct(Transport::Tcp), news, now, now);
            samples.push((who, now, news));
        }
        now += Duration::from_millis(wait);
        let slot = WINDOW / 10;
        let kept = |at: Duration| at.as_nanos() / slot.as_nanos() + 10 > now.as_nanos() / slot.as_nanos();
        // What the rule above keeps: everything of the last nine tenths, nothing older than the window.
        for (_, at, _) in &samples {
            let age = now - *at;
            prop_assert!(!kept(*at) || age < WINDOW);
            prop_assert!(kept(*at) || age > WINDOW * 9 / 10);
        }
        for (who, row) in (0_u8..).zip(ledger.rows(now)) {
            let mine = samples.iter().filter(|(other, at, _)| *other == who && kept(*at));
            let member = &members[usize::from(who)];
            let expected = PeerReport {
                peer_id: member.peer.to_string(),
                name: member.name.to_string(),
                connected: true,
                path: Some(Path::Direct),
                found_by: Some(FoundBy::Mdns),
                ..expected(mine, now)
            };
            prop_assert_eq!(row, expected);
        }
    }

    /// The counters of `/metrics` count every probe once, for ever.
    #[test]
    fn totals_count_everything_once(results in prop::collection::vec(result(), 0..300)) {
        let members = [member(0)];
        let mut ledger = ledger_of(&members);
        for (n, result) in (0_u32..).zip(&results) {
            record(&mut ledger, &members[0], *result, SECOND * n * 10);
        }
        let Totals { rtt, timed_out, reset, unsupported, closed, unheard, .. } = ledger.totals().clone();
        let failed = reset + unsupported + closed;
        prop_assert_eq!(rtt.count() + timed_out + failed + unheard, results.len() as u64);
        let sum: f64 = results.iter().flatten().map(Duration::as_secs_f64).sum();
        prop_assert!((rtt.sum - sum).abs() < 1e-6);
        for (at, bound) in TimeBuckets::BOUNDS.iter().enumerate() {
            let below: u64 = rtt.counts[..=at].iter().sum();
            let exact = results.iter().flatten().filter(|rtt| rtt.as_secs_f64() <= *bound).count();
            prop_assert_eq!(below, exact as u64);
        }
    }
}

#[test]
fn nothing_measured_is_unknown_and_not_zero() {
    let mut ledger = ledger_of(&[member(0)]);
    let row = &ledger.rows(SECOND)[0];
    assert_eq!((row.newest_probe_age_millis, row.retransmitted), (None, None));
    assert_eq!(row.network, None);
    record(&mut ledger, &member(0), Err(Failure::Timeout), SECOND);
    let row = &ledger.rows(SECOND)[0];
    assert_eq!(
        (row.newest_sample_age_millis, row.rtt.quantile(500)),
        (None, None)
    );
    assert_eq!((row.answered, row.timed_out), (0, 1));
    let host = ledger.host(SECOND);
    assert_eq!((host.cpu_micros, host.throttled_micros), (None, None));
}

#[test]
fn a_member_that_left_leaves_the_ledger_after_one_window_with_all_its_samples() {
    let members = [member(0), member(1)];
    let mut ledger = ledger_of(&members);
    record(&mut ledger, &members[1], Ok(SECOND), SECOND);
    ledger.set_members(&members[..1], SECOND * 2);
    let row = ledger.rows(SECOND * 3)[1].clone();
    assert_eq!((row.connected, row.answered), (false, 1));
    ledger.set_members(&members[..1], SECOND * 101);
    assert_eq!(ledger.rows(SECOND * 101).len(), 2);
    ledger.set_members(&members[..1], SECOND * 102);
    assert_eq!(ledger.rows(SECOND * 102).len(), 1);
    ledger.set_members(&members, SECOND * 103);
    assert_eq!(ledger.rows(SECOND * 103)[1].answered, 0);
}

#[test]
fn a_member_that_comes_back_keeps_its_row() {
    let members = [member(0)];
    let mut ledger = ledger_of(&members);
    record(&mut ledger, &members[0], Ok(SECOND), SECOND);
    ledger.set_members(&[], SECOND * 2);
    assert_eq!(ledger.connected(), 0);
    ledger.set_members(&members, SECOND * 50);
    let row = &ledger.rows(SECOND * 50)[0];
    assert_eq!(
        (row.connected, row.answered, row.newest_sample_age_millis),
        (true, 1, Some(49_000))
    );
}

#[test]
fn a_restarted_member_starts_with_an_empty_row() {
    let start = |instance| Member {
        instance,
        ..member(0)
    };
    let (first, second) = (Some(Instance::random()), Some(Instance::random()));
    let mut ledger = ledger_of(&[start(first)]);
    record(&mut ledger, &member(0), Ok(SECOND), SECOND);
    ledger.record_stamp(&member(0).peer, StampNews::Sample(sample(5, 5, 5)), SECOND);
    ledger.set_members(&[start(first)], SECOND * 2);
    assert_eq!(ledger.rows(SECOND * 2)[0].answered, 1);
    ledger.set_members(&[start(second)], SECOND * 3);
    let row = ledger.rows(SECOND * 3)[0].clone();
    assert_eq!(
        (row.answered, row.network, row.newest_probe_age_millis),
        (0, None, None)
    );
    // A probe of the process before, which nobody is left to answer.
    ledger.record(
        &member(0).peer,
        Over::Direct(Transport::Tcp),
        cold(Err(Failure::Timeout)),
        SECOND * 2,
        SECOND * 4,
    );
    // A STAMP answer from it, of which the rest was told later.
    ledger.record_stamp(&member(0).peer, StampNews::Sample(sample(5, 5, 5)), SECOND * 2);
    let row = &ledger.rows(SECOND * 4)[0];
    assert_eq!((row.timed_out, ledger.totals().timed_out), (0, 0));
    assert_eq!((row.network.clone(), ledger.totals().stamp.answered), (None, 1));
    assert_eq!(ledger.unknown(), 0);
    // One that does not say which start it is, is another one, too.
    record(&mut ledger, &member(0), Ok(SECOND), SECOND * 5);
    ledger.set_members(&[member(0)], SECOND * 6);
    assert_eq!(ledger.rows(SECOND * 6)[0].answered, 0);
}

#[test]
fn outcomes_of_peers_that_are_not_known_are_in_no_number_but_are_counted() {
    let mut ledger = ledger_of(&[member(0)]);
    record(&mut ledger, &member(1), Ok(SECOND), SECOND);
    ledger.record_stamp(&member(1).peer, StampNews::Voided, SECOND);
    let totals = ledger.totals();
    assert_eq!(
        (totals.rtt.count(), totals.stamp.voided, ledger.unknown()),
        (0, 0, 2)
    );
}

#[test]
fn each_transport_has_numbers_of_its_own_and_the_first_ones_are_the_rows() {
    let mut ledger = Ledger::new(WINDOW, &[Transport::Quic, Transport::Tcp]);
    let over = |transports: &[Transport]| Member {
        transports: transports.to_vec(),
        ..member(0)
    };
    ledger.set_members(&[over(&[Transport::Tcp, Transport::Quic])], Duration::ZERO);
    let peer = member(0).peer;
    for (transport, result) in [
        (Transport::Quic, Ok(SECOND)),
        (Transport::Tcp, Ok(SECOND * 2)),
        (Transport::Tcp, Err(Failure::Timeout)),
        // Not one of this agent's.
        (Transport::WebSocket, Ok(SECOND)),
    ] {
        ledger.record(&peer, Over::Direct(transport), cold(result), SECOND, SECOND * 3);
    }
    ledger.record(
        &peer,
        Over::Direct(Transport::Tcp),
        News::Warm(SECOND),
        SECOND,
        SECOND * 3,
    );
    let row = ledger.rows(SECOND * 4)[0].clone();
    assert_eq!((row.answered, row.timed_out, row.first_connected), (1, 0, None));
    assert_eq!(row.rtt.quantile(500).map(|nanos| nanos / 100_000_000), Some(10));
    let [tcp] = row.transports.as_slice() else {
        panic!("{:?}", row.transports);
    };
    assert_eq!((tcp.transport, tcp.connected), (Transport::Tcp, true));
    assert_eq!(
        (tcp.answered, tcp.timed_out, tcp.failed, tcp.warm.count()),
        (1, 1, 0, 1)
    );
    assert_eq!(tcp.newest_sample_age_millis, Some(1_000));
    assert_eq!(ledger.totals().rtt.count(), 1);
    assert_eq!(ledger.totals().further[&Transport::Tcp].timed_out, 1);
    assert_eq!(ledger.unknown(), 0);

    ledger.set_members(&[over(&[Transport::Tcp])], SECOND * 5);
    let row = ledger.rows(SECOND * 5)[0].clone();
    assert_eq!(
        (row.connected, row.first_connected, row.transports[0].connected),
        (true, Some(false), true)
    );
    ledger.set_members(&[], SECOND * 6);
    let row = ledger.rows(SECOND * 6)[0].clone();
    assert_eq!(
        (row.connected, row.first_connected, row.transports[0].connected),
        (false, None, false)
    );
    assert_eq!(
        row.transports[0].answered, 1,
        "what was measured stays for its window"
    );
}

#[test]
fn rows_are_bounded_and_who_is_away_makes_room() {
    let stranger = |name: String| Member {
        peer: PeerId::random(),
        name: name.into(),
        instance: None,
        found_by: FoundBy::Mdns,
        link: None,
        path: Path::Direct,
        relay: None,
        transports: vec![Transport::Tcp],
    };
    let crowd: Vec<Member> = (0..MAX_PEERS).map(|n| stranger(format!("old-{n}"))).collect();
    let mut ledger = ledger_of(&crowd);
    let late = [stranger("late".to_owned())];
    let all: Vec<Member> = crowd.iter().chain(&late).cloned().collect();
    ledger.set_members(&all, SECOND);
    assert_eq!(ledger.rows(SECOND).len(), MAX_PEERS);
    assert!(ledger.rows(SECOND).iter().all(|row| row.name != "late"));
    let rest: Vec<Member> = crowd[1..].iter().chain(&late).cloned().collect();
    ledger.set_members(&rest, SECOND * 2);
    ledger.set_members(&rest, SECOND * 3);
    let rows = ledger.rows(SECOND * 3);
    assert_eq!(rows.len(), MAX_PEERS);
    assert!(rows.iter().any(|row| row.name == "late"));
    assert!(rows.iter().all(|row| row.name != "old-0"));
}

/// A sample of the kernel's clock, with these times in microseconds.
fn sample(network: u64, own_host: u64, peer_host: u64) -> StampSample {
    StampSample {
        clock: StampClock::Kernel,
        network: Duration::from_micros(network),
        own_host: Duration::from_micros(own_host),
        peer_host: Duration::from_micros(peer_host),
        lateness: Duration::ZERO,
    }
}

fn stamp(ledger: &mut Ledger, news: impl IntoIterator<Item = StampNews>, at: Moment) {
    for news in news {
        ledger.record_stamp(&member(0).peer, news, at);
    }
}

fn network(ledger: &Ledger, now: Moment) -> NetworkReport {
    ledger.rows(now)[0].network.clone().unwrap()
}

fn histogram(micros: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    for micros in micros {
        histogram.record(micros * 1000);
    }
    histogram
}

#[test]
fn a_kernel_s_sample_keeps_its_network_time_however_late_the_hosts_were() {
    let mut ledger = ledger_of(&[member(0)]);
    let late_timer = StampSample {
        lateness: Duration::from_micros(3_001),
        ..sample(43, 7, 9)
    };
    stamp(
        &mut ledger,
        [
            sample(40, 100, 60),
            sample(41, 20, 80_000),
            sample(42, 4_000, 3_000),
            late_timer,
        ]
        .map(StampNews::Sample),
        SECOND,
    );
    let report = network(&ledger, SECOND * 2);
    assert_eq!((report.sent, report.answered, report.host_limited), (4, 4, 3));
    assert_eq!(report.clock, StampClock::Kernel);
    assert_eq!(report.rtt, histogram(&[40, 41, 42, 43]));
    assert_eq!(report.hosts, histogram(&[160, 80_020, 7_000, 16]));
    assert_eq!(report.peer_host, histogram(&[60, 80_000, 3_000, 9]));
    assert_eq!(ledger.host(SECOND * 2).delay, histogram(&[100, 20, 4_000, 7]));
    assert_eq!(
        (report.newest_sample_age_millis, report.newest_probe_age_millis),
        (Some(1_000), Some(1_000))
    );
    let totals = ledger.totals();
    assert_eq!((totals.network.count(), totals.host_delay.count()), (4, 4));
    assert_eq!((totals.host_limited, totals.stamp.answered), (3, 4));
}

#[test]
fn a_program_s_stamp_counts_only_if_no_host_was_late_and_says_nothing_of_hosts() {
    let mut ledger = ledger_of(&[member(0)]);
    let of_program = |sample| {
        StampNews::Sample(StampSample {
            clock: StampClock::UserSpace,
            ..sample
        })
    };
    stamp(
        &mut ledger,
        [
            of_program(sample(50, 0, 10)),
            of_program(sample(9_000, 0, 3_001)),
            StampNews::Sample(sample(40, 1, 2)),
        ],
        SECOND,
    );
    let report = network(&ledger, SECOND);
    assert_eq!(report.clock, StampClock::UserSpace, "the worst of all");
    assert_eq!((report.answered, report.host_limited), (3, 1));
    assert_eq!(report.rtt, histogram(&[50, 40]));
    assert_eq!(report.hosts, histogram(&[3]));
    assert_eq!(ledger.host(SECOND).delay, histogram(&[1]));
}

#[test]
fn a_loss_moves_to_its_direction_when_that_is_known_and_never_below_zero() {
    let mut ledger = ledger_of(&[member(0)]);
    let located = |forward| StampNews::Located { forward };
    stamp(&mut ledger, [StampNews::LostUndirected; 3], SECOND);
    stamp(&mut ledger, [StampNews::LostForward], SECOND * 2);
    stamp(&mut ledger, [located(true), located(false)], SECOND * 25);
    let losses = |report: NetworkReport| (report.lost_forward, report.lost_backward, report.lost_undirected);
    let report = network(&ledger, SECOND * 25);
    assert_eq!(report.sent, 4);
    assert_eq!(losses(report), (2, 1, 1));
    // More than were lost, and then ones that have left the window.
    stamp(&mut ledger, [located(true), located(true)], SECOND * 26);
    assert_eq!(losses(network(&ledger, SECOND * 26)), (3, 1, 0));
    stamp(&mut ledger, [StampNews::LostUndirected], SECOND * 30);
    stamp(
        &mut ledger,
        [StampNews::LostBackward, located(true)],
        SECOND * 150,
    );
    assert_eq!(losses(network(&ledger, SECOND * 150)), (0, 1, 0));
    // The counters only grow: each probe once, and what was learned later apart from that.
    let totals = ledger.totals().stamp;
    assert_eq!(
        (totals.lost_forward, totals.lost_backward, totals.lost_undirected),
        (1, 1, 4)
    );
    assert_eq!((totals.located_forward, totals.located_backward), (4, 1));
}

#[test]
fn answers_that_are_no_sample_are_counted_apart() {
    let mut ledger = ledger_of(&[member(0)]);
    stamp(
        &mut ledger,
        [StampNews::Voided, StampNews::Duplicated, StampNews::Reordered],
        SECOND,
    );
    let report = network(&ledger, SECOND * 3);
    assert_eq!((report.sent, report.answered, report.voided), (1, 1, 1));
    assert_eq!((report.duplicated, report.reordered), (1, 1));
    assert_eq!(report.newest_sample_age_millis, None);
    assert_eq!(report.newest_probe_age_millis, Some(2_000));
    // When all of it has left the window, the network is unknown again.
    assert_eq!(ledger.rows(SECOND * 120)[0].network, None);
}

#[test]
fn retransmissions_are_those_since_the_last_look_also_on_a_new_connection() {
    let link: SocketAddr = "10.0.0.7:4001".parse().unwrap();
    let members = [Member {
        link: Some(link),
        ..member(0)
    }];
    let mut ledger = ledger_of(&members);
    let mut look = |inode, retransmitted, at| {
        let sockets = Sockets::from([(link, Socket { inode, retransmitted })]);
        ledger.record_sockets(&members, &sockets, at);
        (ledger.rows(at)[0].retransmitted, ledger.totals().retransmitted)
    };
    assert_eq!(look(1, 0, SECOND), (Some(0), 0));
    assert_eq!(look(1, 4, SECOND * 2), (Some(4), 4));
    // One of them was needless, as the other end says later: the next one is not counted in its place.
    assert_eq!(look(1, 3, SECOND * 3), (Some(4), 4));
    assert_eq!(look(1, 4, SECOND * 3), (Some(4), 4));
    assert_eq!(look(2, 3, SECOND * 4), (Some(7), 7));
    assert_eq!(look(2, 5, SECOND * 130), (Some(2), 9));
    ledger.record_sockets(&members, &Sockets::new(), SECOND * 300);
    assert_eq!(ledger.rows(SECOND * 300)[0].retransmitted, None);
}

#[test]
fn the_host_s_doings_are_those_of_the_window() {
    let mut ledger = ledger_of(&[]);
    let usage = Usage {
        cpu: Some(Duration::from_micros(7)),
        throttled_periods: Some(2),
        throttled: Some(Duration::from_millis(80)),
        run_delay: None,
    };
    ledger.record_usage(&usage, SECOND);
    ledger.record_usage(&usage, SECOND * 60);
    ledger.record_loop_lag(Duration::from_micros(900), SECOND);
    ledger.record_loop_lag(Duration::from_micros(100), SECOND * 60);
    let host = ledger.host(SECOND * 61);
    assert_eq!((host.cpu_micros, host.run_delay_micros), (Some(14), None));
    assert_eq!(
        (host.throttled_micros, host.throttled_periods),
        (Some(160_000), Some(4))
    );
    assert_eq!(host.loop_lag, histogram(&[900, 100]));
    let host = ledger.host(SECOND * 120);
    assert_eq!((host.cpu_micros, host.throttled_periods), (Some(7), Some(2)));
    assert_eq!(host.loop_lag, histogram(&[100]));
    assert_eq!(ledger.totals().host.cpu, Some(Duration::from_micros(14)));
}

#[test]
fn what_went_through_a_relay_is_in_no_other_number() {
    let mut ledger = Ledger::new(WINDOW, &[Transport::Tcp]);
    let through = Member {
        path: Path::Relayed,
        transports: Vec::new(),
        relay: Some("mesh-9".into()),
        ..member(0)
    };
    ledger.set_members(std::slice::from_ref(&through), SECOND);
    let peer = through.peer;
    let mut probe = |over, result| ledger.record(&peer, over, cold(result), SECOND, SECOND);
    probe(Over::Circuit, Ok(SECOND / 500));
    probe(Over::Circuit, Err(Failure::Timeout));
    probe(Over::Circuit, Err(Failure::Closed));
    probe(Over::Direct(Transport::Tcp), Ok(SECOND / 1000));
    ledger.record(&peer, Over::Circuit, News::Warm(SECOND / 800), SECOND, SECOND);
    let row = ledger.rows(SECOND * 2)[0].clone();
    assert_eq!((row.answered, row.timed_out, row.failed), (1, 0, 0));
    assert_eq!((row.rtt.count(), row.warm.count()), (1, 0));
    let relayed = row.relayed.unwrap();
    assert_eq!((relayed.answered, relayed.timed_out, relayed.failed), (1, 1, 1));
    assert_eq!((relayed.rtt.count(), relayed.warm.count()), (1, 1));
    assert_eq!(relayed.newest_sample_age_millis, Some(1_000));
    assert_eq!(
        (row.path, row.relay.as_deref()),
        (Some(Path::Relayed), Some("mesh-9"))
    );
    let totals = ledger.totals();
    assert_eq!((totals.relayed.count(), totals.rtt.count()), (1, 1));
    assert_eq!(
        (totals.relayed_timed_out, totals.relayed_failed, totals.timed_out),
        (1, 1, 0)
    );
    assert_eq!(ledger.relayed(), 1);

    // A direct connection stands, and then none at all.
    ledger.set_members(&[member(0)], SECOND * 3);
    let row = ledger.rows(SECOND * 3)[0].clone();
    assert_eq!((row.path, row.relay), (Some(Path::Direct), None));
    assert_eq!(row.relayed.unwrap().answered, 1);
    ledger.set_members(&[], SECOND * 4);
    let row = ledger.rows(SECOND * 4)[0].clone();
    assert_eq!((row.connected, row.path), (false, None));
    // Beyond the window, nothing is said of relays.
    ledger.set_members(&[member(0)], SECOND * 5);
    assert_eq!(ledger.rows(SECOND * 300)[0].relayed, None);
}
