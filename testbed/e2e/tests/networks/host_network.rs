//! Agents on their nodes' own network: several on a node, several networks on a node, and ports that something else has.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use peernet_api::v1alpha1::{PeerNetworkStatus, conditions::READY};
use peernet_e2e::Outcome;
use peernet_e2e::network::{Network, condition, message, yaml};
use peernet_e2e::scenario::{PodSecurity, Scenario, scenario_with};
use serde_json::{Value, json};

fn on_host_network(name: &str, test: impl AsyncFnOnce(&Scenario) -> Outcome) {
    scenario_with(PodSecurity::Privileged, name, test);
}

/// A spec of agents on these Kubernetes nodes' own network, as evenly as can be.
fn host_spec(replicas: i32, nodes: &[String]) -> Value {
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": nodes});
    json!({
        "hostNetwork": true,
        "replicas": replicas,
        "podTemplate": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}},
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
        },
    })
}

/// The network's agents by the Kubernetes node that they run on.
fn by_node(status: &PeerNetworkStatus) -> BTreeMap<String, BTreeSet<String>> {
    let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in &status.nodes {
        let node = row.node_name.clone().unwrap_or_default();
        nodes.entry(node).or_default().insert(row.name.clone());
    }
    nodes
}

#[test]
fn several_agents_of_a_network_share_a_node_and_its_address() {
    on_host_network("share-a-node", async |scenario| {
        let nodes = crate::free_nodes(scenario).await?;
        let two = nodes.get(..2).ok_or("two nodes are needed")?;
        let network = Network::create(scenario, "mesh", host_spec(4, two)).await?;
        let status = network.until_ready(4).await?;
        let agents = by_node(&status);
        assert!(
            agents.len() == 2 && agents.values().all(|agents| agents.len() == 2),
            "{}",
            yaml(&status)
        );
        let block = status.host_ports.ok_or("no ports in status")?;
        let mut ports = BTreeSet::new();
        for pod in network.pods().await?.into_values() {
            let port = peernet_e2e::network::http_port(&pod);
            assert!(
                (block.first..=block.last).contains(&i32::from(port)) && ports.insert(port),
                "{} has port {port}",
                pod.name_any()
            );
        }
        // Scaling moves nobody: those that stay keep their process.
        let before = network.lives().await?;
        network.scale(5).await?;
        network.until_ready(5).await?;
        let after = network.lives().await?;
        for (pod, life) in before {
            assert_eq!(after.get(&pod), Some(&life), "{pod}");
        }
        Ok(())
    });
}

#[test]
fn two_networks_on_the_same_nodes_have_ports_of_their_own() {
    on_host_network("own-ports", async |scenario| {
        let daemons = json!({"hostNetwork": true, "workload": "DaemonSet"});
        let one = Network::create(scenario, "one", daemons).await?;
        // Made at the same moment, so that neither sees the other's choice.
        let other = Network::create(scenario, "other", json!({"hostNetwork": true})).await?;
        let mut blocks = Vec::new();
        for network in [&one, &other] {
            let status = network
                .until("Ready", |status| {
                    status.desired_replicas >= 2
                        && peernet_e2e::network::is_whole(status, status.desired_replicas)
                })
                .await?;
            blocks.push(status.host_ports.ok_or("no ports in status")?);
        }
        let [one, other] = blocks.as_slice() else {
            return Err("two blocks".into());
        };
        assert!(one.last < other.first || other.last < one.first, "{blocks:?}");
        Ok(())
    });
}

#[test]
fn taken_ports_are_named_with_the_field_that_chooses_others() {
    on_host_network("taken-ports", async |scenario| {
        let nodes = crate::free_nodes(scenario).await?;
        let one_node = nodes.get(..1).ok_or("a node is needed")?;
        let mut spec = host_spec(2, one_node);
        spec["hostPortBase"] = json!(15_000);
        let first = Network::create(scenario, "first", spec.clone()).await?;
        first.until_ready(2).await.map(drop)?;
        // Nobody but the agent itself notices in a StatefulSet, and the scheduler in a DaemonSet.
        let second = Network::create(scenario, "second", spec.clone()).await?;
        let status = until_ports_taken(&second).await?;
        assert!(message(&status, READY).contains("1500"), "{}", yaml(&status));
        second.change(json!({"hostPortBase": 15_100})).await?;
        let status = second.until_ready(2).await?;
        assert_eq!(status.host_ports.map(|ports| ports.first), Some(15_100));
        Ok(())
    });
}

async fn until_ports_taken(network: &Network) -> Outcome<PeerNetworkStatus> {
    let status = network
        .until("PortsTaken", |status| {
            condition(status, READY).is_some_and(|found| found.reason == "PortsTaken")
        })
        .await?;
    let said = message(&status, READY);
    assert!(said.contains("spec.hostPortBase"), "{said}");
    peernet_e2e::note(&format!("taken ports: {said}"));
    Ok(status)
}
