//! The chart, by the real Helm: lint, install, upgrade, rollback, uninstall under running networks, and taking them over again.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::DeleteParams};
use peernet_e2e::{
    Outcome,
    command::{helm, kubectl},
    network::{Network, is},
    operator::{self, NAMESPACE, RELEASE},
    scenario::{Scenario, scenario},
    waiting::{ensure, eventually},
};
use serde_json::json;

#[test]
fn lint_finds_nothing() {
    scenario("chart-lint", async |_| {
        helm(&["lint", "--strict", &operator::chart()]).await.map(drop)
    });
}

#[test]
fn wrong_values_are_refused_by_name() {
    scenario("chart-values", async |_| {
        for (value, says) in [
            ("replicaCount=2", "replicaCount"),
            ("image.repositry=x", "repositry"),
            ("image.pullPolicy=Sometimes", "pullPolicy"),
            ("watchNamespaces={Team_A}", "watchNamespaces"),
            ("logging.format=xml", "format"),
            ("resources.limit.cpu=1", "limit"),
        ] {
            let result = operator::install(&["--dry-run=server", "--set", value]).await;
            let refusal = result.err().ok_or_else(|| format!("taken: {value}"))?.to_string();
            ensure(refusal.contains(says), || refusal.clone())?;
        }
        Ok(())
    });
}

#[test]
fn an_upgrade_and_a_rollback_leave_networks_alone() {
    scenario("chart-upgrade", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        let lives = network.lives().await?;
        let before = operator::pod(&scenario.client).await?.uid();
        operator::install(&["--set", "logging.level=debug"]).await?;
        let upgraded = operator::pod(&scenario.client).await?;
        assert_ne!(upgraded.uid(), before);
        assert_eq!(setting(&upgraded, "RUST_LOG"), Some("debug".to_owned()));
        assert_served(scenario, &network).await?;
        helm(&[
            "rollback",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout",
            "2m",
        ])
        .await?;
        let back = operator::pod(&scenario.client).await?;
        assert_eq!(setting(&back, "RUST_LOG"), Some("info".to_owned()));
        assert_served(scenario, &network).await?;
        assert_eq!(network.lives().await?, lives, "no agent restarted");
        Ok(())
    });
}

#[test]
fn networks_outlive_an_uninstall_and_are_taken_over() {
    scenario("chart-uninstall", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        let daemons = Network::create(scenario, "daemons", json!({"workload": "DaemonSet"})).await?;
        network.until_ready(3).await?;
        let nodes = daemons
            .until("Ready", |status| is(status, "Ready", "True"))
            .await?
            .desired_replicas;
        let before = (network.lives().await?, daemons.lives().await?);
        let secrets = scenario
            .kubectl(&["get", "secrets", "-o", "jsonpath={.items[*].metadata.uid}"])
            .await?;

        helm(&[
            "uninstall",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout",
            "2m",
        ])
        .await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(scenario.client.clone());
        definitions.get("peernetworks.peernet.dev").await?;
        for object in ["deployments,serviceaccounts", "clusterroles,clusterrolebindings"] {
            let selector = format!("app.kubernetes.io/instance={RELEASE},app.kubernetes.io/part-of=peernet");
            let left = kubectl(&[
                "get",
                object,
                "--namespace",
                NAMESPACE,
                "--selector",
                &selector,
                "-o",
                "name",
            ])
            .await?;
            assert_eq!(left, "", "an uninstall leaves nothing but the definition");
        }
        // They measure on, without an operator.
        let (report, _) = network.report("mesh-0").await?;
        let answered: u64 = report.peers.iter().map(|peer| peer.answered).sum();
        eventually("further round trips", async || {
            let (report, _) = network.report("mesh-0").await?;
            let now: u64 = report.peers.iter().map(|peer| peer.answered).sum();
            ensure(now > answered, || format!("{now} of {answered}"))
        })
        .await?;
        // What changes meanwhile waits for the next operator.
        network.scale(4).await?;

        operator::ensure().await?;
        network.until_ready(4).await?;
        daemons.until_ready(nodes).await?;
        let mut after = (network.lives().await?, daemons.lives().await?);
        after.0.remove("mesh-3");
        assert_eq!(after, before, "no agent restarted");
        let now = scenario
            .kubectl(&["get", "secrets", "-o", "jsonpath={.items[*].metadata.uid}"])
            .await?;
        assert_eq!(now, secrets, "no Secret was made anew");
        Ok(())
    });
}

#[test]
fn an_operator_for_some_namespaces_serves_these_and_needs_no_more_rights() {
    scenario("chart-namespaces", async |scenario| {
        let other = scenario.second_namespace().await?;
        let begun = Timestamp::now();
        let only = format!("watchNamespaces={{{}}}", scenario.namespace);
        operator::install(&["--set", &only]).await?;
        let served = Network::create(scenario, "mesh", json!({})).await?;
        let unserved = Network::create(&other, "mesh", json!({})).await?;
        served.until_ready(3).await?;
        served.change(json!({"workload": "DaemonSet"})).await?;
        served
            .until("a DaemonSet", |status| is(status, "Ready", "True"))
            .await?;
        assert!(
            unserved.status().await.is_err(),
            "a network in another namespace is not its business"
        );
        let roles = kubectl(&["get", "clusterrolebindings", "-o", "name"]).await?;
        assert!(!roles.contains("peernet-operator"), "{roles}");
        no_rights_are_missing(begun).await?;

        operator::ensure().await?;
        unserved.until_ready(3).await?;
        other.forget().await
    });
}

#[test]
fn the_operators_namespace_is_restricted_and_its_rights_suffice() {
    scenario("chart-rights", async |scenario| {
        let namespaces: Api<Namespace> = Api::all(scenario.client.clone());
        let namespace = namespaces.get(NAMESPACE).await?;
        assert_eq!(
            namespace
                .labels()
                .get("pod-security.kubernetes.io/enforce")
                .map(String::as_str),
            Some("restricted")
        );
        // All that an operator does: make, repair, prune, tell.
        let begun = Timestamp::now();
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        scenario.kubectl(&["delete", "pdb", "mesh"]).await?;
        network.change(json!({"workload": "DaemonSet"})).await?;
        network
            .until("a DaemonSet", |status| is(status, "Ready", "True"))
            .await?;
        network
            .change(json!({"workload": "StatefulSet", "replicas": 2}))
            .await?;
        network.until_ready(2).await?;
        network.delete().await?;
        no_rights_are_missing(begun).await
    });
}

/// The API server tells the operator when a right is missing, and the operator logs it. What is forbidden for another reason,
/// like an event in a namespace that is being deleted, names no user.
async fn no_rights_are_missing(since: Timestamp) -> Outcome {
    let log = operator::log_since(since).await?;
    ensure(!log.is_empty(), || {
        "the operator logged nothing: this test can't judge".to_owned()
    })?;
    let refused: Vec<_> = log
        .lines()
        .filter(|line| line.contains("forbidden: User"))
        .collect();
    ensure(refused.is_empty(), || refused.join("\n"))
}

/// Whether the operator that runs now does its work.
async fn assert_served(scenario: &Scenario, network: &Network) -> Outcome {
    let budgets = scenario.api::<PodDisruptionBudget>();
    let before = budgets.get(&network.name).await?.uid();
    budgets.delete(&network.name, &DeleteParams::default()).await?;
    eventually("the disruption budget to be made anew", async || {
        let now = budgets.get(&network.name).await?.uid();
        ensure(now != before, || "it is the old one".to_owned())
    })
    .await?;
    network.until_ready(3).await.map(drop)
}

fn setting(pod: &Pod, name: &str) -> Option<String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    container
        .env
        .iter()
        .flatten()
        .find(|variable| variable.name == name)?
        .value
        .clone()
}
