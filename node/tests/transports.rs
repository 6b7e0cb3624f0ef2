//! Agents that speak TCP, QUIC and WebSocket: one connection and numbers of its own for each, over loopback and between
//! two network namespaces.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::time::Duration;

use libp2p::PeerId;
use peernet_api::{report::PeerReport, transport::Transport};
use peernet_node::{agent::Agent, config::Config, discovery::Address};

use crate::support::{config, eventually, get, metric, metric_reaches, netns::Pair, report, row_when};

const TCP_AND_QUIC: [Transport; 2] = [Transport::Tcp, Transport::Quic];

async fn start(secret: u8, name: &str, transports: &[Transport], seeds: &[Address]) -> Agent {
    Agent::start(over(secret, name, transports, seeds)).await.unwrap()
}

fn over(secret: u8, name: &str, transports: &[Transport], seeds: &[Address]) -> Config {
    Config {
        transports: transports.to_vec(),
        seeds: seeds.to_vec(),
        ..config(secret, name, &[])
    }
}

/// How often a peer answered over each transport, if a connection stands over it.
fn answers(row: &PeerReport, first: Transport) -> Vec<(Transport, Option<u64>)> {
    let stands = row.first_connected.unwrap_or(row.connected);
    let further = row.transports.iter();
    [(first, stands.then_some(row.answered))]
        .into_iter()
        .chain(further.map(|over| (over.transport, over.connected.then_some(over.answered))))
        .collect()
}

/// Waits until a peer has answered over all of these, the first of which is the agent's first.
async fn measured(agent: &Agent, peer: &PeerId, transports: &[Transport]) -> PeerReport {
    row_when(agent, peer, "all transports", |row| {
        let answers = answers(row, transports[0]);
        answers.len() == transports.len()
            && answers
                .iter()
                .zip(transports)
                .all(|((got, answered), wanted)| got == wanted && answered.is_some_and(|n| n >= 5))
    })
    .await
}

#[tokio::test]
async fn each_transport_is_connected_and_measured_by_itself() {
    let a = start(60, "mesh-0", &Transport::ALL, &[]).await;
    let b = start(60, "mesh-1", &Transport::ALL, &a.p2p_addresses()[..1]).await;
    for (agent, peer) in [(&a, b.peer_id()), (&b, a.peer_id())] {
        let row = measured(agent, &peer, &Transport::ALL).await;
        let report = report(agent).await;
        assert_eq!(
            (report.transports.as_slice(), report.events_dropped),
            (&Transport::ALL[..], 0)
        );
        for over in &row.transports {
            assert_eq!(over.rtt.count(), over.answered, "{over:?}");
            assert!(
                over.rtt.quantile(1).is_some_and(|nanos| nanos > 1_000),
                "{over:?}"
            );
            assert!(over.warm.quantile(500) <= over.rtt.quantile(500), "{over:?}");
            assert_eq!((over.timed_out, over.failed), (0, 0), "{over:?}");
        }
        for transport in Transport::ALL {
            let name =
                format!("peernet_transport_probes_total{{transport=\"{transport}\",result=\"answered\"}}");
            assert!(metric(agent, &name).await >= 5.0);
        }
    }
    // One connection a transport, and no more once both ends have settled.
    eventually("one connection over each", || async {
        let connections = metric(&a, "peernet_connections").await;
        if connections == 3.0 {
            Ok(())
        } else {
            Err(connections.to_string())
        }
    })
    .await;
    assert_eq!(metric(&a, "peernet_peers").await, 1.0);
}

/// Ping over QUIC stalls where a responder waits for something to wake it: with pauses that both ends have in common,
/// nobody notices.
#[tokio::test]
async fn answers_come_at_once_also_where_the_two_ends_probe_at_different_paces() {
    let fast = start(61, "mesh-0", &Transport::ALL, &[]).await;
    let mut slow = over(61, "mesh-1", &Transport::ALL, &fast.p2p_addresses()[..1]);
    slow.probe.interval = Duration::from_secs(40);
    let slow = Agent::start(slow).await.unwrap();
    let row = row_when(&fast, &slow.peer_id(), "many answers", |row| {
        row.answered >= 60 && row.transports.iter().all(|over| over.answered >= 60)
    })
    .await;
    for over in &row.transports {
        let (p50, lost) = (over.rtt.quantile(500).unwrap(), over.timed_out + over.failed);
        assert!(Duration::from_nanos(p50) < Duration::from_millis(50), "{over:?}");
        // Far more than a busy machine needs, far less than a stall.
        let p90 = Duration::from_nanos(over.rtt.quantile(900).unwrap());
        assert!(p90 < Duration::from_millis(500), "{over:?}");
        assert_eq!(lost, 0, "{over:?}");
    }
}

#[tokio::test]
async fn networks_with_different_transports_meet_over_what_they_share() {
    let a = start(62, "mesh-0", &[Transport::Tcp], &[]).await;
    let b = start(
        62,
        "mesh-1",
        &[Transport::Quic, Transport::Tcp],
        &a.p2p_addresses()[..1],
    )
    .await;
    let row = row_when(&a, &b.peer_id(), "TCP", |row| row.answered >= 5).await;
    assert!(row.connected && row.transports.is_empty(), "{row:?}");
    let row = row_when(&b, &a.peer_id(), "TCP", |row| {
        row.transports.first().is_some_and(|over| over.answered >= 5)
    })
    .await;
    assert_eq!(
        answers(&row, Transport::Quic)[0],
        (Transport::Quic, None),
        "{row:?}"
    );
    assert_eq!((row.connected, row.first_connected), (true, Some(false)));
    assert_eq!(
        (row.answered, row.rtt.is_empty()),
        (0, true),
        "what is not known is not told"
    );
    // Nobody dials a transport that the other one does not have.
    assert_eq!(metric(&b, "peernet_dials_total{result=\"failed\"}").await, 0.0);
}

#[tokio::test]
async fn agents_of_one_transport_other_than_tcp_find_each_other() {
    for (secret, transport) in [(63, Transport::Quic), (64, Transport::WebSocket)] {
        let a = start(secret, "mesh-0", &[transport], &[]).await;
        let b = start(secret, "mesh-1", &[transport], a.p2p_addresses()).await;
        measured(&a, &b.peer_id(), &[transport]).await;
        measured(&b, &a.peer_id(), &[transport]).await;
        // Both leave in good order, and are seen to.
        let peer = b.peer_id();
        b.stop().await.unwrap();
        row_when(&a, &peer, "it leaves", |row| !row.connected).await;
    }
}

#[tokio::test]
async fn strangers_are_turned_away_over_every_transport() {
    let a = start(65, "mesh-0", &Transport::ALL, &[]).await;
    for (n, transport) in Transport::ALL.into_iter().enumerate() {
        let before = metric(&a, "peernet_strangers_rejected_total").await;
        let address = a.p2p_addresses()[n];
        let stranger = start(66 + n as u8, "mesh-1", &[transport], &[address]).await;
        // Each is the other's stranger, and both get to know it.
        for (agent, before) in [(&a, before), (&stranger, 0.0)] {
            metric_reaches(agent, "peernet_strangers_rejected_total", before + 1.0).await;
        }
        assert!(report(&a).await.peers.is_empty());
        stranger.stop().await.unwrap();
    }
}

/// Where UDP is dropped, QUIC has no connection and says so; TCP goes on, and QUIC comes back by itself.
#[test]
fn where_udp_is_dropped_quic_is_missing_and_nothing_else() {
    let pair = match Pair::new("udp") {
        Ok(pair) => pair,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let settings = |host: usize, seeds: &[Address]| {
        let mut config = over(69, &format!("mesh-{host}"), &TCP_AND_QUIC, seeds);
        let ip = Pair::ADDRESSES[host].into();
        config.listen = Some(ip);
        config.http = Some((ip, 0).into());
        config.probe.interval = Duration::from_millis(200);
        config.probe.timeout = Duration::from_secs(1);
        config
    };
    let a = pair.on(0, || async { Agent::start(settings(0, &[])).await.unwrap() });
    let seeds = [a.p2p_addresses()[0]];
    let b = pair.on(1, || async { Agent::start(settings(1, &seeds)).await.unwrap() });
    let peer = b.peer_id();
    let row = pair.on(0, || measured(&a, &peer, &TCP_AND_QUIC));
    assert!(row.network.is_some() || row.answered >= 5);

    for host in [0, 1] {
        pair.lose(host, 1000, &["-p", "udp"]).unwrap();
    }
    let blocked = pair.on(0, || {
        row_when(&a, &peer, "QUIC is lost", |row| {
            row.transports.first().is_some_and(|quic| !quic.connected)
        })
    });
    assert!(
        blocked.connected && blocked.first_connected.is_none(),
        "{blocked:?}"
    );
    let quic = &blocked.transports[0];
    assert!(
        quic.timed_out > 0 && quic.rtt.count() == quic.answered,
        "{quic:?}"
    );
    let later = pair.on(0, || {
        row_when(&a, &peer, "TCP goes on", |row| {
            row.answered > blocked.answered + 20
        })
    });
    assert_eq!(
        (later.timed_out, later.failed),
        (0, 0),
        "TCP lost nothing: {later:?}"
    );
    assert!(!later.transports[0].connected, "{later:?}");

    for host in [0, 1] {
        pair.run(host, "iptables", &["-F", "INPUT"]).unwrap();
    }
    let before = later.transports[0].answered;
    pair.on(0, || {
        row_when(&a, &peer, "QUIC is back", |row| {
            row.transports
                .first()
                .is_some_and(|quic| quic.connected && quic.answered > before)
        })
    });
    let metrics = pair.on(0, || async { get(a.http_address(), "/metrics").await.text() });
    assert!(metrics.contains("peernet_transport_probes_total{transport=\"QUIC\",result=\"timeout\"}"));
}
