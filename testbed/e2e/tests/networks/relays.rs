//! Pods that can't reach each other are connected through one that relays, also from one network to another.

use std::time::Instant;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{ObjectMeta, PostParams};
use peernet_api::{
    identity::{NetworkSecret, SECRET_KEY},
    report::Path,
    v1alpha1::conditions::{CONNECTED, READY},
};
use peernet_e2e::{
    Outcome,
    faults::Fault,
    network::{Network, is, message, peers_column, yaml},
    note,
    scenario::{Scenario, testbed_scenario},
    waiting::{ensure, eventually},
};
use serde_json::json;

#[test]
fn two_groups_of_pods_that_are_cut_off_from_each_other_meet_through_a_relay_and_then_directly() {
    testbed_scenario("the cut between two groups of pods", "relays", async |scenario| {
        let spec = json!({"replicas": 5, "relay": {"enabled": true, "servers": 1}});
        let network = Network::create(scenario, "mesh", spec).await?;
        let status = network.until_ready(5).await?;
        assert_eq!(paths(&status), Some((10, 0)), "{}", yaml(&status));

        let names = ["mesh-1", "mesh-2", "mesh-3", "mesh-4"];
        let [one, two, three, four] = network.addresses(names).await?;
        let mut cuts = Vec::new();
        for left in [&one, &two] {
            for right in [&three, &four] {
                cuts.push(Fault::partition(left, right).await?);
            }
        }
        let cut = Instant::now();
        let status = network
            .until("both groups to be joined by the relay, and measured", |status| {
                let Some(known) = &status.paths else { return false };
                let measured = |pair: &peernet_api::v1alpha1::RelayedPair| {
                    pair.relay.as_deref() == Some("mesh-0")
                        && pair.samples >= 5
                        && pair.relay_rtt_p50_micros.is_some()
                };
                paths(status) == Some((6, 4))
                    && known.relayed_pairs.len() == 4
                    && known.relayed_pairs.iter().all(measured)
                    && known.relayed_rtt.is_some()
                    && is(status, READY, "True")
            })
            .await?;
        note(&format!(
            "four pairs were relayed and measured {:.1} s after the cut",
            cut.elapsed().as_secs_f64()
        ));
        assert!(
            is(&status, CONNECTED, "True") && peers_column(&status) == "4/4",
            "{}",
            yaml(&status)
        );
        assert!(
            message(&status, CONNECTED).contains("4 pairs through relays alone"),
            "{}",
            yaml(&status)
        );
        for pair in status.paths.iter().flat_map(|known| &known.relayed_pairs) {
            note(&format!(
                "{} -> {}: {} us through {}, {} us to it",
                pair.from,
                pair.to,
                pair.rtt_p50_micros.unwrap_or_default(),
                pair.relay.as_deref().unwrap_or_default(),
                pair.relay_rtt_p50_micros.unwrap_or_default(),
            ));
        }
        // Relayed pairs are in none of the direct numbers.
        let across = |link: &peernet_api::v1alpha1::Link| {
            let left = |name: &str| ["mesh-1", "mesh-2"].contains(&name);
            link.from != "mesh-0" && link.to != "mesh-0" && left(&link.from) != left(&link.to)
        };
        let status = network
            .until("the numbers of the direct way to grow old", |status| {
                !status.worst_links.iter().any(across)
            })
            .await?;
        assert!(status.rtt.is_some(), "{}", yaml(&status));

        // From now on one group gets out to the other, and not the other way round.
        let mut walls = Vec::new();
        for (left, right) in [(&one, &three), (&one, &four), (&two, &three), (&two, &four)] {
            walls.push(Fault::no_connections(right, left).await?);
        }
        for fault in cuts {
            fault.mend().await?;
        }
        let mended = Instant::now();
        network
            .until("all pairs to be direct again", |status| {
                paths(status) == Some((10, 0))
            })
            .await?;
        note(&format!(
            "all pairs were direct {:.1} s after the cut ended for what one group opens",
            mended.elapsed().as_secs_f64()
        ));
        for wall in walls {
            wall.mend().await?;
        }
        network
            .until("the network to be as before", |status| {
                paths(status) == Some((10, 0)) && is(status, READY, "True")
            })
            .await?;
        Ok(())
    });
}

#[test]
fn two_networks_that_share_a_secret_are_joined_by_a_relay() {
    testbed_scenario("the cut between two networks", "federation", async |scenario| {
        let secret = NetworkSecret::new(&[42; 32])?;
        put_secret(scenario, "west", [42; 32]).await?;
        put_secret(scenario, "east", [42; 32]).await?;
        let spec = json!({"replicas": 2, "relay": {"enabled": true, "servers": 1}});
        let west = Network::create(scenario, "west", spec).await?;
        west.until_ready(2).await?;
        let [relay, other] = west.addresses(["west-0", "west-1"]).await?;
        let join = format!("/ip4/{relay}/tcp/4001/p2p/{}", secret.peer_id("west-0"));
        let spec = json!({
            "replicas": 1,
            "relay": {"enabled": true, "servers": 0},
            "discovery": {"mdns": false, "bootstrapPeers": [join]},
        });
        let east = Network::create(scenario, "east", spec).await?;
        let [alone] = eventually("an address", async || east.addresses(["east-0"]).await).await?;
        let _cut = Fault::partition(&other, &alone).await?;
        for (network, from, about) in [(&east, "east-0", "west-1"), (&west, "west-1", "east-0")] {
            let row = eventually("a circuit from network to network", async || {
                let row = network.row(from, about).await?;
                let answered = row.relayed.as_ref().map_or(0, |relayed| relayed.answered);
                ensure(row.path == Some(Path::Relayed) && answered >= 5, || {
                    format!("{row:?}")
                })?;
                Ok(row)
            })
            .await?;
            assert_eq!(row.relay.as_deref(), Some("west-0"), "{row:?}");
        }
        let status = east
            .until("the federation in the status", |status| {
                let federated = status.paths.as_ref().and_then(|known| known.federated.as_ref());
                federated.is_some_and(|known| {
                    (known.members, known.direct, known.relayed) == (2, 1, 1) && known.relayed_rtt.is_some()
                })
            })
            .await?;
        note(&yaml(&status));
        Ok(())
    });
}

/// Direct and relayed pairs.
fn paths(status: &peernet_api::v1alpha1::PeerNetworkStatus) -> Option<(i32, i32)> {
    status.paths.as_ref().map(|paths| (paths.direct, paths.relayed))
}

/// What makes networks one federation: the same secret, there before them.
async fn put_secret(scenario: &Scenario, network: &str, bytes: [u8; 32]) -> Outcome {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!("{network}-identity")),
            ..ObjectMeta::default()
        },
        data: Some([(SECRET_KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
        ..Secret::default()
    };
    scenario
        .api::<Secret>()
        .create(&PostParams::default(), &secret)
        .await?;
    Ok(())
}
