//! Both kinds of workload, and changes of a network that runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::connected_peers;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use peernet_api::v1alpha1::conditions::{READY, reason};
use peernet_e2e::Outcome;
use peernet_e2e::network::{Life, Network, condition, is, message, nodes_column, peers_column, yaml};
use peernet_e2e::scenario::scenario;
use peernet_e2e::waiting::{ensure, eventually};
use serde_json::json;

#[test]
fn a_daemon_set_has_an_agent_on_every_node() {
    scenario("daemon-set", async |scenario| {
        let nodes: Api<Node> = Api::all(scenario.client.clone());
        let names: BTreeSet<_> = nodes
            .list(&ListParams::default())
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        let spec = json!({"workload": "DaemonSet", "podTemplate": {"tolerations": [{"operator": "Exists"}]}});
        let network = Network::create(scenario, "mesh", spec).await?;
        let status = network.until_ready(i32::try_from(names.len())?).await?;
        // Named for its node: the identity is the node's, whatever its pod is called.
        let members: BTreeSet<_> = status.nodes.iter().map(|node| node.name.clone()).collect();
        assert_eq!(members, names, "{}", yaml(&status));
        let budgets = scenario
            .api::<PodDisruptionBudget>()
            .list(&ListParams::default())
            .await?;
        assert_eq!(budgets.items.len(), 0, "a DaemonSet's pods are never drained");

        // Another pod on the same node has the same peer id.
        let before = peer_ids_by_node(&network).await?;
        let pod = network.pods().await?.into_keys().next().ok_or("no pod")?;
        network
            .api::<Pod>()
            .delete(&pod, &DeleteParams::default())
            .await?;
        eventually("another pod with the same peer id", async || {
            ensure(!network.pods().await?.contains_key(&pod), || {
                format!("{pod} is there")
            })?;
            let now = peer_ids_by_node(&network).await?;
            ensure(now == before, || format!("{now:?}"))
        })
        .await?;
        network.until_ready(i32::try_from(names.len())?).await.map(drop)
    });
}

#[test]
fn scaling_up_and_down() {
    scenario("scaling", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        let three = network.until_ready(3).await?;
        let first = network.lives().await?;
        network.scale(5).await?;
        let five = network.until_ready(5).await?;
        assert_eq!(
            five.peers
                .as_ref()
                .map(|peers| (peers.expected, peers.fewest_connected)),
            Some((4, 4))
        );
        let grown = network.lives().await?;
        assert_eq!(grown.len(), 5);
        for (name, life) in &first {
            assert_eq!(grown.get(name), Some(life), "{name} goes on as it was");
        }
        network.scale(2).await?;
        let two = network.until_ready(2).await?;
        assert_eq!(
            two.peers
                .as_ref()
                .map(|peers| (peers.expected, peers.fewest_connected)),
            Some((1, 1))
        );
        assert_eq!(two.nodes.len(), 2, "{}", yaml(&two));
        // Agents forget those that left: what is gone is no loss.
        eventually("reports about the two that are left", async || {
            for (pod, peer) in [("mesh-0", "mesh-1"), ("mesh-1", "mesh-0")] {
                let connected: Vec<_> = connected_peers(&network.report(pod).await?.0);
                ensure(connected == [peer], || {
                    format!("{pod} is connected to {connected:?}")
                })?;
            }
            Ok(())
        })
        .await?;
        assert_eq!(two.selector, three.selector);
        let pods = two.selector.clone().ok_or("no selector")?;
        let pods = scenario
            .kubectl(&["get", "pods", "--selector", &pods, "-o", "name"])
            .await?;
        assert!(
            pods.contains("pod/mesh-0") && pods.contains("pod/mesh-1"),
            "{pods}"
        );

        network.scale(0).await?;
        network
            .until("scaled to zero", |status| {
                condition(status, READY).is_some_and(|ready| ready.reason == reason::SCALED_TO_ZERO)
                    && nodes_column(status) == "0/0"
                    && status.rtt.is_none()
            })
            .await?;
        Ok(())
    });
}

#[test]
fn what_is_no_longer_desired_is_pruned() {
    scenario("prune", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"replicas": 2})).await?;
        network.until_ready(2).await?;
        network.change(json!({"workload": "DaemonSet"})).await?;
        let nodes: Api<Node> = Api::all(scenario.client.clone());
        let all = i32::try_from(nodes.list(&ListParams::default()).await?.items.len())?;
        let status = network.until_ready(all).await?;
        assert!(
            status
                .nodes
                .iter()
                .all(|node| Some(&node.name) == node.node_name.as_ref()),
            "{}",
            yaml(&status)
        );
        eventually("StatefulSet and disruption budget to go", async || {
            let sets = scenario
                .api::<StatefulSet>()
                .list(&ListParams::default())
                .await?
                .items
                .len();
            let budgets = scenario
                .api::<PodDisruptionBudget>()
                .list(&ListParams::default())
                .await?
                .items
                .len();
            ensure((sets, budgets) == (0, 0), || {
                format!("{sets} StatefulSets, {budgets} budgets")
            })
        })
        .await?;
        network
            .change(json!({"workload": "StatefulSet", "replicas": 1}))
            .await?;
        network
            .until("one agent alone", |status| {
                nodes_column(status) == "1/1" && is(status, READY, "True")
            })
            .await?;
        eventually("the DaemonSet to go", async || {
            let sets = scenario
                .api::<DaemonSet>()
                .list(&ListParams::default())
                .await?
                .items
                .len();
            ensure(sets == 0, || format!("{sets} DaemonSets"))
        })
        .await?;
        // A budget for a single agent would only stop drains.
        assert_eq!(
            scenario
                .api::<PodDisruptionBudget>()
                .list(&ListParams::default())
                .await?
                .items
                .len(),
            0
        );
        Ok(())
    });
}

#[test]
fn a_bad_image_stops_at_its_first_node() {
    scenario("bad-image", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"probe": {"window": "10s"}})).await?;
        network.until_ready(3).await?;
        let lives = network.lives().await?;
        network
            .change(json!({"image": "localhost/peernet/none:0", "imagePullPolicy": "Never"}))
            .await?;
        let status = network
            .until("the node that does not start is named", |status| {
                let said = message(status, READY);
                is(status, READY, "False")
                    && said.contains("mesh-2")
                    && said.contains("ErrImageNeverPull")
                    && (nodes_column(status), peers_column(status)) == ("2/3", "1/2")
            })
            .await?;
        assert!(
            is(&status, "Reconciling", "True") && !is(&status, "Stalled", "True"),
            "{}",
            yaml(&status)
        );
        let since = status.last_sample_time.ok_or("no sample")?;
        network
            .until("fresh round trips of the others", |status| {
                status.rtt.is_some()
                    && status
                        .last_sample_time
                        .as_ref()
                        .is_some_and(|time| time.0 > since.0)
            })
            .await?;
        let (now, expected): (Vec<Life>, Vec<Life>) = (
            network_lives_of(&network, &["mesh-0", "mesh-1"]).await?,
            ["mesh-0", "mesh-1"].map(|name| lives[name].clone()).into(),
        );
        assert_eq!(now, expected, "the last good agents go on as they were");
        network
            .change(json!({"image": null, "imagePullPolicy": null}))
            .await?;
        network.until_ready(3).await.map(drop)
    });
}

async fn network_lives_of(network: &Network, pods: &[&str]) -> Outcome<Vec<Life>> {
    let mut lives = Vec::new();
    for pod in pods {
        lives.push(network.life(pod).await?);
    }
    Ok(lives)
}

async fn peer_ids_by_node(network: &Network) -> Outcome<BTreeMap<Option<String>, String>> {
    let mut ids = BTreeMap::new();
    for (name, pod) in network.pods().await? {
        ids.insert(
            pod.spec.and_then(|spec| spec.node_name),
            network.report(&name).await?.1,
        );
    }
    Ok(ids)
}
