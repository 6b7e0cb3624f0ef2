use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn member(n: u8) -> Member {
    let name = format!("mesh-{n}");
    let secret = peernet_api::identity::NetworkSecret::new(&[9; 32]).unwrap();
    Member {
        peer: secret.peer_id(&name),
        name: name.into(),
    }
}

fn ledger_of(members: &[Member]) -> Ledger {
    let mut ledger = Ledger::new(WINDOW);
    ledger.set_members(members, Duration::ZERO);
    ledger
}

fn result() -> impl Strategy<Value = Result<Duration, Failure>> {
    prop_oneof![
        6 => (10_000_u64..5_000_000_000).prop_map(|nanos| Ok(Duration::from_nanos(nanos))),
        1 => Just(Err(Failure::Timeout)),
        1 => prop_oneof![Just(Failure::Reset), Just(Failure::Unsupported), Just(Failure::Closed)].prop_map(Err),
    ]
}

proptest! {
    /// Whatever was probed: the rows are those of the samples in the window, no more and no less.
    #[test]
    fn rows_are_exactly_the_samples_of_the_window(
        steps in prop::collection::vec((0_u64..8_000, 0_u8..3, result()), 1..400),
        wait in 0_u64..150_000,
    ) {
        let members: Vec<Member> = (0..3).map(member).collect();
        let mut ledger = ledger_of(&members);
        let mut now = Duration::ZERO;
        let mut samples = Vec::new();
        for (pause, who, result) in steps {
            now += Duration::from_millis(pause);
            ledger.record(&members[usize::from(who)].peer, result, now);
            samples.push((who, now, result));
        }
        now += Duration::from_millis(wait);
        let slot = WINDOW / 10;
        let kept = |at: Duration| at.as_nanos() / slot.as_nanos() + 10 > now.as_nanos() / slot.as_nanos();
        for (who, row) in (0_u8..).zip(ledger.rows(now)) {
            let mine: Vec<_> = samples.iter().filter(|(other, at, _)| *other == who && kept(*at)).collect();
            // What the rule above keeps: everything of the last nine tenths, nothing older than the window.
            for (other, at, _) in &samples {
                if *other == who {
                    let age = now - *at;
                    prop_assert!(!kept(*at) || age < WINDOW);
                    prop_assert!(kept(*at) || age > WINDOW * 9 / 10);
                }
            }
            let mut exact = Histogram::new();
            let mut newest = None;
            let (mut timed_out, mut failed) = (0, 0);
            for (_, at, result) in mine {
                match result {
                    Ok(rtt) => {
                        exact.record(u64::try_from(rtt.as_nanos()).unwrap());
                        newest = Some(*at);
                    }
                    Err(Failure::Timeout) => timed_out += 1,
                    Err(_) => failed += 1,
                }
            }
            prop_assert_eq!(&row.name, &*members[usize::from(who)].name);
            prop_assert_eq!(row.answered, exact.count());
            prop_assert_eq!(row.rtt, exact);
            prop_assert_eq!((row.timed_out, row.failed), (timed_out, failed));
            prop_assert_eq!(row.newest_sample_age_millis, newest.map(|at| millis(now - at)));
        }
    }

    /// The counters of `/metrics` count every probe once, for ever.
    #[test]
    fn totals_count_everything_once(results in prop::collection::vec(result(), 0..300)) {
        let members = [member(0)];
        let mut ledger = ledger_of(&members);
        for (n, result) in (0_u32..).zip(&results) {
            ledger.record(&members[0].peer, *result, SECOND * n * 10);
        }
        let Totals { rtt, timed_out, reset, unsupported, closed } = ledger.totals().clone();
        prop_assert_eq!(rtt.count() + timed_out + reset + unsupported + closed, results.len() as u64);
        let sum: f64 = results.iter().flatten().map(Duration::as_secs_f64).sum();
        prop_assert!((rtt.sum - sum).abs() < 1e-6);
        for (at, bound) in RttBuckets::BOUNDS.iter().enumerate() {
            let below: u64 = rtt.counts[..=at].iter().sum();
            let exact = results.iter().flatten().filter(|rtt| rtt.as_secs_f64() <= *bound).count();
            prop_assert_eq!(below, exact as u64);
        }
    }
}

#[test]
fn nothing_measured_is_unknown_and_not_zero() {
    let mut ledger = ledger_of(&[member(0)]);
    ledger.record(&member(0).peer, Err(Failure::Timeout), SECOND);
    let row = &ledger.rows(SECOND)[0];
    assert_eq!(
        (row.newest_sample_age_millis, row.rtt.quantile(500)),
        (None, None)
    );
    assert_eq!((row.answered, row.timed_out), (0, 1));
}

#[test]
fn a_member_that_left_leaves_the_ledger_after_one_window_with_all_its_samples() {
    let members = [member(0), member(1)];
    let mut ledger = ledger_of(&members);
    ledger.record(&members[1].peer, Ok(SECOND), SECOND);
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
    ledger.record(&members[0].peer, Ok(SECOND), SECOND);
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
fn outcomes_of_peers_that_are_not_known_are_in_no_number_but_are_counted() {
    let mut ledger = ledger_of(&[member(0)]);
    ledger.record(&member(1).peer, Ok(SECOND), SECOND);
    assert_eq!((ledger.totals().rtt.count(), ledger.unknown()), (0, 1));
}

#[test]
fn rows_are_bounded_and_who_is_away_makes_room() {
    let crowd: Vec<Member> = (0..MAX_PEERS)
        .map(|n| Member {
            peer: PeerId::random(),
            name: format!("old-{n}").into(),
        })
        .collect();
    let mut ledger = ledger_of(&crowd);
    let late = [Member {
        peer: PeerId::random(),
        name: "late".into(),
    }];
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
