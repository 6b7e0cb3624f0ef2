//! What others change or delete is put right, and what a network leaves is nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use peernet_api::v1alpha1::PeerNetworkStatus;
use peernet_api::v1alpha1::conditions::READY;
use peernet_e2e::Outcome;
use peernet_e2e::command::kubectl;
use peernet_e2e::network::{Network, is, nodes_column};
use peernet_e2e::scenario::{Scenario, scenario};
use peernet_e2e::waiting::{ensure, eventually};
use serde_json::json;

#[test]
fn delete_leaves_nothing() {
    scenario("delete", async |scenario| {
        // What Kubernetes puts into every namespace comes a little later than the namespace.
        eventually("the namespace's own objects", async || {
            scenario
                .kubectl(&["get", "configmap/kube-root-ca.crt", "serviceaccount/default"])
                .await
        })
        .await?;
        let before = everything(scenario).await?;
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        let made = everything(scenario).await?;
        for kind in [
            "secret/",
            "service/",
            "statefulset.apps/",
            "poddisruptionbudget.policy/",
            "pod/",
        ] {
            assert!(
                made.iter().any(|name| name.starts_with(kind)),
                "no {kind} in {made:?}"
            );
        }
        network.delete().await?;
        eventually("everything of the network to go", async || {
            let left: Vec<_> = everything(scenario).await?.difference(&before).cloned().collect();
            ensure(left.is_empty(), || left.join(" "))
        })
        .await
    });
}

#[test]
fn drift_is_repaired() {
    scenario("drift", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        let agents = peer_ids(&network).await?;
        let budget = scenario.api::<PodDisruptionBudget>().get("mesh").await?.uid();

        let patch = |spec: serde_json::Value| Patch::Merge(json!({"spec": spec}));
        let parameters = PatchParams::default();
        let hidden = patch(json!({"publishNotReadyAddresses": false}));
        scenario
            .api::<Service>()
            .patch("mesh", &parameters, &hidden)
            .await?;
        scenario
            .api::<PodDisruptionBudget>()
            .delete("mesh", &DeleteParams::default())
            .await?;
        scenario
            .kubectl(&["scale", "statefulset", "mesh", "--replicas=1"])
            .await?;
        eventually(
            "Service, disruption budget and StatefulSet as they were",
            async || {
                let service = scenario
                    .api::<Service>()
                    .get("mesh")
                    .await?
                    .spec
                    .unwrap_or_default();
                ensure(service.publish_not_ready_addresses == Some(true), || {
                    format!("{service:?}")
                })?;
                let now = scenario.api::<PodDisruptionBudget>().get("mesh").await?.uid();
                ensure(now.is_some() && now != budget, || "the old budget".to_owned())?;
                let set = scenario
                    .api::<StatefulSet>()
                    .get("mesh")
                    .await?
                    .spec
                    .unwrap_or_default();
                ensure(set.replicas == Some(3), || format!("{:?} replicas", set.replicas))
            },
        )
        .await?;
        scenario
            .api::<Service>()
            .delete("mesh", &DeleteParams::default())
            .await?;
        eventually("another Service", async || {
            Ok(scenario.api::<Service>().get("mesh").await.map(drop)?)
        })
        .await?;
        let set = scenario.api::<StatefulSet>().get("mesh").await?.uid();
        scenario
            .api::<StatefulSet>()
            .delete("mesh", &DeleteParams::background())
            .await?;
        eventually("the same agents in another StatefulSet", async || {
            let now = scenario.api::<StatefulSet>().get("mesh").await?.uid();
            ensure(now != set, || "it is the old StatefulSet".to_owned())?;
            let ids = peer_ids(&network).await?;
            ensure(ids == agents, || format!("{ids:?}"))
        })
        .await?;
        network.until_ready(3).await.map(drop)
    });
}

/// What is gone before the operator has looked at it must not keep it from seeing what comes after.
#[test]
fn objects_that_come_and_go_by_hundreds_blind_nobody() {
    scenario("come-and-go", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"replicas": 1})).await?;
        let alone = |status: &PeerNetworkStatus| nodes_column(status) == "1/1" && is(status, READY, "True");
        network.until("one agent alone", alone).await?;
        let services = scenario.api::<Service>();
        let passing = (0..600).map(async |n: u32| -> Outcome {
            let name = format!("passing-{n}");
            let service = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "peernet-operator"}},
                "spec": {"clusterIP": "None", "selector": {"app": "none"}},
            }))?;
            services.create(&PostParams::default(), &service).await?;
            services.delete(&name, &DeleteParams::default()).await?;
            Ok(())
        });
        let passed: Vec<Outcome> = stream::iter(passing).buffer_unordered(16).collect().await;
        passed.into_iter().collect::<Outcome<Vec<()>>>()?;

        services.delete("mesh", &DeleteParams::default()).await?;
        eventually("the network's Service to be made anew", async || {
            Ok(services.get("mesh").await.map(drop)?)
        })
        .await?;
        network.scale(2).await?;
        network.until_ready(2).await.map(drop)
    });
}

async fn peer_ids(network: &Network) -> Outcome<BTreeMap<String, String>> {
    Ok(network
        .lives()
        .await?
        .into_iter()
        .map(|(pod, life)| (pod, life.peer_id))
        .collect())
}

/// Everything in the test's namespace, of every kind that there is. Events tell of what is gone.
async fn everything(scenario: &Scenario) -> Outcome<BTreeSet<String>> {
    let kinds = kubectl(&["api-resources", "--namespaced", "--verbs=list", "-o", "name"]).await?;
    let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let names = scenario
        .kubectl(&["get", &kinds.join(","), "-o", "name", "--ignore-not-found"])
        .await?;
    Ok(names.lines().map(str::to_owned).collect())
}
