//! Members that can't reach each other are connected through a third one, measured as relayed, and connected directly once
//! that is possible: in network namespaces of the test's own, with agents as processes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on fails, and one that can't start says so"
)]

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::{
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use peernet_api::report::{Path, PeerReport};
use peernet_node::{
    agent::Agent,
    relay::{Config, Limits},
};

use crate::support::{
    config, eventually,
    lab::{Host, Lab},
    metric_reaches, program, secret,
};

/// What docs/relays.md promises.
const UPGRADE: Duration = Duration::from_secs(30);
const FALLBACK: Duration = Duration::from_secs(30);

/// Three hosts on one network: 0 relays for 1 and 2.
const ONE_NETWORK: [Host; 3] = [
    Host {
        networks: &[(0, "192.0.2.10/24")],
    },
    Host {
        networks: &[(0, "192.0.2.11/24")],
    },
    Host {
        networks: &[(0, "192.0.2.12/24")],
    },
];
const ADDRESSES: [&str; 3] = ["192.0.2.10", "192.0.2.11", "192.0.2.12"];
const SEEDS: &str = "192.0.2.10:4001,192.0.2.11:4001,192.0.2.12:4001";

fn agents(lab: &Lab) -> [program::Agent; 3] {
    agents_with(lab, &[])
}

fn agents_with(lab: &Lab, settings: &[(&str, &str)]) -> [program::Agent; 3] {
    [0, 1, 2].map(|host| {
        let common = [
            ("PEERNET_POD_IP", ADDRESSES[host]),
            ("PEERNET_SEEDS", SEEDS),
            ("PEERNET_RELAY", "true"),
            ("PEERNET_RELAY_SERVERS", "1"),
        ];
        lab.agent(host, &[&common, settings].concat())
    })
}

fn is_relayed(row: &PeerReport) -> bool {
    row.path == Some(Path::Relayed) && row.relayed.as_ref().is_some_and(|relayed| relayed.answered >= 40)
}

fn is_direct(row: &PeerReport) -> bool {
    row.path == Some(Path::Direct) && row.answered >= 20
}

/// What is known of a relayed pair, whichever end tells it.
async fn assert_measured_as_relayed(agent: &program::Agent, other: &str, relay: &str) -> PeerReport {
    let row = agent.row_when(other, "a circuit to it", is_relayed).await;
    assert!(row.connected);
    assert_eq!(row.relay.as_deref(), Some(relay));
    let to_relay = agent.row_when(relay, "the relay", is_direct).await;
    assert_eq!(to_relay.relayed, None);
    let leg = to_relay.rtt.quantile(500).unwrap();
    let through = row.relayed.as_ref().unwrap().rtt.quantile(500).unwrap();
    assert!(through > leg, "{through} ns through the relay, {leg} ns to it");
    println!(
        "relayed: {} us through {relay}, {} us to it",
        through / 1_000,
        leg / 1_000
    );
    row
}

/// AutoNAT v2: a relay tries each address of its members once, and tells what came of it.
#[tokio::test]
async fn who_can_not_be_dialed_is_told_so_by_a_relay_and_who_can_be_is_told_that() {
    let Some(lab) = Lab::new("reach", 1, &ONE_NETWORK) else {
        return;
    };
    // 1 may dial, and nobody may dial it.
    lab.iptables(
        1,
        "-A INPUT -p tcp --dport 4001 -m conntrack --ctstate NEW -j DROP",
    )
    .unwrap();
    // Kademlia dials from port to port, too: 1 might be connected by others' dials alone, which its own have let in, and AutoNAT asks
    // over an agent's own dials only.
    let [_relay, one, two] = agents_with(&lab, &[("PEERNET_KADEMLIA", "false")]);
    for (agent, wanted) in [(&one, false), (&two, true)] {
        eventually("a relay's verdict", || async {
            match agent.report()?.reachable {
                Some(reachable) if reachable == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    // It is connected all the same, by its own dials.
    for other in ["mesh-0", "mesh-2"] {
        one.row_when(other, "a direct connection", is_direct).await;
    }
}

#[tokio::test]
async fn members_that_are_cut_off_from_each_other_meet_through_a_relay_and_then_directly() {
    let Some(lab) = Lab::new("cut", 1, &ONE_NETWORK) else {
        return;
    };
    lab.iptables(1, "-A INPUT -s 192.0.2.12 -j DROP").unwrap();
    lab.iptables(2, "-A INPUT -s 192.0.2.11 -j DROP").unwrap();
    let started = Instant::now();
    let [relay, one, two] = agents(&lab);

    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        let row = assert_measured_as_relayed(agent, other, "mesh-0").await;
        // Nothing of it is in the direct numbers, and no STAMP probe was sent where none can arrive.
        assert_eq!((row.answered, row.timed_out, row.failed), (0, 0, 0));
        assert_eq!((row.rtt.count(), row.network), (0, None));
    }
    println!("relayed and measured after {:?}", started.elapsed());
    assert_eq!(relay.metric("peernet_relay_circuits").unwrap(), 1.0);
    assert_eq!(relay.metric("peernet_relay_reservations").unwrap(), 2.0);
    assert_eq!(one.metric("peernet_relayed_peers").unwrap(), 1.0);
    assert_eq!(one.metric("peernet_peers").unwrap(), 2.0);

    // From now on, 1 may connect to 2, but 2 not to 1.
    lab.iptables(2, "-D INPUT -s 192.0.2.11 -j DROP").unwrap();
    let answers = "-I INPUT -s 192.0.2.12 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
    lab.iptables(1, answers).unwrap();
    let lifted = Instant::now();
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        agent
            .row_when(other, "a direct connection", |row| row.path == Some(Path::Direct))
            .await;
    }
    let took = lifted.elapsed();
    println!("direct {took:?} after it was possible");
    assert!(took < UPGRADE, "{took:?}");
    relay
        .metric_when("peernet_relay_circuits", |circuits| circuits == 0.0)
        .await;
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        let row = agent.row_when(other, "direct numbers", is_direct).await;
        let relayed = row.relayed.unwrap();
        assert_eq!(
            (relayed.failed, relayed.timed_out, row.failed, row.timed_out),
            (0, 0, 0, 0),
            "no probe is lost on the move"
        );
        assert_eq!(row.relay, None);
    }
    // STAMP works where packets get through: what 2 sends on its own is still dropped.
    one.row_when("mesh-2", "the network's own time", |row| {
        row.network.as_ref().is_some_and(|network| network.answered > 0)
    })
    .await;
    assert_eq!(one.metric("peernet_relay_upgrades_total").unwrap(), 1.0);
}

#[tokio::test]
async fn a_pair_that_is_cut_while_it_is_connected_falls_back_to_the_relay() {
    let Some(lab) = Lab::new("fall", 1, &ONE_NETWORK) else {
        return;
    };
    let [_relay, one, two] = agents(&lab);
    one.row_when("mesh-2", "a direct connection", is_direct).await;
    lab.iptables(1, "-A INPUT -s 192.0.2.12 -j DROP").unwrap();
    lab.iptables(2, "-A INPUT -s 192.0.2.11 -j DROP").unwrap();
    let cut = Instant::now();
    one.row_when("mesh-2", "a circuit", |row| row.path == Some(Path::Relayed))
        .await;
    let took = cut.elapsed();
    println!("relayed {took:?} after the cut");
    assert!(took < FALLBACK, "{took:?}");
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        let row = agent.row_when(other, "relayed numbers", is_relayed).await;
        // The loss of the direct way is counted there, and the circuit has none.
        assert!(row.timed_out >= 3, "{row:?}");
        assert_eq!(row.relayed.unwrap().timed_out, 0);
    }
}

/// Two members behind firewalls that only let out, once they are connected directly.
async fn passes_two_firewalls(lab: &Lab, settings: &[(&str, &str)]) -> [program::Agent; 3] {
    for (host, other) in [(1, ADDRESSES[2]), (2, ADDRESSES[1])] {
        let established = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
        lab.iptables(host, &format!("-A INPUT -s {other} {established}"))
            .unwrap();
        lab.iptables(host, &format!("-A INPUT -s {other} -j DROP"))
            .unwrap();
    }
    let started = Instant::now();
    let [relay, one, two] = agents_with(lab, settings);
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        agent.row_when(other, "a direct connection", is_direct).await;
    }
    println!("direct {:?} after the start", started.elapsed());
    [relay, one, two]
}

#[tokio::test]
async fn two_firewalls_that_only_let_out_are_passed_by_dialing_at_once() {
    let Some(lab) = Lab::new("punch", 1, &ONE_NETWORK) else {
        return;
    };
    let [_relay, one, two] = passes_two_firewalls(&lab, &[("PEERNET_KADEMLIA", "false")]).await;
    let punched = one.metric("peernet_relay_hole_punches_total").unwrap()
        + two.metric("peernet_relay_hole_punches_total").unwrap();
    assert!(punched >= 1.0, "{punched}");
}

/// Kademlia dials from the port that is listened on, too: it may get through before a circuit stands, and whatever it leaves
/// in the firewalls must not be in the way of what comes then.
#[tokio::test]
async fn two_firewalls_that_only_let_out_are_passed_with_kademlia_in_between() {
    let Some(lab) = Lab::new("kad", 1, &ONE_NETWORK) else {
        return;
    };
    passes_two_firewalls(&lab, &[]).await;
}

/// Hole punching is tried when a circuit begins, and not again. What opens later is found by the dials that go on.
#[tokio::test]
async fn firewalls_that_begin_to_let_out_are_passed_after_hole_punching_has_failed() {
    let Some(lab) = Lab::new("late", 1, &ONE_NETWORK) else {
        return;
    };
    for (host, other) in [(1, ADDRESSES[2]), (2, ADDRESSES[1])] {
        lab.iptables(host, &format!("-A INPUT -s {other} -j DROP"))
            .unwrap();
    }
    let [_relay, one, two] = agents(&lab);
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        assert_measured_as_relayed(agent, other, "mesh-0").await;
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    for (host, other) in [(1, ADDRESSES[2]), (2, ADDRESSES[1])] {
        let established = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
        lab.iptables(host, &format!("-I INPUT -s {other} {established}"))
            .unwrap();
    }
    let opened = Instant::now();
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        agent.row_when(other, "a direct connection", is_direct).await;
    }
    println!(
        "direct {:?} after the firewalls began to let out",
        opened.elapsed()
    );
}

#[tokio::test]
async fn two_networks_without_a_route_are_joined_by_a_relay_that_both_can_reach() {
    let hosts = [
        Host {
            networks: &[(0, "192.0.2.10/24"), (1, "198.51.100.10/24")],
        },
        Host {
            networks: &[(0, "192.0.2.11/24")],
        },
        Host {
            networks: &[(1, "198.51.100.11/24")],
        },
    ];
    let Some(lab) = Lab::new("two", 2, &hosts) else {
        return;
    };
    // They share a secret; names and networks are each one's own.
    let relay_id = peernet_api::identity::NetworkSecret::new(&[7; 32])
        .unwrap()
        .peer_id("join-0");
    let at = |ip: &str| format!("/ip4/{ip}/tcp/4001/p2p/{relay_id}");
    let common = |network, name, ip: &'static str| {
        vec![
            ("PEERNET_NETWORK", network),
            ("PEERNET_NAME", name),
            ("PEERNET_POD_IP", ip),
            ("PEERNET_RELAY", "true"),
        ]
    };
    let mut settings = common("join/join", "join-0", "");
    settings.push(("PEERNET_RELAY_SERVERS", "1"));
    let relay = lab.agent(0, &settings);
    let (west_relay, east_relay) = (at("192.0.2.10"), at("198.51.100.10"));
    let mut settings = common("west/mesh", "west-0", "192.0.2.11");
    settings.push(("PEERNET_BOOTSTRAP_PEERS", &west_relay));
    let west = lab.agent(1, &settings);
    let mut settings = common("east/mesh", "east-0", "198.51.100.11");
    settings.push(("PEERNET_BOOTSTRAP_PEERS", &east_relay));
    let east = lab.agent(2, &settings);

    for (agent, other) in [(&west, "east-0"), (&east, "west-0")] {
        assert_measured_as_relayed(agent, other, "join-0").await;
    }
    // It stays so: there is no other way.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (agent, other) in [(&west, "east-0"), (&east, "west-0")] {
        let report = agent.report().unwrap();
        let row = report.peers.iter().find(|row| row.name == other).unwrap();
        assert_eq!((row.path, row.answered), (Some(Path::Relayed), 0), "{row:?}");
        assert_eq!(row.relayed.as_ref().unwrap().failed, 0);
    }
    assert_eq!(relay.metric("peernet_relay_circuits").unwrap(), 1.0);
}

#[tokio::test]
async fn circuits_are_replaced_before_they_end_and_no_probe_is_lost() {
    let Some(lab) = Lab::new("renew", 1, &ONE_NETWORK) else {
        return;
    };
    lab.iptables(1, "-A INPUT -s 192.0.2.12 -j DROP").unwrap();
    lab.iptables(2, "-A INPUT -s 192.0.2.11 -j DROP").unwrap();
    // The shortest: a minute of use, and a minute for the next one to be made.
    let [relay, one, two] = agents_with(&lab, &[("PEERNET_RELAY_CIRCUIT_DURATION", "120s")]);
    one.row_when("mesh-2", "a circuit", is_relayed).await;
    let granted = "peernet_relay_circuit_requests_total{result=\"granted\"}";
    relay.metric_when(granted, |granted| granted >= 2.0).await;
    let before = one.row_when("mesh-2", "relayed numbers", is_relayed).await;
    for (agent, other) in [(&one, "mesh-2"), (&two, "mesh-1")] {
        let row = agent
            .row_when(other, "more of them", |row| {
                let answered = |row: &PeerReport| row.relayed.as_ref().map_or(0, |relayed| relayed.answered);
                answered(row) > answered(&before) + 100
            })
            .await;
        let relayed = row.relayed.unwrap();
        assert_eq!((relayed.failed, relayed.timed_out), (0, 0), "{relayed:?}");
    }
    relay
        .metric_when("peernet_relay_circuits", |circuits| circuits == 1.0)
        .await;
}

/// It says nothing about itself: until that is too late, it has its connection.
#[derive(NetworkBehaviour)]
struct Stranger {
    relay: relay::client::Behaviour,
}

#[tokio::test]
async fn strangers_get_no_reservation() {
    let mut settings = config(31, "mesh-0", &[]);
    settings.relay = Some(Config {
        serve: Some(Limits {
            reservations: 8,
            circuits: 8,
            circuits_per_peer: 8,
            circuit_duration: Duration::from_secs(3600),
            circuit_bytes: 1 << 20,
        }),
    });
    let agent = Agent::start(settings).await.unwrap();
    let mut stranger = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_, relay| Stranger { relay })
        .unwrap()
        .build();
    let address = format!(
        "/ip4/127.0.0.1/tcp/{}/p2p/{}/p2p-circuit",
        agent.p2p_address().port(),
        secret(31).peer_id("mesh-0")
    );
    stranger.listen_on(address.parse().unwrap()).unwrap();
    let refused = async {
        loop {
            match stranger.select_next_some().await {
                SwarmEvent::Behaviour(StrangerEvent::Relay(event)) => panic!("{event:?}"),
                SwarmEvent::ListenerClosed { .. } => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(support::DEADLINE, refused).await.unwrap();
    metric_reaches(&agent, "peernet_relay_strangers_total", 1.0).await;
    let text = support::get(agent.http_address(), "/metrics").await.text();
    assert!(text.contains("peernet_relay_reservations 0"), "{text}");
}
