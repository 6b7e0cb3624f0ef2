//! Hosts outside the network: a stock libp2p host that agents are told to connect to is measured, apart from the members.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    multiaddr::Protocol,
    ping,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use peernet_api::{
    report::{ExternalReport, FoundBy},
    transport::Transport,
};
use peernet_node::{
    agent::Agent,
    config::{Bootstrap, Config, Place},
    discovery::Address,
};

use crate::support::{DEADLINE, config, eventually, meshed, metric, report, row, swarms};

/// What any libp2p program has.
#[derive(NetworkBehaviour)]
struct Stock {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

/// A stock host on loopback, and where it is.
async fn stock_host() -> (Swarm<Stock>, Bootstrap) {
    let mut host = swarms::swarm(|key| Stock {
        ping: ping::Behaviour::default(),
        identify: identify::Behaviour::new(identify::Config::new("/stock/1.0.0".to_owned(), key.public())),
    });
    let mut address = swarms::listen(&mut host).await;
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    let place = Place::Address(Address::parse(&address).unwrap());
    let peer = *host.local_peer_id();
    (host, Bootstrap { peer, place })
}

fn with_bootstrap(name: &str, bootstrap: &[Bootstrap], seeds: &[std::net::SocketAddr]) -> Config {
    Config {
        bootstrap: bootstrap.to_vec(),
        ..config(21, name, seeds)
    }
}

async fn external_when(
    agent: &Agent,
    peer: PeerId,
    what: &str,
    good: impl Fn(&ExternalReport) -> bool,
) -> ExternalReport {
    eventually(what, || async {
        let report = report(agent).await;
        let found = report.external.iter().find(|row| row.peer_id == peer.to_string());
        match found {
            Some(row) if good(row) => Ok(row.clone()),
            _ => Err(format!("{:?}", report.external)),
        }
    })
    .await
}

#[tokio::test]
async fn a_stock_host_is_measured_apart_from_the_members() {
    let (mut host, place) = stock_host().await;
    let outside = place.peer;
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        loop {
            tokio::select! {
                event = host.select_next_some() => {
                    if let SwarmEvent::IncomingConnectionError { error, .. } = event {
                        panic!("{error}");
                    }
                }
                _ = &mut ended => return,
            }
        }
    });
    // One that is not there is named all the same.
    let nobody = Bootstrap {
        peer: PeerId::random(),
        place: Place::Address(Address::tcp("127.0.0.1:1".parse().unwrap())),
    };
    let a = Agent::start(with_bootstrap("mesh-0", &[place.clone(), nobody.clone()], &[]))
        .await
        .unwrap();
    let b = Agent::start(with_bootstrap("mesh-1", &[place], &[a.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;
    for agent in [&a, &b] {
        let row = external_when(agent, outside, "round trips to the host", |row| {
            row.connected && row.answered >= 20
        })
        .await;
        assert_eq!((row.rtt.count(), row.timed_out), (row.answered, 0), "{row:?}");
        assert!(row.address.starts_with("/ip4/127.0.0.1/tcp/"), "{row:?}");
        let report = report(agent).await;
        assert_eq!(report.peers.len(), 1, "it is no member: {:?}", report.peers);
        assert_eq!(metric(agent, "peernet_peers").await, 1.0);
    }
    // Nor are its samples among those of the members.
    let report_a = report(&a).await;
    let answered = metric(&a, "peernet_probes_total{result=\"answered\"}").await;
    let later = report(&a).await.peers[0].answered;
    assert!(answered <= later as f64, "{answered} samples of {later}");
    let silent = report_a
        .external
        .iter()
        .find(|row| row.peer_id == nobody.peer.to_string())
        .unwrap();
    assert_eq!(
        (silent.connected, silent.answered, silent.rtt.count()),
        (false, 0, 0)
    );

    end.send(()).unwrap();
    running.await.unwrap();
    let gone = external_when(&a, outside, "it leaves", |row| !row.connected).await;
    assert!(
        gone.answered >= 20,
        "what was measured stays for its window: {gone:?}"
    );
}

/// QUIC is not libp2p's own transport here: the two understand each other, whoever dials.
#[tokio::test]
async fn a_host_of_libp2p_s_own_quic_is_measured_and_measures() {
    let mut host = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic()
        .with_behaviour(|key| Stock {
            ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(50))),
            identify: identify::Behaviour::new(identify::Config::new(
                "/stock/1.0.0".to_owned(),
                key.public(),
            )),
        })
        .unwrap()
        .build();
    let address = swarms::listen_over(&mut host, Transport::Quic).await;
    let peer = *host.local_peer_id();
    let place = Place::Address(Address::parse(&address).unwrap());
    let over_quic = |name: &str| Config {
        transports: vec![Transport::Quic],
        guests: 1,
        ..with_bootstrap(name, &[], &[])
    };
    let mut dials = over_quic("mesh-0");
    dials.bootstrap = vec![Bootstrap { peer, place }];
    let dials = Agent::start(dials).await.unwrap();
    let is_dialed = Agent::start(over_quic("mesh-1")).await.unwrap();
    host.dial(Multiaddr::from(is_dialed.p2p_addresses()[0])).unwrap();
    let (tell, mut answered) = tokio::sync::mpsc::channel(16);
    let running = tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(StockEvent::Ping(ping::Event {
                peer, result: Ok(_), ..
            })) = host.select_next_some().await
            {
                // More of the same has no need to fit.
                let _ = tell.try_send(peer);
            }
        }
    });
    let row = external_when(&dials, peer, "round trips over QUIC", |row| row.answered >= 20).await;
    assert!(row.address.ends_with("/quic-v1"), "{row:?}");
    for agent in [&dials, &is_dialed] {
        let wanted = agent.peer_id();
        let heard = async { while answered.recv().await.unwrap() != wanted {} };
        tokio::time::timeout(DEADLINE, heard).await.unwrap();
    }
    running.abort();
}

#[tokio::test]
async fn a_bootstrap_peer_that_is_a_member_is_a_member() {
    let a = Agent::start(config(22, "mesh-0", &[])).await.unwrap();
    let place = Bootstrap {
        peer: a.peer_id(),
        place: Place::Address(Address::tcp(a.p2p_address())),
    };
    let b = Agent::start(Config {
        bootstrap: vec![place],
        ..config(22, "mesh-1", &[])
    })
    .await
    .unwrap();
    meshed(&[&a, &b]).await;
    let report_b = report(&b).await;
    assert!(report_b.external.is_empty(), "{:?}", report_b.external);
    let (of_a, of_b) = (
        row(&report_b, &a.peer_id()).unwrap(),
        report(&a).await.peers[0].clone(),
    );
    assert_eq!(of_a.found_by, Some(FoundBy::Bootstrap));
    assert_eq!(of_b.found_by, Some(FoundBy::Inbound));
}
