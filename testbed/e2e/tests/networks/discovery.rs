//! Agents find each other, each way by itself, and never those of another network.

use std::collections::{BTreeMap, BTreeSet};

use crate::connected_peers;
use peernet_e2e::Outcome;
use peernet_e2e::network::{Network, yaml};
use peernet_e2e::scenario::{Scenario, scenario};
use serde_json::json;

#[test]
fn mdns_off_on_three_nodes() {
    scenario("mdns-off", async |scenario| {
        // The Service's DNS alone must carry the network, with and without the DHT.
        let dht = Network::create(scenario, "dht", json!({"discovery": {"mdns": false}})).await?;
        let spec = json!({"discovery": {"mdns": false, "kademlia": false}});
        let plain = Network::create(scenario, "plain", spec).await?;
        for network in [&dht, &plain] {
            let status = network.until_ready(3).await?;
            let nodes: BTreeSet<_> = status
                .nodes
                .iter()
                .filter_map(|node| node.node_name.clone())
                .collect();
            assert_eq!(nodes.len(), 3, "{}", yaml(&status));
            assert_true_identities(network, 3).await?;
        }
        Ok(())
    });
}

#[test]
fn mdns_alone_on_one_node() {
    scenario("mdns-alone", async |scenario| {
        let spec = json!({
            "discovery": {"dns": false, "kademlia": false, "mdns": true},
            "podTemplate": {"nodeSelector": {"kubernetes.io/hostname": a_node(scenario).await?}},
        });
        let network = Network::create(scenario, "mesh", spec).await?;
        let status = network.until_ready(3).await?;
        let nodes: BTreeSet<_> = status
            .nodes
            .iter()
            .filter_map(|node| node.node_name.clone())
            .collect();
        assert_eq!(nodes.len(), 1, "{}", yaml(&status));
        Ok(())
    });
}

#[test]
fn two_networks_side_by_side_never_meet() {
    scenario("side-by-side", async |scenario| {
        // On one node, so that multicast carries each network's questions to the other.
        let spec =
            json!({"podTemplate": {"nodeSelector": {"kubernetes.io/hostname": a_node(scenario).await?}}});
        let left = Network::create(scenario, "left", spec.clone()).await?;
        let right = Network::create(scenario, "right", spec).await?;
        left.until_ready(3).await?;
        right.until_ready(3).await?;
        let mut peer_ids = BTreeSet::new();
        for network in [&left, &right] {
            for (pod, life) in network.lives().await? {
                assert!(peer_ids.insert(life.peer_id), "{pod} has another's peer id");
                let (report, _) = network.report(&pod).await?;
                let members: Vec<_> = report.peers.iter().map(|peer| peer.name.clone()).collect();
                let expected: Vec<_> = (0..3)
                    .map(|n| format!("{}-{n}", network.name))
                    .filter(|name| *name != pod)
                    .collect();
                assert_eq!(
                    members, expected,
                    "{pod} knows its own network's members and no other"
                );
                assert_eq!(connected_peers(&report), expected);
                assert_eq!(network.metric(&pod, "peernet_peers").await?, "2", "{pod}");
            }
        }
        Ok(())
    });
}

/// Agents sign with the peer id that the status names, each its own.
async fn assert_true_identities(network: &Network, nodes: usize) -> Outcome {
    let named: BTreeMap<_, _> = network
        .status()
        .await?
        .nodes
        .into_iter()
        .map(|node| (node.pod, node.peer_id))
        .collect();
    assert_eq!(named.len(), nodes);
    for (pod, life) in network.lives().await? {
        assert_eq!(named.get(&Some(pod)), Some(&Some(life.peer_id)));
    }
    Ok(())
}

/// The name of a node that takes any pod.
async fn a_node(scenario: &Scenario) -> Outcome<String> {
    let nodes = crate::free_nodes(scenario).await?;
    Ok(nodes.first().ok_or("no node takes any pod")?.clone())
}
