//! Every file in examples/ does what it says.

use peernet_api::v1alpha1::PeerNetwork;
use peernet_e2e::Outcome;
use peernet_e2e::command::kubectl;
use peernet_e2e::network::{Network, is_whole, yaml};
use peernet_e2e::scenario::{CLEARED, Scenario, scenario};
use peernet_e2e::settings::SETTINGS;
use peernet_e2e::waiting::eventually;

/// Also hostNetwork: its example comes with the namespace that it needs.
#[test]
fn every_example_becomes_ready() {
    scenario("examples", async |scenario| {
        let mut networks = Vec::new();
        let mut namespaces = Vec::new();
        for file in std::fs::read_dir(SETTINGS.checkout.join("examples"))? {
            let file = file?.path();
            if file.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&file)?;
            let documents: Vec<serde_json::Value> = text
                .split("\n---\n")
                .map(serde_saphyr::from_str)
                .collect::<Result<_, _>>()?;
            let own_namespace = documents.iter().find(|document| document["kind"] == "Namespace");
            match own_namespace.and_then(|namespace| namespace["metadata"]["name"].as_str()) {
                Some(name) => {
                    namespaces.push(name.to_owned());
                    // It may still be on its way out, from an earlier run.
                    let file = file.to_string_lossy();
                    eventually("the example's namespace", async || {
                        kubectl(&["apply", "-f", &file]).await
                    })
                    .await?;
                    kubectl(&["label", "--overwrite", "namespace", name, CLEARED]).await?;
                }
                None => scenario.apply_file(&file).await.map(drop)?,
            }
            for document in documents
                .iter()
                .filter(|document| document["kind"] == "PeerNetwork")
            {
                let name = document["metadata"]["name"]
                    .as_str()
                    .ok_or("a network without a name")?;
                let within = document["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or(&scenario.namespace);
                let place = Scenario {
                    client: scenario.client.clone(),
                    namespace: within.to_owned(),
                };
                networks.push(Network::named(&place, name));
            }
        }
        assert!(networks.len() >= 7, "{} examples", networks.len());
        let result = examples_are_ready(&networks).await;
        for namespace in namespaces {
            kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await?;
        }
        result
    });
}

async fn examples_are_ready(networks: &[Network]) -> Outcome {
    for network in networks {
        let status = network
            .until("Ready", |status| {
                is_whole(status, status.desired_replicas) && status.desired_replicas >= 3
            })
            .await?;
        let spec = network.api::<PeerNetwork>().get(&network.name).await?.spec;
        for pod in network.pods().await?.into_values() {
            let pod = pod.status.unwrap_or_default();
            assert_eq!(
                pod.pod_ip == pod.host_ip,
                spec.host_network,
                "{}: {}",
                network.name,
                yaml(&status)
            );
        }
    }
    Ok(())
}
