//! Who an agent is outlives its pod, and is never made anew.

use std::collections::BTreeMap;

use kube::ResourceExt;
use peernet_api::v1alpha1::PeerNetworkStatus;
use peernet_api::v1alpha1::conditions::{READY, reason};
use peernet_e2e::Outcome;
use peernet_e2e::command::run_with_input;
use peernet_e2e::history::History;
use peernet_e2e::network::{Network, is, message, nodes_column, yaml};
use peernet_e2e::scenario::{Scenario, scenario};
use peernet_e2e::settings::SETTINGS;
use peernet_e2e::waiting::{ensure, eventually};
use serde_json::json;

#[test]
fn a_killed_pod_comes_back_as_itself() {
    scenario("killed-pod", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        let before = network.until_ready(3).await?;
        let lives = network.lives().await?;
        let history = History::of(&network);
        let killed = "mesh-1";
        scenario
            .kubectl(&["delete", "pod", killed, "--force", "--grace-period=0"])
            .await?;
        eventually("another pod of the same name", async || {
            let now = network
                .pods()
                .await?
                .get(killed)
                .and_then(ResourceExt::uid)
                .ok_or("no pod")?;
            ensure(now != lives[killed].uid, || "it is the same pod".to_owned())
        })
        .await?;
        // While: the missing one is named, and the others' numbers stay.
        eventually("a status that says which node is missing", async || {
            let seen = history.seen();
            let told = seen.iter().any(|status| {
                is(status, READY, "False")
                    && nodes_column(status) == "2/3"
                    && message(status, READY).contains(killed)
                    && status.rtt.is_some()
            });
            ensure(told, || seen.iter().map(yaml).collect::<Vec<_>>().join("---\n"))
        })
        .await?;
        let after = network.until_ready(3).await?;
        let peer_ids = |status: &PeerNetworkStatus| -> BTreeMap<_, _> {
            status
                .nodes
                .iter()
                .map(|node| (node.name.clone(), node.peer_id.clone()))
                .collect()
        };
        assert_eq!(peer_ids(&after), peer_ids(&before));
        let lives_after = network.lives().await?;
        assert_eq!(
            lives_after[killed].peer_id, lives[killed].peer_id,
            "the same peer id without storage"
        );
        for other in ["mesh-0", "mesh-2"] {
            assert_eq!(lives_after[other], lives[other], "{other} goes on as it was");
        }
        // Status was right all the time: never more nodes ready than there were, never a number for nothing.
        for status in history.seen() {
            assert!(
                ["3/3", "2/3"].contains(&nodes_column(&status)),
                "{}",
                yaml(&status)
            );
            assert!(!is(&status, "Stalled", "True"), "{}", yaml(&status));
        }
        network.until_event("Normal", reason::ALL_NODES_CONNECTED).await?;
        Ok(())
    });
}

#[test]
fn a_secret_is_never_made_anew_over_live_identities() {
    scenario("secret", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        let lives = network.lives().await?;
        let backup = scenario
            .kubectl(&["get", "secret", "mesh-identity", "-o", "json"])
            .await?;
        let mut backup: serde_json::Value = serde_json::from_str(&backup)?;
        let key = &backup["data"]["network-secret"];
        assert_eq!(backup["immutable"], true);
        let whole = json!({"network-secret": key});
        if let Some(metadata) = backup["metadata"].as_object_mut() {
            metadata.retain(|field, _| ["name", "labels", "ownerReferences"].contains(&field.as_str()));
        }

        for (data, reason) in [
            (None, reason::SECRET_MISSING),
            (
                Some(json!({"network-secret": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="})),
                reason::SECRET_CHANGED,
            ),
            (Some(json!({"network-secret": "AAAA"})), reason::SECRET_DAMAGED),
            (Some(json!({"something": "AAAA"})), reason::SECRET_DAMAGED),
        ] {
            scenario.kubectl(&["delete", "secret", "mesh-identity"]).await?;
            if let Some(data) = data {
                put_secret(scenario, &backup, data).await?;
            }
            let status = network.until_stalled(reason).await?;
            assert!(
                message(&status, "Stalled").contains("Secret mesh-identity"),
                "{}",
                yaml(&status)
            );
            assert!(
                is(&status, READY, "False") && is(&status, "Reconciling", "False"),
                "{}",
                yaml(&status)
            );
            network.until_event("Warning", reason).await?;
            assert_eq!(
                network.lives().await?,
                lives,
                "{reason}: the agents go on as they were"
            );
            // As people would: from a backup.
            scenario
                .kubectl(&["delete", "secret", "mesh-identity", "--ignore-not-found"])
                .await?;
            put_secret(scenario, &backup, whole.clone()).await?;
            network.until_ready(3).await?;
            assert_eq!(
                network.lives().await?,
                lives,
                "{reason}: the agents go on as they were"
            );
        }
        Ok(())
    });
}

async fn put_secret(scenario: &Scenario, backup: &serde_json::Value, data: serde_json::Value) -> Outcome {
    let mut secret = backup.clone();
    secret["data"] = data;
    let arguments = ["--namespace", &scenario.namespace, "create", "-f", "-"];
    run_with_input(&SETTINGS.kubectl, &arguments, &secret.to_string()).await?;
    Ok(())
}
