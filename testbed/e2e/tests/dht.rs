//! Records, services and peer routing: put on one pod, read on others, by the program's own commands in the pods.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::api::DeleteParams;
use peernet_api::v1alpha1::PeerNetworkStatus;
use peernet_e2e::{
    Outcome,
    command::kubectl,
    network::{Network, yaml},
    note,
    program::{exec, exec_json, lines},
    scenario::scenario,
    waiting::{ensure, eventually, eventually_within},
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What docs/records-and-services.md says: a provider that ends is found for two minutes more. Then the agents search again,
/// and the operator asks them.
const PROVIDERS_GONE: Duration = Duration::from_secs(120 + 30 + 15);
const RECORDS: usize = 30;

fn providers(status: &PeerNetworkStatus, service: &str) -> Option<i32> {
    status
        .services
        .iter()
        .find(|row| row.name == service)
        .and_then(|row| row.providers)
}

async fn uids(network: &Network) -> Outcome<BTreeMap<String, Option<String>>> {
    let pods = network.pods().await?;
    Ok(pods
        .into_iter()
        .map(|(name, pod)| (name, pod.metadata.uid))
        .collect())
}

/// The scenario of libp2p's tutorials, on three nodes.
#[test]
fn what_one_pod_puts_every_other_gets_also_when_that_pod_has_gone() {
    scenario("dht", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        let status = network.until_ready(3).await?;
        let nodes: BTreeSet<_> = status.nodes.iter().map(|node| &node.node_name).collect();
        assert_eq!(nodes.len(), 3, "{}", yaml(&status));

        let put = lines(scenario, "mesh-0", &["PUT greeting hello world".to_owned()]).await?;
        assert_eq!(put[0]["of"], 2, "{put:?}");
        for pod in ["mesh-1", "mesh-2"] {
            let got = lines(scenario, pod, &["GET greeting".to_owned()]).await?;
            assert_eq!(got[0]["value"], "hello world", "{pod}: {got:?}");
        }
        for pod in ["mesh-0", "mesh-1"] {
            lines(scenario, pod, &["PUT_PROVIDER shop".to_owned()]).await?;
        }
        let found = lines(scenario, "mesh-2", &["GET_PROVIDERS shop".to_owned()]).await?;
        let found: BTreeSet<(String, String)> = found[0]["providers"]
            .as_array()
            .ok_or("no providers")?
            .iter()
            .map(|provider| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&provider["name"]), text(&provider["addresses"][0]))
            })
            .collect();
        let [zero, one] = network.addresses(["mesh-0", "mesh-1"]).await?;
        let expected = [("mesh-0", zero), ("mesh-1", one)]
            .map(|(name, ip)| (name.to_owned(), format!("/ip4/{ip}/tcp/4001")));
        assert_eq!(found, BTreeSet::from(expected));

        network
            .api::<k8s_openapi::api::core::v1::Pod>()
            .delete("mesh-0", &DeleteParams::default().grace_period(0))
            .await?;
        for pod in ["mesh-1", "mesh-2"] {
            let got = exec_json(scenario, pod, &["get", "greeting"]).await?;
            assert_eq!(got["value"], "hello world", "{pod}: {got}");
        }
        // And the pod that follows it has it again.
        eventually("the record on the new pod", async || {
            let got = exec(scenario, "mesh-0", &["get", "greeting"]).await?;
            ensure(got == "hello world\n", || got.clone())
        })
        .await
    });
}

#[test]
fn a_rolling_restart_of_all_pods_loses_no_record() {
    scenario("dht-rollout", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        for pod in 0..3 {
            let puts: Vec<String> = (0..RECORDS)
                .filter(|n| n % 3 == pod)
                .map(|n| format!("PUT key-{n} value-{n}"))
                .collect();
            for answer in lines(scenario, &format!("mesh-{pod}"), &puts).await? {
                assert_eq!(answer["of"], 2, "{answer}");
            }
        }
        for pod in ["mesh-0", "mesh-1", "mesh-2"] {
            eventually(format!("all records on {pod}"), async || {
                let records = network.metric(pod, "peernet_dht_records").await?;
                ensure(records == RECORDS.to_string(), || records.clone())
            })
            .await?;
        }
        for round in 0..2 {
            let before = uids(&network).await?;
            network
                .change(json!({"podTemplate": {"annotations": {"round": round.to_string()}}}))
                .await?;
            let begun = Instant::now();
            eventually_within(
                Duration::from_secs(240),
                "every pod to be another one",
                async || {
                    let now = uids(&network).await?;
                    let replaced = before
                        .iter()
                        .all(|(name, uid)| now.get(name).is_some_and(|new| new != uid));
                    ensure(replaced, || format!("{now:?}"))
                },
            )
            .await?;
            network.until_ready(3).await?;
            note(&format!(
                "a rollout of three pods with {RECORDS} records: {:.0} s",
                begun.elapsed().as_secs_f64()
            ));
            let gets: Vec<String> = (0..RECORDS).map(|n| format!("GET key-{n}")).collect();
            for pod in ["mesh-0", "mesh-1", "mesh-2"] {
                let answers = lines(scenario, pod, &gets).await?;
                for (n, answer) in answers.iter().enumerate() {
                    assert_eq!(answer["value"], format!("value-{n}"), "{pod}: {answer}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn declared_services_are_counted_and_a_provider_that_ended_is_forgotten_in_the_stated_time() {
    scenario("dht-services", async |scenario| {
        let spec = json!({"services": ["web", "storage/v1"]});
        let network = Network::create(scenario, "mesh", spec).await?;
        let status = network
            .until("three providers of each service", |status| {
                providers(status, "web") == Some(3) && providers(status, "storage/v1") == Some(3)
            })
            .await?;
        assert_eq!(status.services.len(), 2, "{}", yaml(&status));
        network.scale(2).await?;
        let begun = Instant::now();
        eventually_within(PROVIDERS_GONE, "two providers", async || {
            let status = network.status().await?;
            ensure(providers(&status, "web") == Some(2), || yaml(&status))
        })
        .await?;
        note(&format!(
            "a provider that ended was forgotten after {:.0} s",
            begun.elapsed().as_secs_f64()
        ));
        network.change(json!({"services": []})).await?;
        network
            .until("no services", |status| status.services.is_empty())
            .await?;
        Ok(())
    });
}

#[test]
fn the_program_s_commands_work_in_a_pod_and_say_by_their_exit_code_how_it_went() {
    scenario("dht-commands", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"replicas": 2})).await?;
        network.until_ready(2).await?;
        let put = exec(scenario, "mesh-0", &["put", "k", "v", "--quorum", "all"]).await?;
        assert!(put.starts_with("stored: 1 of 1 other agents have it"), "{put}");
        let nothing = exec(scenario, "mesh-0", &["get", "nothing"])
            .await
            .unwrap_err()
            .to_string();
        assert!(
            nothing.contains("exit code 3") && nothing.contains("not found"),
            "{nothing}"
        );
        let usage = exec(scenario, "mesh-0", &["get", "k", "--quorum", "most"]).await;
        let usage = usage.unwrap_err().to_string();
        assert!(
            usage.contains("exit code 2") && usage.contains("majority"),
            "{usage}"
        );
        let failed = exec(scenario, "mesh-0", &["put", "k", "v", "--quorum", "2"]).await;
        let failed = failed.unwrap_err().to_string();
        assert!(
            failed.contains("exit code 1") && failed.contains("1 of 1 agents"),
            "{failed}"
        );

        let peers = exec_json(scenario, "mesh-0", &["peers"]).await?;
        assert_eq!(peers["peers"][0]["name"], "mesh-1", "{peers}");
        let id = peers["peers"][0]["peerId"].as_str().ok_or("no id")?;
        let [ip] = network.addresses(["mesh-1"]).await?;
        let found = exec_json(scenario, "mesh-0", &["find-peer", id]).await?;
        assert_eq!(
            found["addresses"],
            json!([format!("/ip4/{ip}/tcp/4001")]),
            "{found}"
        );
        let pinged = exec(scenario, "mesh-0", &["ping", "mesh-1", "--count", "2"]).await?;
        assert_eq!(pinged.matches("mesh-1: rtt ").count(), 2, "{pinged}");
        Ok(())
    });
}

#[test]
fn the_api_is_reached_from_without_only_if_the_resource_opens_it() {
    scenario("dht-api", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"replicas": 2})).await?;
        network.until_ready(2).await?;
        let path = format!(
            "/api/v1/namespaces/{}/pods/mesh-0:8081/proxy/v1/peers",
            scenario.namespace
        );
        let closed = kubectl(&["get", "--raw", &path]).await;
        assert!(closed.is_err(), "{closed:?}");
        network.change(json!({"api": {"open": true}})).await?;
        eventually("the opened API", async || {
            let answer: Value = serde_json::from_str(&kubectl(&["get", "--raw", &path]).await?)?;
            ensure(answer["peers"][0]["name"] == "mesh-1", || answer.to_string())
        })
        .await
    });
}
