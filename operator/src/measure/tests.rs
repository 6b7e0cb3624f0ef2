use peernet_api::{
    histogram::Histogram,
    identity::NetworkSecret,
    report::{HostReport, NetworkReport, PeerReport, StampClock, TransportReport},
    transport::Transport,
    v1alpha1::{Clock, LateEnd, MAX_WORST_LINKS, MAX_ZONE_PAIRS, ReportOutcome, Workload},
};
use proptest::prelude::*;

use super::*;
use crate::{
    observe::ObservedPod,
    reports::tests::{answer, report},
    roster::roster,
};

const NOW: Moment = Duration::from_secs(100);
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

/// A network of members whose pods are in these zones: "" stands for none.
pub(crate) fn in_zones(zones: &[&str]) -> Roster {
    let pods: Vec<_> = zones
        .iter()
        .enumerate()
        .map(|(at, zone)| ObservedPod {
            name: format!("mesh-{at}"),
            kind: Some(Workload::StatefulSet),
            node_name: Some(format!("n{at}")),
            zone: (!zone.is_empty()).then(|| (*zone).to_owned()),
            ip: None,
            ready: true,
            terminating: false,
            http_port: 8080,
            problem: None,
            ports_taken: false,
        })
        .collect();
    let secret = NetworkSecret::new(&[5; 32]).unwrap();
    let wanted = i32::try_from(pods.len()).unwrap();
    roster("mesh", Workload::StatefulSet, wanted, Some(&secret), &pods)
}

fn histogram(micros: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    micros.iter().for_each(|micros| histogram.record(micros * 1_000));
    histogram
}

/// What STAMP says after one sample: microseconds of the network, of the own host and of the peer's.
fn stamp(network: u64, own: u64, peer: u64) -> NetworkReport {
    NetworkReport {
        sent: 1,
        answered: 1,
        newest_sample_age_millis: Some(1_400),
        newest_probe_age_millis: Some(400),
        rtt: histogram(&[network]),
        hosts: histogram(&[own + peer]),
        peer_host: histogram(&[peer]),
        ..NetworkReport::default()
    }
}

fn view(roster: &Roster, peer: usize, rtts_micros: &[u64]) -> PeerReport {
    let rtt = histogram(rtts_micros);
    PeerReport {
        peer_id: roster.members[peer].peer_id.clone().unwrap(),
        name: roster.members[peer].name.clone(),
        connected: true,
        answered: rtts_micros.len() as u64,
        newest_sample_age_millis: Some(400),
        newest_probe_age_millis: Some(300),
        rtt,
        ..PeerReport::default()
    }
}

fn from(roster: &Roster, member: usize, peers: Vec<PeerReport>) -> Pulled {
    Ok(answer(Report {
        peers,
        ..report(&roster.members[member].name)
    }))
}

#[test]
fn a_full_mesh_is_merged_and_its_worst_link_named() {
    let roster = members(2);
    let pulled = [
        from(&roster, 0, vec![view(&roster, 1, &[100, 100, 100])]),
        from(&roster, 1, vec![view(&roster, 0, &[100, 100, 5_000])]),
    ];
    let got = measure(&roster, &pulled, PROBE, NOW);
    assert_eq!(
        (got.expected_peers, got.fewest_connected, got.missing_links_total),
        (1, Some(1), 0)
    );
    let rtt = got.numbers.rtt.clone().unwrap();
    assert_eq!(rtt.samples, 6);
    assert!(
        (99..=101).contains(&rtt.p50_micros) && (4_950..=5_050).contains(&rtt.p99_micros),
        "{rtt:?}"
    );
    assert_eq!(
        (got.worst_links[0].from.as_str(), got.worst_links[0].to.as_str()),
        ("mesh-1", "mesh-0")
    );
    assert_eq!(got.numbers.loss.ppm, Some(0));
    // As old as it was in the report, and 10 ms since that was asked for.
    assert_eq!(got.newest_sample_age(), Some(Duration::from_millis(410)));
}

#[test]
fn guests_are_those_of_all_who_say_how_many_they_have() {
    let roster = members(3);
    let with = |member: usize, guests| {
        Ok(answer(Report {
            guests,
            ..report(&roster.members[member].name)
        }))
    };
    let guests = |pulled: &[Pulled]| measure(&roster, pulled, PROBE, NOW).guests;
    assert_eq!(
        guests(&[with(0, Some(2)), with(1, Some(0)), with(2, None)]),
        Some(2)
    );
    assert_eq!(guests(&[with(0, None), with(1, None), with(2, None)]), None);
    let silent = || Err(ReportOutcome::TimedOut);
    assert_eq!(guests(&[with(0, Some(3)), silent(), silent()]), Some(3));
    assert_eq!(guests(&[silent(), silent(), silent()]), None);
}

#[test]
fn each_transport_is_merged_by_itself_and_counts_what_it_does_not_connect() {
    let roster = members(3);
    let over_quic = |roster: &Roster, peer: usize, connected: bool, rtts: &[u64]| PeerReport {
        transports: vec![TransportReport {
            transport: Transport::Quic,
            connected,
            answered: rtts.len() as u64,
            timed_out: 1,
            newest_sample_age_millis: (!rtts.is_empty()).then_some(400),
            newest_probe_age_millis: Some(300),
            rtt: histogram(rtts),
            ..TransportReport::default()
        }],
        ..view(roster, peer, &[100, 100, 100])
    };
    let from_both = |member: usize, peers: Vec<PeerReport>| {
        Ok(answer(Report {
            // Whoever says it twice has it once.
            transports: vec![Transport::Tcp, Transport::Quic, Transport::Tcp, Transport::Quic],
            ..from(&roster, member, peers).unwrap().report
        }))
    };
    let pulled = [
        from_both(
            0,
            vec![
                over_quic(&roster, 1, true, &[300, 300, 300]),
                PeerReport {
                    first_connected: Some(false),
                    ..over_quic(&roster, 2, true, &[500])
                },
            ],
        ),
        // It knows nothing of the third.
        from_both(1, vec![over_quic(&roster, 0, false, &[])]),
        // An agent that speaks TCP alone.
        from(
            &roster,
            2,
            vec![view(&roster, 0, &[100]), view(&roster, 1, &[100])],
        ),
    ];
    let got = measure(&roster, &pulled, PROBE, NOW);
    let [tcp, quic] = got.transports.as_slice() else {
        panic!("{:?}", got.transports);
    };
    assert_eq!(
        (tcp.transport, tcp.expected, tcp.connected),
        (Transport::Tcp, 6, 4)
    );
    assert_eq!(
        (quic.transport, quic.expected, quic.connected),
        (Transport::Quic, 4, 2)
    );
    assert_eq!(tcp.rtt, got.numbers.rtt, "the first one's are the network's");
    let rtt = quic.rtt.clone().unwrap();
    assert_eq!(rtt.samples, 4);
    assert!(
        (297..=303).contains(&rtt.p50_micros) && (495..=505).contains(&rtt.max_micros),
        "{rtt:?}"
    );
    assert_eq!((quic.probes, quic.loss_ppm), (7, Some(428_571)));
    assert!(quic.warm.is_none() && got.has_round_trips());

    let old = PeerReport {
        newest_sample_age_millis: None,
        newest_probe_age_millis: None,
        ..over_quic(&roster, 1, true, &[300])
    };
    let mut pulled = [
        from_both(0, vec![old]),
        Err(ReportOutcome::TimedOut),
        Err(ReportOutcome::TimedOut),
    ];
    if let Ok(answer) = &mut pulled[0] {
        answer.report.peers[0].transports[0].newest_sample_age_millis = Some(60_000);
        answer.report.peers[0].transports[0].newest_probe_age_millis = Some(60_000);
    }
    let got = measure(&roster, &pulled, PROBE, NOW);
    assert!(
        got.transports
            .iter()
            .all(|over| over.rtt.is_none() && over.loss_ppm.is_none()),
        "what is old is not known: {:?}",
        got.transports
    );
}

#[test]
fn without_reports_nothing_is_known() {
    let got = measure(
        &members(2),
        &[Err(ReportOutcome::TimedOut), Err(ReportOutcome::WrongPeer)],
        PROBE,
        NOW,
    );
    assert_eq!(
        (
            got.numbers.rtt.clone(),
            got.numbers.loss.ppm,
            got.fewest_connected,
            got.newest_sample_age()
        ),
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
    let got = measure(&roster, &pulled, PROBE, NOW);
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
    let got = measure(&roster, &pulled, PROBE, NOW);
    assert_eq!(got.numbers.rtt.unwrap().samples, 1);
    assert_eq!(got.fewest_connected, Some(0));
}

#[test]
fn what_is_older_than_three_intervals_and_the_timeout_is_in_no_number() {
    let roster = members(2);
    let aged = |sample: u64, probe: u64, stamp_sample: u64, stamp_probe: u64| {
        let row = PeerReport {
            answered: 1,
            timed_out: 3,
            newest_sample_age_millis: Some(sample),
            newest_probe_age_millis: Some(probe),
            warm: histogram(&[90]),
            network: Some(NetworkReport {
                lost_forward: 1,
                sent: 2,
                newest_sample_age_millis: Some(stamp_sample),
                newest_probe_age_millis: Some(stamp_probe),
                ..stamp(40, 10, 10)
            }),
            ..view(&roster, 1, &[100])
        };
        let pulled = [from(&roster, 0, vec![row]), Err(ReportOutcome::TimedOut)];
        let Numbers {
            rtt,
            warm,
            network,
            hosts,
            loss,
            ..
        } = measure(&roster, &pulled, PROBE, NOW).numbers;
        assert_eq!(
            (rtt.is_some(), network.is_some()),
            (warm.is_some(), hosts.is_some())
        );
        (rtt.is_some(), loss.ppm, network.is_some(), loss.forward_ppm)
    };
    let (loss, forward) = (Some(750_000), Some(500_000));
    assert_eq!(aged(5_000, 5_000, 5_000, 5_000), (true, loss, true, forward));
    assert_eq!(aged(5_001, 5_000, 5_000, 5_000), (false, loss, true, forward));
    assert_eq!(aged(5_000, 5_001, 5_000, 5_000), (true, None, true, forward));
    assert_eq!(aged(5_000, 5_000, 5_001, 5_000), (true, loss, false, forward));
    assert_eq!(aged(5_000, 5_000, 5_000, 5_001), (true, loss, true, None));
}

#[test]
fn what_was_measured_of_a_replaced_pod_leaves_with_it() {
    let roster = members(2);
    let hourly = ProbeSettings {
        interval: Duration::from_secs(3_600),
        ..PROBE
    };
    let seen = |age: u64, connected: bool, peer: Option<u64>| {
        let row = PeerReport {
            connected,
            newest_sample_age_millis: Some(age),
            ..view(&roster, 1, &[100])
        };
        let peer = peer.map_or(Err(ReportOutcome::NotAsked), |uptime_millis| {
            let peer = report("mesh-1");
            Ok(answer(Report {
                uptime_millis,
                ..peer
            }))
        });
        measure(&roster, &[from(&roster, 0, vec![row]), peer], hourly, NOW)
            .numbers
            .rtt
            .is_some()
    };
    assert!(seen(600_000, true, Some(900_000)) && seen(600_000, false, Some(900_000)));
    assert!(!seen(600_000, true, Some(300_000)), "its agent is younger");
    // Without its report, a connection vouches for the peer.
    assert!(seen(600_000, true, None) && !seen(600_000, false, None));
}

#[test]
fn the_network_and_the_hosts_are_told_apart_and_the_late_end_is_named() {
    let roster = members(3);
    let slow = |own: u64, peer: usize, peer_host: u64| PeerReport {
        network: Some(stamp(40, own, peer_host)),
        ..view(&roster, peer, &[own + 40 + peer_host])
    };
    // The second one's host is slow, for its own probes and for those of others.
    let own = [100, 8_000, 100];
    let pulled: Vec<Pulled> = (0..3_usize)
        .map(|member| {
            let others = (0..3_usize).filter(|&peer| peer != member);
            let rows = others.map(|peer| slow(own[member], peer, own[peer])).collect();
            from(&roster, member, rows).map(|mut answer| {
                answer.report.host.delay = histogram(&[own[member]; 2]);
                answer
            })
        })
        .collect();
    let got = measure(&roster, &pulled, PROBE, NOW);
    let near = |spread: &Option<Spread>, micros: i64| {
        let p99 = spread.as_ref().unwrap().p99_micros;
        assert!((p99 - micros).abs() * 100 <= micros, "{p99} is not {micros}");
    };
    near(&got.numbers.network, 40);
    near(&got.numbers.hosts, 8_100);
    assert_eq!(got.numbers.clock, Some(Clock::Kernel));
    let delays: Vec<_> = got
        .members
        .iter()
        .map(|member| member.clone().unwrap().host_delay.unwrap())
        .collect();
    // Two of its own, and what two peers saw of it.
    assert_eq!(
        delays.iter().map(|delay| delay.samples).collect::<Vec<_>>(),
        [4; 3]
    );
    near(&Some(delays[1].clone()), 8_000);
    near(&Some(delays[0].clone()), 100);
    let late: Vec<_> = got
        .worst_links
        .iter()
        .map(|link| (link.from.as_str(), link.to.as_str(), link.late_end))
        .collect();
    assert_eq!(
        late,
        [
            ("mesh-0", "mesh-1", Some(LateEnd::To)),
            ("mesh-1", "mesh-0", Some(LateEnd::From)),
            ("mesh-1", "mesh-2", Some(LateEnd::From)),
            ("mesh-2", "mesh-1", Some(LateEnd::To)),
            ("mesh-0", "mesh-2", None),
        ]
    );
}

#[test]
fn clocks_that_differ_are_told() {
    let roster = members(2);
    let clock = |one: StampClock, other: StampClock| {
        let row = |peer: usize, clock: StampClock| PeerReport {
            network: Some(NetworkReport {
                clock,
                ..stamp(40, 10, 10)
            }),
            ..view(&roster, peer, &[100])
        };
        let pulled = [
            from(&roster, 0, vec![row(1, one)]),
            from(&roster, 1, vec![row(0, other)]),
        ];
        measure(&roster, &pulled, PROBE, NOW).numbers.clock
    };
    let (kernel, user_space) = (StampClock::Kernel, StampClock::UserSpace);
    assert_eq!(clock(kernel, kernel), Some(Clock::Kernel));
    assert_eq!(clock(user_space, user_space), Some(Clock::UserSpace));
    assert_eq!(clock(kernel, user_space), Some(Clock::Mixed));
}

#[test]
fn losses_are_told_by_direction() {
    let roster = members(2);
    let row = PeerReport {
        retransmitted: Some(3),
        network: Some(NetworkReport {
            sent: 1_010,
            answered: 720,
            lost_forward: 100,
            lost_backward: 180,
            lost_undirected: 10,
            ..stamp(40, 10, 10)
        }),
        ..view(&roster, 1, &[100])
    };
    let pulled = [from(&roster, 0, vec![row]), Err(ReportOutcome::TimedOut)];
    let loss = measure(&roster, &pulled, PROBE, NOW).numbers.loss;
    // Of 1,000 whose fate is known 100 did not get there, and of the 900 that did 180 did not get back.
    assert_eq!(
        (loss.forward_ppm, loss.backward_ppm),
        (Some(100_000), Some(200_000))
    );
    assert_eq!((loss.undirected_ppm, loss.udp_probes), (Some(9_900), 1_010));
    assert_eq!((loss.retransmitted, loss.ppm), (Some(3), Some(0)));
}

#[test]
fn of_a_network_that_carries_no_udp_no_direction_is_known() {
    let roster = members(2);
    let row = PeerReport {
        network: Some(NetworkReport {
            sent: 50,
            lost_undirected: 50,
            newest_probe_age_millis: Some(100),
            ..NetworkReport::default()
        }),
        ..view(&roster, 1, &[100])
    };
    let pulled = [from(&roster, 0, vec![row]), Err(ReportOutcome::TimedOut)];
    let numbers = measure(&roster, &pulled, PROBE, NOW).numbers;
    assert_eq!(
        (numbers.network, numbers.hosts, numbers.clock),
        (None, None, None)
    );
    let loss = numbers.loss;
    assert_eq!((loss.forward_ppm, loss.backward_ppm), (None, None));
    assert_eq!((loss.undirected_ppm, loss.ppm), (Some(1_000_000), Some(0)));
}

#[test]
fn zones_are_merged_by_pair_and_who_has_none_is_in_none() {
    let roster = in_zones(&["a", "a", "b", ""]);
    let pulled: Vec<Pulled> = (0..4_usize)
        .map(|member| {
            let others = (0..4_usize).filter(|&peer| peer != member);
            // What comes or goes to the third one, alone in zone b, takes longer.
            let rows = others.map(|peer| {
                let far = member == 2 || peer == 2;
                PeerReport {
                    network: Some(stamp(if far { 900 } else { 40 }, 10, 10)),
                    ..view(&roster, peer, &[if far { 1_000 } else { 100 }])
                }
            });
            from(&roster, member, rows.collect())
        })
        .collect();
    let got = measure(&roster, &pulled, PROBE, NOW);
    let zones: Vec<_> = got
        .zones
        .iter()
        .map(|pair| {
            let network = pair.numbers.network.as_ref().unwrap();
            (
                pair.from.as_str(),
                pair.to.as_str(),
                network.samples,
                network.p99_micros > 800,
            )
        })
        .collect();
    assert_eq!(
        zones,
        [("a", "b", 2, true), ("b", "a", 2, true), ("a", "a", 2, false)]
    );
    assert_eq!(got.numbers.network.unwrap().samples, 12);
}

#[test]
fn pairs_are_bounded_and_the_worst_come_first() {
    let zones: Vec<String> = (0..8).map(|zone| format!("z{zone}")).collect();
    let roster = in_zones(&zones.iter().map(String::as_str).collect::<Vec<_>>());
    let pulled: Vec<Pulled> = (0..8_usize)
        .map(|member| {
            let rows = (0..8_usize).filter(|&peer| peer != member).map(|peer| {
                let micros = 100 + u64::try_from(member * 8 + peer).unwrap() * 10;
                PeerReport {
                    network: Some(stamp(micros, 10, 10)),
                    ..view(&roster, peer, &[micros])
                }
            });
            from(&roster, member, rows.collect())
        })
        .collect();
    let got = measure(&roster, &pulled, PROBE, NOW);
    assert_eq!((got.zones.len(), got.zones_omitted), (MAX_ZONE_PAIRS, 56 - 16));
    assert_eq!(got.worst_links.len(), MAX_WORST_LINKS);
    assert_eq!(
        (got.zones[0].from.as_str(), got.zones[0].to.as_str()),
        ("z7", "z6")
    );
    assert_eq!(
        (got.worst_links[0].from.as_str(), got.worst_links[0].to.as_str()),
        ("mesh-7", "mesh-6")
    );
    let p99 = |pair: &Pair| pair.numbers.rtt.as_ref().unwrap().p99_micros;
    assert!(got.worst_links.is_sorted_by(|a, b| p99(a) >= p99(b)));
    assert!(got.zones.is_sorted_by(|a, b| p99(a) >= p99(b)));
}

#[test]
fn a_zone_that_nothing_comes_back_from_is_the_worst() {
    let roster = in_zones(&["a", "b", "c"]);
    let silent = PeerReport {
        answered: 0,
        timed_out: 4,
        newest_sample_age_millis: None,
        ..view(&roster, 2, &[])
    };
    let rows = vec![view(&roster, 1, &[900]), silent];
    let pulled = [
        from(&roster, 0, rows),
        Err(ReportOutcome::TimedOut),
        Err(ReportOutcome::TimedOut),
    ];
    let zones = measure(&roster, &pulled, PROBE, NOW).zones;
    assert_eq!(
        (zones[0].to.as_str(), zones[0].numbers.loss.ppm),
        ("c", Some(1_000_000))
    );
    assert_eq!(zones[1].to, "b");
}

#[test]
fn throttling_is_a_share_of_the_window() {
    let roster = members(1);
    let share = |throttled_micros: Option<u64>, uptime_millis: u64| {
        let report = Report {
            uptime_millis,
            host: HostReport {
                throttled_micros,
                ..HostReport::default()
            },
            ..report("mesh-0")
        };
        let got = measure(&roster, &[Ok(answer(report))], PROBE, NOW);
        got.members[0].clone().unwrap().throttled_ppm
    };
    assert_eq!(share(None, 600_000), None);
    assert_eq!(share(Some(30_000_000), 600_000), Some(100_000));
    assert_eq!(share(Some(30_000_000), 60_000), Some(500_000));
    assert_eq!(share(Some(u64::MAX), 60_000), Some(1_000_000));
}

#[test]
fn a_peer_listed_twice_counts_once() {
    let roster = members(2);
    let twice = from(
        &roster,
        0,
        vec![view(&roster, 1, &[100]), view(&roster, 1, &[100])],
    );
    let got = measure(&roster, &[twice, Err(ReportOutcome::TimedOut)], PROBE, NOW);
    assert_eq!(
        (got.numbers.rtt.unwrap().samples, got.fewest_connected),
        (1, Some(1))
    );
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
    let got = measure(&roster, &pulled, probe, NOW);
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
        let got = measure(&roster, &pulled, PROBE, NOW);
        let mut turned = roster.clone();
        turned.members.rotate_left(1);
        let mut turned_pulled = pulled.clone();
        turned_pulled.rotate_left(1);
        let again = measure(&turned, &turned_pulled, PROBE, NOW);
        prop_assert_eq!(&got.numbers, &again.numbers);
        prop_assert_eq!(got.fewest_connected, again.fewest_connected);
        if let Some(rtt) = got.numbers.rtt {
            prop_assert!(rtt.p50_micros <= rtt.p90_micros && rtt.p90_micros <= rtt.p99_micros);
            prop_assert!(rtt.p99_micros <= rtt.max_micros);
        }
    }
}
