use peernet_api::{
    identity::NetworkSecret,
    transport::Transport,
    v1alpha1::{Clock, LateEnd, StrangerReason, Workload},
};

use super::{columns::display_loss, *};
use crate::{
    decide::Stall,
    measure::{Measurements, TransportNumbers, tests::in_zones},
    observe::ObservedPod,
    reports::tests::{answer, report},
    roster::{Roster, roster},
};

fn spread(p50_micros: i64, p99_micros: i64) -> Spread {
    Spread {
        p50_micros,
        p90_micros: p50_micros,
        p99_micros,
        max_micros: p99_micros,
        samples: 60,
        newest: Duration::from_millis(300),
    }
}

/// A network of three, all well, to be spoilt by each test.
struct Scene {
    roster: Roster,
    pulled: Vec<Pulled>,
    measured: Measurements,
    settled: bool,
    stall: Option<Stall>,
    strangers: Strangers,
    previous: PeerNetworkStatus,
    now: Timestamp,
}

impl Scene {
    fn well() -> Self {
        let roster = in_zones(&[""; 3]);
        Self {
            pulled: roster
                .members
                .iter()
                .map(|member| Ok(answer(report(&member.name))))
                .collect(),
            roster,
            measured: Measurements {
                members: vec![
                    Some(MemberMeasurements {
                        connected: 2,
                        rtt: Some(spread(212, 900)),
                        ..MemberMeasurements::default()
                    });
                    3
                ],
                expected_peers: 2,
                fewest_connected: Some(2),
                numbers: Numbers {
                    rtt: Some(spread(212, 1_400)),
                    network: Some(spread(27, 100)),
                    hosts: Some(spread(160, 1_250)),
                    clock: Some(Clock::Kernel),
                    loss: Loss {
                        ppm: Some(0),
                        probes: 60,
                        newest: Some(Duration::from_millis(300)),
                        ..Loss::default()
                    },
                    ..Numbers::default()
                },
                ..Measurements::default()
            },
            settled: true,
            stall: None,
            strangers: Strangers::default(),
            previous: PeerNetworkStatus::default(),
            now: Timestamp::from_second(1_000_000).unwrap(),
        }
    }

    fn status(&self) -> PeerNetworkStatus {
        compose(&Input {
            facts: Facts {
                stall: self.stall.as_ref(),
                settled: self.settled,
                roster: &self.roster,
                pulled: &self.pulled,
                measured: &self.measured,
            },
            selector: "a=b".into(),
            image: Some("agents:1".into()),
            services: &["db".to_owned(), "web".to_owned()],
            host_ports: None,
            external: &[],
            generation: Some(7),
            private_network: None,
            strangers: self.strangers.clone(),
            previous: &self.previous,
            now: self.now,
        })
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let found = self
            .status()
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == type_)
            .unwrap();
        assert_eq!(found.observed_generation, Some(7));
        (found.status, found.reason, found.message)
    }

    fn assert_condition(&self, type_: &str, status: &str, reason: &str, part: &str) {
        let (got, why, message) = self.condition(type_);
        assert_eq!(
            (got.as_str(), why.as_str()),
            (status, reason),
            "{type_}: {message}"
        );
        assert!(message.contains(part), "{type_}: {message:?} lacks {part:?}");
    }

    fn pod(&mut self, at: usize) -> &mut ObservedPod {
        self.roster.members[at].pod.as_mut().unwrap()
    }
}

#[test]
fn ports_that_something_else_has_are_named_with_the_field_that_chooses_others() {
    let mut scene = Scene::well();
    let pod = scene.pod(1);
    pod.ready = false;
    pod.ports_taken = true;
    pod.problem = Some("failed to open the HTTP port 20001".to_owned());
    scene.assert_condition("Ready", "False", "PortsTaken", "the HTTP port 20001");
    scene.assert_condition("Ready", "False", "PortsTaken", "spec.hostPortBase");
}

#[test]
fn a_healthy_network_is_ready_and_its_columns_are_filled() {
    let scene = Scene::well();
    scene.assert_condition("Ready", "True", "AllNodesConnected", "all 3 nodes");
    scene.assert_condition("Connected", "True", "FullyConnected", "2 peers");
    scene.assert_condition("Reconciling", "False", "UpToDate", "");
    scene.assert_condition("Stalled", "False", "NotStalled", "");
    let columns = scene.status().columns.unwrap();
    assert_eq!(
        (
            columns.nodes.as_str(),
            columns.peers.as_deref(),
            columns.rtt_p50.as_deref(),
            columns.rtt_p99.as_deref()
        ),
        ("3/3", Some("2/2"), Some("212us"), Some("1.4ms"))
    );
    assert_eq!(columns.loss.as_deref(), Some("0%"));
    assert_eq!(
        (
            columns.net_p50.as_deref(),
            columns.net_p99.as_deref(),
            columns.host_p99.as_deref(),
            columns.breakdown.as_deref()
        ),
        (
            Some("27us"),
            Some("100us"),
            Some("1.25ms"),
            Some("network 100us, hosts 1.25ms")
        )
    );
    assert_eq!(scene.status().last_sample_time.unwrap().0.as_second(), 999_999);
}

#[test]
fn a_dead_node_is_named() {
    let mut scene = Scene::well();
    scene.pod(2).ready = false;
    scene.pulled[2] = Err(ReportOutcome::TimedOut);
    scene.measured.members[2] = None;
    scene.measured.fewest_connected = Some(1);
    scene.measured.missing_links = vec![("mesh-0".into(), "mesh-2".into())];
    scene.measured.missing_links_total = 2;
    scene.assert_condition(
        "Ready",
        "False",
        "NodesNotReady",
        "2 of 3 nodes are ready: pod mesh-2 on node n2 is not ready",
    );
    scene.assert_condition(
        "Connected",
        "False",
        "PeersMissing",
        "mesh-0 -> mesh-2 and 1 more",
    );
    let status = scene.status();
    assert_eq!(status.columns.as_ref().unwrap().nodes, "2/3");
    assert_eq!(status.columns.as_ref().unwrap().peers.as_deref(), Some("1/2"));
    // Trouble comes first, and what the dead node is connected to is not known.
    assert_eq!(
        (status.nodes[0].name.as_str(), status.nodes[0].connected_peers),
        ("mesh-2", None)
    );
}

#[test]
fn a_missing_report_is_named_with_its_cause() {
    let mut scene = Scene::well();
    scene.pulled[1] = Err(ReportOutcome::WrongPeer);
    scene.measured.members[1] = None;
    scene.assert_condition(
        "Ready",
        "False",
        "ReportsMissing",
        "mesh-1 on node n1: its report is another peer's",
    );
    assert_eq!(scene.status().nodes[0].report, ReportOutcome::WrongPeer);
}

#[test]
fn without_any_report_connectivity_is_unknown_and_no_number_is_shown() {
    let mut scene = Scene::well();
    scene.pulled = vec![Err(ReportOutcome::Unreachable); 3];
    scene.measured = Measurements {
        members: vec![None; 3],
        expected_peers: 2,
        ..Measurements::default()
    };
    scene.assert_condition("Connected", "Unknown", "NoReports", "");
    let status = scene.status();
    assert_eq!(
        (status.rtt, status.loss_ppm, status.peers, status.last_sample_time),
        (None, None, None, None)
    );
    let columns = status.columns.unwrap();
    assert_eq!(
        (columns.peers, columns.rtt_p50, columns.rtt_p99, columns.loss),
        (None, None, None, None)
    );
}

#[test]
fn connected_nodes_without_a_round_trip_are_not_ready() {
    let mut scene = Scene::well();
    scene.measured.numbers.rtt = None;
    scene.assert_condition("Ready", "Unknown", "AwaitingSamples", "no round trip");
    assert_eq!(scene.status().columns.unwrap().rtt_p99, None);
}

#[test]
fn a_rollout_is_progress() {
    let mut scene = Scene::well();
    scene.settled = false;
    scene.assert_condition("Ready", "False", "RollingOut", "");
    scene.assert_condition("Reconciling", "True", "RollingOut", "");
}

#[test]
fn a_stall_says_what_to_do_and_is_never_progress() {
    let mut scene = Scene::well();
    scene.settled = false;
    scene.stall = Some(Stall {
        reason: "InvalidSpec",
        message: "spec.x: mend it".into(),
    });
    scene.assert_condition("Ready", "False", "InvalidSpec", "mend it");
    scene.assert_condition("Stalled", "True", "InvalidSpec", "mend it");
    scene.assert_condition("Reconciling", "False", "UpToDate", "");
    // The last good state runs on, and is measured.
    assert_eq!(scene.status().columns.unwrap().rtt_p50.as_deref(), Some("212us"));
}

#[test]
fn no_nodes_are_what_was_asked_for() {
    let mut scene = Scene::well();
    scene.roster = Roster {
        kind: Workload::StatefulSet,
        members: Vec::new(),
        wanted: 0,
        existing: 0,
    };
    scene.pulled.clear();
    scene.measured = Measurements::default();
    scene.assert_condition("Ready", "True", "ScaledToZero", "");
    scene.roster.kind = Workload::DaemonSet;
    scene.assert_condition("Ready", "False", "NodesNotReady", "no node of the cluster fits");
    scene.settled = false;
    scene.assert_condition("Ready", "False", "RollingOut", "objects are being created");
    scene.roster.existing = 1;
    scene.assert_condition("Ready", "False", "RollingOut", "1 pods are still stopping");
}

#[test]
fn pods_that_do_not_exist_and_pods_that_cannot_start_are_told_apart() {
    let mut scene = Scene::well();
    scene.roster.members[0].pod = None;
    scene.pod(1).ready = false;
    scene.pod(1).problem = Some("ErrImagePull: not found".into());
    scene.assert_condition("Ready", "False", "NodesNotReady", "mesh-0 has no pod yet");
    scene.assert_condition(
        "Ready",
        "False",
        "NodesNotReady",
        "pod mesh-1 on node n1 is not ready (ErrImagePull: not found)",
    );
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut scene = Scene::well();
    let first = scene.status();
    scene.previous = first.clone();
    scene.now = Timestamp::from_second(1_000_050).unwrap();
    assert_eq!(scene.status().conditions, first.conditions);
    scene.pod(0).ready = false;
    let (before, after) = (first.conditions, scene.status().conditions);
    assert_ne!(before[0].last_transition_time, after[0].last_transition_time);
    assert_eq!(before[3], after[3]);
}

#[test]
fn rows_are_bounded_and_the_rest_is_counted() {
    let mut scene = Scene::well();
    let secret = NetworkSecret::new(&[5; 32]).unwrap();
    scene.roster = roster("mesh", Workload::StatefulSet, 100, Some(&secret), &[]);
    scene.pulled = vec![Err(ReportOutcome::NotAsked); 100];
    scene.measured.members = vec![None; 100];
    let status = scene.status();
    assert_eq!(
        (status.nodes.len(), status.nodes_omitted),
        (MAX_NODE_ROWS, Some(36))
    );
    assert!(serde_json::to_vec(&status).unwrap().len() < 40_000);
}

#[test]
fn a_status_is_written_only_if_it_says_something_new() {
    let mut scene = Scene::well();
    let first = scene.status();
    let second = Duration::from_secs(1);
    assert!(says_something_new(&PeerNetworkStatus::default(), &first, None));
    assert!(!says_something_new(&first, &first, None));
    scene.previous = first.clone();

    let mut later = |p50: i64, after: Duration| {
        scene.measured.numbers.rtt.as_mut().unwrap().p50_micros = p50;
        says_something_new(&first, &scene.status(), Some(after))
    };
    assert!(!later(220, second * 5), "4 % is no news");
    assert!(later(250, second * 5), "18 % is");
    assert!(later(220, second * 30), "a little news is told after a while");
    scene.measured.numbers.network = Some(spread(38, 100));
    assert!(
        !says_something_new(&first, &scene.status(), Some(second)),
        "11 us are no news, even if they are 40 %"
    );
    scene.measured.numbers.network = None;
    assert!(
        says_something_new(&first, &scene.status(), Some(second)),
        "that a number is not known any more is told at once"
    );
    scene.measured.numbers.network = first_network();
    scene.pod(0).ready = false;
    assert!(
        says_something_new(&first, &scene.status(), Some(second)),
        "a node's state is told at once"
    );
}

fn first_network() -> Option<Spread> {
    Scene::well().measured.numbers.network
}

#[test]
fn a_stepped_wall_clock_hinders_no_write() {
    let mut scene = Scene::well();
    let first = scene.status();
    let written_long_ago = Some(Duration::from_secs(31));
    for step in [-3_600, 3_600] {
        scene.now = Timestamp::from_second(1_000_000 + step).unwrap();
        let next = scene.status();
        assert_eq!(
            next.last_sample_time.as_ref().unwrap().0.as_second(),
            999_999 + step
        );
        assert!(says_something_new(&first, &next, written_long_ago));
        scene.measured.numbers.rtt = None;
        assert!(says_something_new(&next, &scene.status(), Some(Duration::ZERO)));
        scene = Scene::well();
    }
}

#[test]
fn the_worst_link_is_told_as_long_as_it_is_one() {
    let mut scene = Scene::well();
    let link = |to: &str| Pair {
        from: "mesh-0".into(),
        to: to.into(),
        numbers: scene.measured.numbers.clone(),
        late_end: Some(LateEnd::To),
    };
    let links = [link("mesh-1"), link("mesh-2")];
    scene.measured.worst_links = links.to_vec();
    let first = scene.status();
    let shown = &first.worst_links[0];
    assert_eq!(
        (shown.breakdown.as_deref(), shown.late_end, shown.clock),
        (
            Some("network 100us, hosts 1.25ms"),
            Some(LateEnd::To),
            Some(Clock::Kernel)
        )
    );
    assert_eq!(
        first.columns.as_ref().unwrap().worst_link.as_deref(),
        Some("mesh-0 -> mesh-1 1.4ms")
    );
    let second = Some(Duration::from_secs(1));
    scene.measured.worst_links.reverse();
    assert!(!says_something_new(&first, &scene.status(), second));
    scene.measured.worst_links.pop();
    assert!(says_something_new(&first, &scene.status(), second));
}

#[test]
fn a_number_that_stands_on_user_space_stamps_says_so() {
    for (clock, shown) in [
        (Some(Clock::Kernel), "100us"),
        (Some(Clock::UserSpace), "~100us"),
        (Some(Clock::Mixed), "~100us"),
    ] {
        let mut scene = Scene::well();
        scene.measured.numbers.clock = clock;
        let status = scene.status();
        assert_eq!(status.network.unwrap().clock, clock.unwrap());
        let columns = status.columns.unwrap();
        assert_eq!(columns.net_p99.as_deref(), Some(shown));
        let breakdown = columns.breakdown.unwrap();
        assert_eq!(breakdown, format!("network {shown}, hosts 1.25ms"));
        assert_eq!(columns.rtt_p99.as_deref(), Some("1.4ms"));
    }
}

#[test]
fn a_blocked_transport_is_in_the_rows_and_messages_and_spoils_nothing() {
    let over = |transport, connected, rtt| TransportNumbers {
        transport,
        expected: 6,
        connected,
        rtt,
        loss_ppm: Some(0),
        ..TransportNumbers::default()
    };
    let mut scene = Scene::well();
    scene.measured.transports = vec![
        over(Transport::Tcp, 6, Some(spread(212, 1_400))),
        over(Transport::Quic, 6, Some(spread(300, 1_500))),
    ];
    let before = scene.status();
    assert!(!scene.condition("Ready").2.contains("QUIC"));
    scene.measured.transports[1] = over(Transport::Quic, 4, None);
    for (type_, reason) in [("Ready", "AllNodesConnected"), ("Connected", "FullyConnected")] {
        scene.assert_condition(type_, "True", reason, "; QUIC connects 4 of 6 links");
    }
    let after = scene.status();
    assert!(says_something_new(&before, &after, Some(Duration::ZERO)));
    let quic = &after.transports[1];
    assert_eq!(
        (quic.connected_links, quic.rtt_p50_micros, quic.samples),
        (4, None, 0)
    );
    assert_eq!(after.transports[0].rtt_p99_micros, Some(1_400));

    // The first one blocked: the nodes are connected, and their round trips are known from the other.
    scene.measured.numbers = Numbers::default();
    scene.measured.transports = vec![
        over(Transport::Tcp, 0, None),
        over(Transport::Quic, 6, Some(spread(300, 1_500))),
    ];
    scene.assert_condition(
        "Ready",
        "True",
        "AllNodesConnected",
        "; TCP connects 0 of 6 links",
    );
    scene.measured.transports[1].rtt = None;
    scene.assert_condition("Ready", "Unknown", "AwaitingSamples", "");
}

#[test]
fn that_a_network_was_ready_once_is_remembered() {
    let mut scene = Scene::well();
    scene.pod(0).ready = false;
    let forming = scene.status();
    assert!(forming.first_ready_time.is_none() && !was_whole(&forming));
    scene.previous = forming;
    scene.pod(0).ready = true;
    let whole = scene.status();
    let since = whole.first_ready_time.clone();
    assert_eq!(since.as_ref().unwrap().0, scene.now);
    scene.previous = whole;
    scene.now = Timestamp::from_second(1_000_050).unwrap();
    scene.pod(0).ready = false;
    assert!(was_whole(&scene.status()) && scene.status().first_ready_time == since);
    // A status of an operator that did not know of this.
    scene.previous = PeerNetworkStatus {
        first_ready_time: None,
        ..scene.previous.clone()
    };
    assert!(scene.status().first_ready_time.is_some());
}

#[test]
fn a_little_loss_is_never_shown_as_none() {
    let shown: Vec<_> = [0, 7, 250, 5_000, 12_300, 123_456, 1_000_000]
        .map(display_loss)
        .into();
    assert_eq!(shown, ["0%", "<0.01%", "0.02%", "0.50%", "1.2%", "12%", "100%"]);
}

#[test]
fn strangers_are_shown_while_they_come_and_don_t_pace_the_writes() {
    let mut scene = Scene::well();
    assert_eq!(scene.status().strangers, None);
    let stranger = |address: &str| crate::strangers::Stranger {
        address: address.to_owned(),
        reason: StrangerReason::AnotherKey,
        peer_id: None,
        node: "mesh-1".to_owned(),
        age: Duration::from_secs(60),
    };
    let before = scene.status();
    scene.strangers = Strangers {
        turned_away: 5,
        recent: vec![stranger("10.0.0.7")],
    };
    let first = scene.status();
    let shown = first.strangers.clone().unwrap();
    assert_eq!((shown.turned_away, shown.recent.len()), (5, 1));
    assert_eq!(shown.recent[0].last_time.0.as_second(), 999_940);
    let soon = Some(Duration::from_secs(5));
    assert!(says_something_new(&before, &first, soon));
    scene.strangers = Strangers {
        turned_away: 6,
        recent: vec![stranger("10.0.0.8"), stranger("10.0.0.7")],
    };
    let next = scene.status();
    assert!(!says_something_new(&first, &next, soon));
    assert!(says_something_new(&first, &next, Some(Duration::from_secs(30))));
}

#[test]
fn every_service_of_the_spec_has_a_row_and_a_number_only_if_it_is_known() {
    let mut scene = Scene::well();
    scene.measured.services = [("web".to_owned(), 2), ("stranger".to_owned(), 9)].into();
    let rows: Vec<_> = scene
        .status()
        .services
        .into_iter()
        .map(|row| (row.name, row.providers))
        .collect();
    assert_eq!(rows, [("db".to_owned(), None), ("web".to_owned(), Some(2))]);
}

#[test]
fn a_service_that_gains_or_loses_a_provider_is_news() {
    let mut scene = Scene::well();
    scene.measured.services = [("web".to_owned(), 3)].into();
    let before = scene.status();
    assert!(!says_something_new(
        &before,
        &scene.status(),
        Some(Duration::ZERO)
    ));
    scene.measured.services = [("web".to_owned(), 2)].into();
    assert!(says_something_new(&before, &scene.status(), Some(Duration::ZERO)));
}
