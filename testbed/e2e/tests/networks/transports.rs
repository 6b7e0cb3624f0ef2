//! A network over three transports: each connected and measured for the same pairs, and told apart when one is blocked.

use peernet_api::{
    transport::Transport,
    v1alpha1::{
        PeerNetworkStatus, TransportStatus,
        conditions::{CONNECTED, READY},
    },
};
use peernet_e2e::{
    faults::Fault,
    network::{Network, is, is_whole, message, yaml},
    note,
    scenario::{scenario, testbed_scenario},
};
use serde_json::json;

const ALL: [&str; 3] = ["TCP", "QUIC", "WebSocket"];

#[test]
fn three_transports_of_the_same_pairs_stand_side_by_side() {
    scenario("transports", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"transports": ALL})).await?;
        network.until_ready(3).await?;
        let status = network
            .until("round trips over each transport", |status| {
                Transport::ALL.into_iter().all(|transport| {
                    row(status, transport).is_some_and(|row| row.connected_links == 6 && row.samples >= 60)
                })
            })
            .await?;
        let listed: Vec<Transport> = status.transports.iter().map(|row| row.transport).collect();
        assert_eq!(listed, Transport::ALL, "in the spec's order: {}", yaml(&status));
        for row in &status.transports {
            let (p50, p99) = (row.rtt_p50_micros, row.rtt_p99_micros);
            assert!(p50.is_some_and(|p50| p50 > 0) && p50 <= p99, "{}", yaml(&status));
            assert!(
                row.warm_p50_micros.is_some() && row.newest_sample_time.is_some(),
                "{row:?}"
            );
            assert_eq!(
                (row.expected_links, row.loss_ppm),
                (6, Some(0)),
                "{}",
                yaml(&status)
            );
            note(&format!(
                "{} p50 {} us, p99 {} us, warm p50 {} us",
                row.transport,
                p50.unwrap_or_default(),
                p99.unwrap_or_default(),
                row.warm_p50_micros.unwrap_or_default()
            ));
        }
        // The first one's are the network's own numbers.
        let (rtt, tcp) = (status.rtt.as_ref(), &status.transports[0]);
        assert_eq!(
            rtt.map(|rtt| rtt.p50_micros),
            tcp.rtt_p50_micros,
            "{}",
            yaml(&status)
        );
        assert!(
            !message(&status, READY).contains("links"),
            "{}",
            message(&status, READY)
        );
        Ok(())
    });
}

#[test]
fn where_udp_is_dropped_the_row_of_quic_says_it() {
    testbed_scenario("the loss of UDP", "udp-blocked", async |scenario| {
        let spec = json!({"transports": ["TCP", "QUIC"], "replicas": 2, "probe": {"window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(2).await?;
        network
            .until("QUIC", |status| {
                row(status, Transport::Quic).is_some_and(|row| row.connected_links == 2)
            })
            .await?;
        let [a, b] = network.addresses(["mesh-0", "mesh-1"]).await?;
        let there = Fault::loss_one_way(&a, &b, 100, "udp").await?;
        let status = network
            .until("a row that says that QUIC is blocked", |status| {
                row(status, Transport::Quic)
                    .is_some_and(|row| row.connected_links == 0 && row.rtt_p50_micros.is_none())
            })
            .await?;
        // A network that is connected is connected.
        assert!(
            is_whole(&status, 2) && is(&status, CONNECTED, "True"),
            "{}",
            yaml(&status)
        );
        let tcp = row(&status, Transport::Tcp).ok_or("no row of TCP")?;
        assert!(
            tcp.connected_links == 2 && tcp.rtt_p50_micros.is_some() && tcp.loss_ppm == Some(0),
            "{}",
            yaml(&status)
        );
        for condition in [READY, CONNECTED] {
            let says = message(&status, condition);
            assert!(says.contains("QUIC connects 0 of 2 links"), "{says}");
        }
        there.mend().await?;
        network
            .until("QUIC again", |status| {
                row(status, Transport::Quic)
                    .is_some_and(|row| row.connected_links == 2 && row.rtt_p50_micros.is_some())
                    && !message(status, READY).contains("QUIC")
            })
            .await
            .map(drop)
    });
}

fn row(status: &PeerNetworkStatus, transport: Transport) -> Option<&TransportStatus> {
    status.transports.iter().find(|row| row.transport == transport)
}
