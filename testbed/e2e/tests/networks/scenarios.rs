//! The scenarios that this project began with, each as the page of its name in `docs/scenarios.md` shows it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use peernet_api::{report::FoundBy, v1alpha1::PeerNetworkStatus};
use peernet_e2e::{
    Outcome,
    faults::Fault,
    network::{Network, yaml},
    program::lines,
    scenario::{PodSecurity, Scenario, scenario, testbed_scenario_with},
};
use serde_json::{Value, json};

/// Agents on so many nodes, as evenly as can be.
fn on_nodes(nodes: &[String]) -> Value {
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": nodes});
    json!({
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}},
        "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
    })
}

fn nodes_of(status: &PeerNetworkStatus) -> BTreeSet<String> {
    status
        .nodes
        .iter()
        .filter_map(|row| row.node_name.clone())
        .collect()
}

#[test]
fn a_two_pods_ping_each_other_on_one_node_and_on_two() {
    scenario("two-pods", async |scenario| {
        let nodes = crate::free_nodes(scenario).await?;
        let two = nodes.get(..2).ok_or("two nodes are needed")?;
        let one = nodes.get(..1).ok_or("a node is needed")?;
        let near = json!({"replicas": 2, "podTemplate": on_nodes(one)});
        let near = Network::create(scenario, "near", near).await?;
        let far = json!({"replicas": 2, "podTemplate": on_nodes(two)});
        let far = Network::create(scenario, "far", far).await?;
        for (network, on) in [(&near, 1), (&far, 2)] {
            let status = network.until_ready(2).await?;
            assert_eq!(nodes_of(&status).len(), on, "{}", yaml(&status));
            let rtt = status.rtt.as_ref().ok_or("no round trips")?;
            assert!(rtt.p50_micros > 0 && rtt.samples >= 2, "{}", yaml(&status));
            // Both directions were measured.
            let links: BTreeSet<_> = status
                .worst_links
                .iter()
                .map(|link| (&link.from, &link.to))
                .collect();
            assert_eq!(links.len(), 2, "{}", yaml(&status));
            peernet_e2e::note(&format!(
                "two pods on {on} node(s): RTT p50 {} us, p99 {} us, {} samples",
                rtt.p50_micros, rtt.p99_micros, rtt.samples
            ));
        }
        Ok(())
    });
}

#[test]
fn b_two_pods_find_each_other_by_mdns_alone() {
    scenario("mdns-alone", async |scenario| {
        let nodes = crate::free_nodes(scenario).await?;
        let one = nodes.get(..1).ok_or("a node is needed")?;
        let spec = json!({
            "replicas": 2,
            "discovery": {"dns": false, "kademlia": false, "mdns": true},
            "podTemplate": on_nodes(one),
        });
        let network = Network::create(scenario, "mesh", spec).await?;
        let status = network.until_ready(2).await?;
        let found = status.discovery.ok_or("status says nothing of discovery")?;
        assert!(found.mdns >= 1, "{}", yaml(&status));
        assert_eq!(found.mdns + found.inbound, 2, "{}", yaml(&status));
        assert_eq!(
            (found.dns, found.kademlia, found.bootstrap),
            (0, 0, 0),
            "{}",
            yaml(&status)
        );
        Ok(())
    });
}

#[test]
fn c_two_nodes_with_two_agents_each_by_mdns_on_a_node_and_kademlia_across() {
    let what = "two nodes with two agents each";
    testbed_scenario_with(PodSecurity::Privileged, what, "host-network", async |scenario| {
        let nodes = crate::free_nodes(scenario).await?;
        let two = nodes.get(..2).ok_or("two nodes are needed")?;
        let [a, b] = two else {
            return Err("two nodes are needed".into());
        };
        // As in most data centres: multicast stays on its node.
        let no_multicast = Fault::no_multicast(a, b).await?;
        let spec = json!({
            "hostNetwork": true,
            "replicas": 4,
            "discovery": {"dns": false},
            "podTemplate": on_nodes(two),
        });
        let network = Network::create(scenario, "mesh", spec).await?;
        // On each node, the two find each other, and nobody else.
        let status = network
            .until("both nodes' agents have found each other", |status| {
                let found = status.peers.as_ref().map(|peers| peers.fewest_connected);
                found == Some(1) && status.discovery.is_some_and(|found| found.mdns >= 2)
            })
            .await?;
        assert_eq!(nodes_of(&status).len(), 2, "{}", yaml(&status));
        // One contact on one of the nodes is enough: the DHT tells of the rest.
        let contact = status.nodes.iter().find(|row| row.name == "mesh-0");
        let peer_id = contact
            .and_then(|row| row.peer_id.clone())
            .ok_or("mesh-0 has no peer id")?;
        let address = network.addresses(["mesh-0"]).await?;
        let port = status.host_ports.ok_or("no ports in status")?.first;
        let bootstrap = format!("/ip4/{}/tcp/{port}/p2p/{peer_id}", address[0]);
        network
            .change(json!({"discovery": {"bootstrapPeers": [bootstrap]}}))
            .await?;
        let status = network.until_ready(4).await?;
        assert!(
            status.external.is_empty(),
            "a member is no external host: {}",
            yaml(&status)
        );
        peernet_e2e::note(&format!(
            "four agents on two nodes: found by {:?}",
            status.discovery
        ));

        let node_of = |name: &str| {
            let row = status.nodes.iter().find(|row| row.name == name);
            row.and_then(|row| row.node_name.clone())
        };
        let (mut across, mut within) = (Vec::new(), Vec::new());
        for agent in ["mesh-0", "mesh-1", "mesh-2", "mesh-3"] {
            for peer in network.report(agent).await?.0.peers {
                let found = peer.found_by.ok_or("an agent does not say how it found a peer")?;
                let same_node = node_of(agent) == node_of(&peer.name);
                let text = format!("{agent} found {} by {found:?}", peer.name);
                if same_node {
                    assert!(found != FoundBy::Dns, "{text}, on its own node");
                    within.push(found);
                } else {
                    assert!(
                        found != FoundBy::Mdns && found != FoundBy::Dns,
                        "{text}, on the other node"
                    );
                    across.push(found);
                }
            }
        }
        assert!(within.contains(&FoundBy::Mdns), "{within:?}");
        assert!(across.contains(&FoundBy::Kademlia), "{across:?}");
        records_and_providers(scenario, &network).await?;
        no_multicast.mend().await
    });
}

/// What the DHT of four agents is for: put on one, got on every other one; offered by two, found by a third; and still there
/// when the pod that put it has gone.
async fn records_and_providers(scenario: &Scenario, network: &Network) -> Outcome {
    let put = lines(scenario, "mesh-0", &["PUT greeting hello world"]).await?;
    assert_eq!(put[0]["of"], 3, "{put:?}");
    for pod in ["mesh-1", "mesh-2", "mesh-3"] {
        let got = lines(scenario, pod, &["GET greeting"]).await?;
        assert_eq!(got[0]["value"], "hello world", "{pod}: {got:?}");
    }
    for pod in ["mesh-0", "mesh-1"] {
        lines(scenario, pod, &["PUT_PROVIDER shop"]).await?;
    }
    let found = lines(scenario, "mesh-2", &["GET_PROVIDERS shop"]).await?;
    let providers: BTreeSet<&str> = found[0]["providers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|provider| provider["name"].as_str())
        .collect();
    assert_eq!(providers, BTreeSet::from(["mesh-0", "mesh-1"]), "{found:?}");

    network
        .api::<Pod>()
        .delete("mesh-0", &DeleteParams::default().grace_period(0))
        .await?;
    for pod in ["mesh-1", "mesh-2", "mesh-3"] {
        let got = lines(scenario, pod, &["GET greeting"]).await?;
        assert_eq!(got[0]["value"], "hello world", "{pod}: {got:?}");
    }
    Ok(())
}
