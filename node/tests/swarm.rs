//! Several real agents over loopback TCP: they find each other, measure, come and go.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::time::Duration;

use peernet_node::{
    agent::Agent,
    config::{Bootstrap, Place, Probe},
    discovery::Address,
};

use crate::support::{
    DEADLINE, Forwarder, config, eventually, meshed, metric, metric_reaches, report, row, row_when, secret,
};

#[tokio::test]
async fn a_mesh_forms_from_addresses_and_everyone_measures_everyone() {
    let a = Agent::start(config(1, "mesh-0", &[])).await.unwrap();
    let b = Agent::start(config(1, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    let c = Agent::start(config(1, "mesh-2", &[a.p2p_address(), b.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&a, &b, &c]).await;
    for (agent, name) in [(&a, "mesh-0"), (&b, "mesh-1"), (&c, "mesh-2")] {
        let report = report(agent).await;
        assert_eq!((report.name.as_str(), report.peers.len()), (name, 2));
        assert_eq!((report.network.as_str(), report.events_dropped), ("demo/mesh", 0));
        for row in &report.peers {
            assert_eq!(row.peer_id, secret(1).peer_id(&row.name).to_string());
            assert_eq!(row.rtt.count(), row.answered);
            assert!(row.rtt.quantile(1).is_some_and(|nanos| nanos > 1_000), "{row:?}");
            assert!(row.newest_sample_age_millis.is_some());
        }
        assert!(metric(agent, "peernet_probes_total{result=\"answered\"}").await >= 6.0);
        assert_eq!(metric(agent, "peernet_peers").await, 2.0);
    }
    for agent in [a, b, c] {
        agent.stop().await.unwrap();
    }
}

#[tokio::test]
async fn one_contact_is_enough_where_members_tell_each_other_of_members() {
    let hub = Agent::start(peernet_node::config::Config {
        kademlia: true,
        ..config(2, "mesh-0", &[])
    })
    .await
    .unwrap();
    let contact = Bootstrap {
        peer: hub.peer_id(),
        place: Place::Address(Address::tcp(hub.p2p_address())),
    };
    let mut agents = vec![hub];
    for n in 1..4 {
        let mut config = config(2, &format!("mesh-{n}"), &[]);
        config.kademlia = true;
        config.bootstrap.push(contact.clone());
        agents.push(Agent::start(config).await.unwrap());
    }
    meshed(&agents.iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn who_knows_only_an_agent_that_is_full_finds_others_through_it() {
    // It dials two peers and takes ten: of the thirteen that know nobody else, three get a place for a short while only.
    let (limit, places, others) = (2, 10, 13);
    let full = |name: &str| peernet_node::config::Config {
        kademlia: true,
        peers_per_node: limit,
        ..config(6, name, &[])
    };
    let hub = Agent::start(full("mesh-0")).await.unwrap();
    let contact = Bootstrap {
        peer: hub.peer_id(),
        place: Place::Address(Address::tcp(hub.p2p_address())),
    };
    let mut agents = Vec::new();
    for n in 1..=others {
        let mut config = full(&format!("mesh-{n}"));
        config.bootstrap.push(contact.clone());
        agents.push(Agent::start(config).await.unwrap());
    }
    metric_reaches(&hub, "peernet_connections", f64::from(others)).await;
    eventually("those beyond its places leave", || async {
        let held = metric(&hub, "peernet_connections").await;
        if held <= f64::from(places) + limit as f64 {
            Ok(())
        } else {
            Err(held.to_string())
        }
    })
    .await;
    for agent in &agents {
        eventually("each has somebody all the same", || async {
            let rows = report(agent).await.peers;
            if rows.iter().any(|row| row.connected && row.answered > 0) {
                Ok(())
            } else {
                Err(format!("{rows:?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_member_that_starts_again_is_the_same_peer_with_nothing_of_the_old_one_s_numbers() {
    let a = Agent::start(config(3, "mesh-0", &[])).await.unwrap();
    let b = Agent::start(config(3, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    let peer = b.peer_id();
    row_when(&a, &peer, "three seconds of probes", |row| row.answered >= 60).await;
    b.stop().await.unwrap();
    let before = row_when(&a, &peer, "it leaves", |row| !row.connected).await;
    assert!(before.answered >= 60);

    let b = Agent::start(config(3, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    assert_eq!(b.peer_id(), peer);
    let after = row_when(&a, &peer, "it returns", |row| row.connected && row.answered > 0).await;
    assert_eq!(after.name, "mesh-1");
    // No more than what there was time for since it started again.
    let report_b = report(&b).await;
    assert!(after.answered <= report_b.uptime_millis / 50 + 2, "{after:?}");
    // Nor does the new process report anything that the old one measured.
    let row_b = row(&report_b, &a.peer_id()).map_or(0, |row| row.answered);
    assert!(row_b <= report_b.uptime_millis / 50 + 2, "{report_b:?}");
    assert_eq!(report(&a).await.peers.len(), 1);
}

#[tokio::test]
async fn two_networks_that_meet_never_count_each_other() {
    let a = Agent::start(config(4, "mesh-0", &[])).await.unwrap();
    let b = Agent::start(config(4, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    // The same names and the same network name, but another secret.
    let stranger = Agent::start(config(5, "mesh-0", &[a.p2p_address(), b.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;
    // Who of a pair is first to turn the other away ends their connection, perhaps before the other could judge.
    eventually("both pairs part", || async {
        let mut rejected = 0.0;
        for agent in [&a, &b, &stranger] {
            rejected += metric(agent, "peernet_strangers_rejected_total").await;
        }
        if rejected >= 2.0 {
            Ok(())
        } else {
            Err(rejected.to_string())
        }
    })
    .await;
    for agent in [&a, &b] {
        eventually("its connections end", || async {
            let connections = metric(agent, "peernet_connections").await;
            if connections <= 1.0 {
                Ok(())
            } else {
                Err(connections.to_string())
            }
        })
        .await;
        let report = report(agent).await;
        assert_eq!(report.peers.len(), 1, "{:?}", report.peers);
        assert!(row(&report, &stranger.peer_id()).is_none());
    }
    assert!(report(&stranger).await.peers.is_empty());
}

#[tokio::test]
async fn a_member_that_left_leaves_the_report_after_one_window() {
    let window = Duration::from_secs(2);
    let mut config_a = config(6, "mesh-0", &[]);
    config_a.probe = Probe {
        window,
        ..config_a.probe
    };
    let a = Agent::start(config_a).await.unwrap();
    let b = Agent::start(config(6, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    let peer = b.peer_id();
    row_when(&a, &peer, "they meet", |row| row.connected && row.answered >= 3).await;
    b.stop().await.unwrap();
    eventually("it is forgotten", || async {
        let report = report(&a).await;
        if report.peers.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?}", report.peers))
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_stops_answering_is_loss_then_gone_then_found_again() {
    let a = Agent::start(config(7, "mesh-0", &[])).await.unwrap();
    let link = Forwarder::to(a.p2p_address()).await;
    let mut config_b = config(7, "mesh-1", &[link.address]);
    config_b.probe.timeout = Duration::from_millis(500);
    let b = Agent::start(config_b).await.unwrap();
    let peer = a.peer_id();
    row_when(&b, &peer, "they meet", |row| row.connected && row.answered >= 3).await;

    link.freeze();
    let lost = row_when(&b, &peer, "the link is dead", |row| !row.connected).await;
    assert!(lost.timed_out >= 3, "{lost:?}");
    assert_eq!(lost.rtt.count(), lost.answered, "a timeout is no latency");
    let longest = Duration::from_nanos(lost.rtt.max().unwrap());
    assert!(
        longest < Duration::from_millis(505),
        "{longest:?} is beyond the timeout"
    );

    // While nobody is there, nothing is probed and nothing is lost.
    let before = metric(&b, "peernet_probes_total{result=\"timeout\"}").await;
    // The link is dialed again and again.
    metric_reaches(&b, "peernet_dials_total{result=\"failed\"}", 1.0).await;
    assert_eq!(
        metric(&b, "peernet_probes_total{result=\"timeout\"}").await,
        before
    );

    link.thaw();
    row_when(&b, &peer, "they meet again", |row| {
        row.connected && row.answered > lost.answered
    })
    .await;
}

#[tokio::test]
async fn a_stop_is_seen_at_once_and_ends_everything() {
    let a = Agent::start(config(8, "mesh-0", &[])).await.unwrap();
    let b = Agent::start(config(8, "mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;
    let (peer, http, p2p) = (b.peer_id(), b.http_address(), b.p2p_address());
    tokio::time::timeout(DEADLINE, b.stop()).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(http).await.is_err());
    assert!(tokio::net::TcpStream::connect(p2p).await.is_err());
    let row = row_when(&a, &peer, "it leaves", |row| !row.connected).await;
    assert_eq!(
        row.timed_out, 0,
        "an orderly farewell needs no timeout to be seen"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let a = Agent::start(config(9, "mesh-0", &[])).await.unwrap();
    let mut taken = config(9, "mesh-1", &[]);
    taken.http = Some(a.http_address());
    let error = Agent::start(taken).await.unwrap_err().to_string();
    assert!(error.contains(&a.http_address().port().to_string()), "{error}");
}
