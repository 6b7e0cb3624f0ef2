use peernet_api::{
    identity::NetworkSecret,
    v1alpha1::{ReportOutcome, Workload},
};
use proptest::prelude::*;

use super::*;
use crate::{reports::tests::report, roster::roster};

const PROBE: ProbeSettings = ProbeSettings {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(2),
    peers_per_node: 64,
};

fn members(count: i32) -> Roster {
    roster(
        "mesh",
        Workload::StatefulSet,
        count,
        Some(&NetworkSecret::new(&[5; 32]).unwrap()),
        &[],
    )
}

fn view(roster: &Roster, peer: usize, rtts_micros: &[u64]) -> PeerReport {
    let mut rtt = Histogram::new();
    rtts_micros.iter().for_each(|micros| rtt.record(micros * 1_000));
    PeerReport {
        peer_id: roster.members[peer].peer_id.clone().unwrap(),
        name: roster.members[peer].name.clone(),
        connected: true,
        answered: rtts_micros.len() as u64,
        newest_sample_age_millis: Some(400),
        rtt,
        ..PeerReport::default()
    }
}

fn from(roster: &Roster, member: usize, peers: Vec<PeerReport>) -> Pulled {
    Ok(Report {
        peers,
        ..report(&roster.members[member].name)
    })
}

#[test]
fn a_full_mesh_is_merged_and_its_worst_link_named() {
    let roster = members(2);
    let pulled = [
        from(&roster, 0, vec![view(&roster, 1, &[100, 100, 100])]),
        from(&roster, 1, vec![view(&roster, 0, &[100, 100, 5_000])]),
    ];
    let got = measure(&roster, &pulled, PROBE);
    assert_eq!(
        (got.expected_peers, got.fewest_connected, got.missing_links_total),
        (1, Some(1), 0)
    );
    let rtt = got.rtt.unwrap();
    assert_eq!(rtt.samples, 6);
    assert!(
        (99..=101).contains(&rtt.p50_micros) && (4_950..=5_050).contains(&rtt.p99_micros),
        "{rtt:?}"
    );
    assert_eq!(
        (got.worst_links[0].from.as_str(), got.worst_links[0].to.as_str()),
        ("mesh-1", "mesh-0")
    );
    assert_eq!(got.loss_ppm, Some(0));
    assert_eq!(got.newest_sample_age, Some(Duration::from_millis(400)));
}

#[test]
fn without_reports_nothing_is_known() {
    let got = measure(
        &members(2),
        &[Err(ReportOutcome::TimedOut), Err(ReportOutcome::WrongPeer)],
        PROBE,
    );
    assert_eq!(
        (got.rtt, got.loss_ppm, got.fewest_connected, got.newest_sample_age),
        (None, None, None, None)
    );
    assert_eq!(got.missing_links_total, 0);
}

#[test]
fn a_node_that_does_not_report_is_missed_by_the_others_and_not_counted_as_zero() {
    let roster = members(3);
    let pulled = [
        from(&roster, 0, vec![view(&roster, 1, &[100])]),
        from(&roster, 1, vec![view(&roster, 0, &[100])]),
        Err(ReportOutcome::TimedOut),
    ];
    let got = measure(&roster, &pulled, PROBE);
    assert_eq!((got.fewest_connected, got.expected_peers), (Some(1), 2));
    assert_eq!(
        got.missing_links,
        [
            ("mesh-0".to_owned(), "mesh-2".to_owned()),
            ("mesh-1".to_owned(), "mesh-2".to_owned())
        ]
    );
}

#[test]
fn strangers_and_former_members_are_in_no_number() {
    let roster = members(2);
    let stranger = PeerReport {
        name: "mesh-9".into(),
        ..view(&roster, 1, &[9_000])
    };
    let impostor = PeerReport {
        peer_id: "12D3".into(),
        ..view(&roster, 1, &[9_000])
    };
    let pulled = [
        from(&roster, 0, vec![stranger, impostor]),
        from(&roster, 1, vec![view(&roster, 0, &[100])]),
    ];
    let got = measure(&roster, &pulled, PROBE);
    assert_eq!(got.rtt.unwrap().samples, 1);
    assert_eq!(got.fewest_connected, Some(0));
}

#[test]
fn old_samples_are_not_shown_as_fresh_and_their_losses_stay() {
    let roster = members(2);
    let old = PeerReport {
        connected: false,
        timed_out: 3,
        newest_sample_age_millis: Some(5_001),
        ..view(&roster, 1, &[100])
    };
    let got = measure(
        &roster,
        &[from(&roster, 0, vec![old]), Err(ReportOutcome::TimedOut)],
        PROBE,
    );
    assert_eq!(
        (got.rtt, got.newest_sample_age, got.loss_ppm),
        (None, None, Some(750_000))
    );
}

#[test]
fn a_peer_listed_twice_counts_once() {
    let roster = members(2);
    let twice = from(
        &roster,
        0,
        vec![view(&roster, 1, &[100]), view(&roster, 1, &[100])],
    );
    let got = measure(&roster, &[twice, Err(ReportOutcome::TimedOut)], PROBE);
    assert_eq!((got.rtt.unwrap().samples, got.fewest_connected), (1, Some(1)));
}

#[test]
fn in_a_sampled_mesh_no_single_link_is_missing() {
    let roster = members(4);
    let probe = ProbeSettings {
        peers_per_node: 2,
        ..PROBE
    };
    let pulled = [
        from(&roster, 0, vec![view(&roster, 1, &[1]), view(&roster, 2, &[1])]),
        from(&roster, 1, vec![view(&roster, 0, &[1])]),
        Err(ReportOutcome::TimedOut),
        Err(ReportOutcome::TimedOut),
    ];
    let got = measure(&roster, &pulled, probe);
    assert_eq!(
        (got.expected_peers, got.fewest_connected, got.missing_links_total),
        (2, Some(1), 0)
    );
}

proptest! {
    #[test]
    fn the_order_of_members_changes_no_number(
        rtts in prop::collection::vec(prop::collection::vec(1_u64..60_000_000, 0..40), 6),
        missing in prop::collection::vec(any::<bool>(), 3),
    ) {
        let roster = members(3);
        let pulled: Vec<Pulled> = (0..3).map(|member| {
            if missing[member] {
                return Err(ReportOutcome::Unreachable);
            }
            let others = (0..3).filter(|&peer| peer != member).enumerate();
            from(&roster, member, others.map(|(at, peer)| view(&roster, peer, &rtts[member * 2 + at])).collect())
        }).collect();
        let got = measure(&roster, &pulled, PROBE);
        let mut turned = roster.clone();
        turned.members.rotate_left(1);
        let mut turned_pulled = pulled.clone();
        turned_pulled.rotate_left(1);
        let again = measure(&turned, &turned_pulled, PROBE);
        prop_assert_eq!(&got.rtt, &again.rtt);
        prop_assert_eq!(got.loss_ppm, again.loss_ppm);
        prop_assert_eq!(got.fewest_connected, again.fewest_connected);
        if let Some(rtt) = got.rtt {
            prop_assert!(rtt.p50_micros <= rtt.p90_micros && rtt.p90_micros <= rtt.p99_micros);
            prop_assert!(rtt.p99_micros <= rtt.max_micros);
        }
    }
}
