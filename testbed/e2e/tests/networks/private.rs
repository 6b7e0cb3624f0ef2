//! Private networks: the user's key, who is kept out by it, and its change while everything runs.

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use peernet_api::private_key::PreSharedKey;
use peernet_api::v1alpha1::conditions::reason;
use peernet_api::v1alpha1::{PeerNetworkStatus, StrangerReason};
use peernet_e2e::Outcome;
use peernet_e2e::command::run_with_input;
use peernet_e2e::network::{Network, is, message, peers_column, yaml};
use peernet_e2e::scenario::{Scenario, scenario};
use peernet_e2e::settings::SETTINGS;
use peernet_e2e::waiting::{ensure, eventually};
use serde_json::{Value, json};

fn key(byte: u8) -> PreSharedKey {
    PreSharedKey::new([byte; 32])
}

#[test]
fn a_key_of_the_users_lets_in_members_alone_and_is_changed_while_they_run() {
    scenario("private", async |scenario| {
        let spec = json!({
            "privateNetwork": {"enabled": true, "secretRef": {"name": "own"}},
            // Else the agents of networks beside this one would find these on their node, and be strangers, too.
            "discovery": {"mdns": false},
            "probe": {"interval": "200ms", "window": "15m"},
        });
        let network = Network::create(scenario, "mesh", spec).await?;
        assert_stalled(&network, reason::KEY_SECRET_MISSING, "Secret own does not exist").await?;
        for (held, says) in [
            (json!({"other": "x"}), "it has no key swarm.key"),
            (
                json!({"swarm.key": "hunter2"}),
                "line 1 is not /key/swarm/psk/1.0.0/",
            ),
        ] {
            hold(scenario, "own", held).await?;
            let status = assert_stalled(&network, reason::KEY_SECRET_DAMAGED, says).await?;
            assert!(!yaml(&status).contains("hunter2"), "{}", yaml(&status));
        }
        hold(scenario, "own", json!({"swarm.key": key(1).to_file()})).await?;
        network.until_ready(3).await?;
        until_all_have(&network, &key(1)).await?;

        // They hold the network's Secret, and name themselves as members would.
        hold(scenario, "another", json!({"swarm.key": key(9).to_file()})).await?;
        let mut outsiders = Vec::new();
        for (name, secret, reason) in [
            ("without", None, StrangerReason::WithoutKey),
            ("another", Some("another"), StrangerReason::AnotherKey),
        ] {
            outsiders.push((outsider(scenario, name, secret).await?, reason));
        }
        let status = network
            .until("the strangers by their addresses", |status| {
                let strangers = status.strangers.as_ref();
                let named = strangers
                    .map(|strangers| strangers.recent.as_slice())
                    .unwrap_or_default();
                let is_named = |(address, reason): &(String, StrangerReason)| {
                    named
                        .iter()
                        .any(|stranger| stranger.address == *address && stranger.reason == *reason)
                };
                outsiders.iter().all(is_named)
            })
            .await?;
        assert!(is_undisturbed(&status), "{}", yaml(&status));
        let told = network
            .until_event("Normal", reason::STRANGERS_TURNED_AWAY)
            .await?;
        assert!(
            outsiders.iter().any(|(address, _)| told.contains(address)),
            "{told}: {outsiders:?}"
        );
        for (pod, life) in network.lives().await? {
            // Each outsider dials the agents of lower addresses than its own some seconds later than the others.
            let report = eventually("both outsiders at each agent", async || {
                let report = network.report(&pod).await?.0;
                let strangers = &report.strangers;
                ensure(strangers.without_key > 0 && strangers.another_key > 0, || {
                    format!("{life:?}: {strangers:?}")
                })?;
                Ok(report)
            })
            .await?;
            assert_eq!(report.peers.len(), 2, "{life:?}: {:?}", report.peers);
            let strangers = report.strangers;
            assert_eq!(strangers.no_member, 0, "none came that far: {strangers:?}");
        }

        // The two steps that docs/private-network.md names.
        let lives = network.lives().await?;
        let both = key(2).to_file() + &key(1).to_file();
        for (step, file) in [both, key(2).to_file()].into_iter().enumerate() {
            hold(scenario, "own", json!({"swarm.key": file})).await?;
            // The kubelet looks at a pod's Secrets once in a minute or so, and when the pod changes.
            let all = "--selector=peernet.dev/network=mesh";
            let annotation = format!("e2e/step={step}");
            scenario
                .kubectl(&["annotate", "--overwrite", "pods", all, &annotation])
                .await?;
            until_all_have(&network, &key(2)).await?;
        }
        assert_eq!(network.lives().await?, lives, "no agent has restarted");
        for pod in lives.keys() {
            let report = network.report(pod).await?.0;
            for row in &report.peers {
                assert!(row.connected && row.answered > 0, "{pod}: {row:?}");
                assert_eq!((row.timed_out, row.failed), (0, 0), "{pod}: {row:?}");
            }
        }
        // Who comes now must have the new key, and finds everybody by it.
        scenario
            .kubectl(&["delete", "pod", "mesh-1", "--grace-period=1"])
            .await?;
        eventually("another agent", async || {
            let life = network.life("mesh-1").await?;
            ensure(life.uid != lives["mesh-1"].uid, || {
                "it is the same pod".to_owned()
            })
        })
        .await?;
        let status = network.until_ready(3).await?;
        assert!(is_undisturbed(&status), "{}", yaml(&status));
        until_all_have(&network, &key(2)).await
    });
}

#[test]
fn a_key_that_follows_from_the_secret_needs_nothing_else() {
    scenario("derived", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"privateNetwork": {"enabled": true}})).await?;
        network.until_ready(3).await?;
        let secret = scenario
            .kubectl(&["get", "secret", "mesh-identity", "-o", "json"])
            .await?;
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_str(&secret)?;
        let bytes = &secret.data.ok_or("no data")?["network-secret"].0;
        let secret = peernet_api::identity::NetworkSecret::new(bytes)?;
        until_all_have(&network, &secret.pre_shared_key()).await
    });
}

/// Whether the status shows three nodes that are well, and nobody else.
fn is_undisturbed(status: &PeerNetworkStatus) -> bool {
    is(status, "Ready", "True")
        && peers_column(status) == "2/2"
        && status.nodes.len() == 3
        && status.loss_ppm == Some(0)
}

async fn until_all_have(network: &Network, key: &PreSharedKey) -> Outcome {
    network
        .until(&format!("all nodes on key {}", key.fingerprint()), |status| {
            status.private_network.as_ref().is_some_and(|private| {
                private.key_fingerprint == key.fingerprint()
                    && (private.nodes_on_key, private.nodes_reporting) == (3, 3)
            })
        })
        .await
        .map(drop)
}

async fn assert_stalled(network: &Network, reason: &str, says: &str) -> Outcome<PeerNetworkStatus> {
    let status = network
        .until(&format!("Stalled: {says}"), |status| {
            is(status, "Stalled", "True") && message(status, "Stalled").contains(says)
        })
        .await?;
    let message = message(&status, "Stalled");
    assert!(
        message.starts_with("spec.privateNetwork.secretRef: "),
        "{message}"
    );
    assert!(is(&status, "Ready", "False"), "{}", yaml(&status));
    network.until_event("Warning", reason).await?;
    Ok(status)
}

/// Makes a Secret, or changes it.
async fn hold(scenario: &Scenario, name: &str, texts: Value) -> Outcome {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": texts});
    let arguments = [
        "--namespace",
        &scenario.namespace,
        "apply",
        "--server-side",
        "-f",
        "-",
    ];
    run_with_input(&SETTINGS.kubectl, &arguments, &secret.to_string())
        .await
        .map(drop)
}

/// An agent that the operator knows nothing of, with the network's Secret and perhaps a key. Returns its address.
async fn outsider(scenario: &Scenario, name: &str, key: Option<&str>) -> Outcome<String> {
    let secret = |volume: &str, secret: &str| json!({"name": volume, "secret": {"secretName": secret, "defaultMode": 0o444}});
    let mount = |volume: &str| json!({"name": volume, "mountPath": format!("/etc/peernet/{volume}"), "readOnly": true});
    let mut volumes = vec![secret("secret", "mesh-identity")];
    let mut mounts = vec![mount("secret")];
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut environment = vec![
        variable("PEERNET_NETWORK", &format!("{}/mesh", scenario.namespace)),
        variable("PEERNET_NAME", "mesh-7"),
        json!({"name": "PEERNET_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
        variable("PEERNET_SEED_DNS", &format!("mesh.{}.svc", scenario.namespace)),
        variable("PEERNET_MDNS", "false"),
    ];
    if let Some(key) = key {
        volumes.push(secret("swarm-key", key));
        mounts.push(mount("swarm-key"));
        environment.push(variable("PEERNET_PRIVATE_NETWORK", "true"));
        environment.push(variable(
            "PEERNET_SWARM_KEY_FILE",
            "/etc/peernet/swarm-key/swarm.key",
        ));
    }
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
            "containers": [{
                "name": "node", "image": SETTINGS.node_image.name(), "imagePullPolicy": "IfNotPresent",
                "env": environment, "volumeMounts": mounts,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                                    "readOnlyRootFilesystem": true},
            }],
        },
    }))?;
    let pods = scenario.api::<Pod>();
    pods.create(&PostParams::default(), &pod).await?;
    eventually(format!("pod {name} to run"), async || {
        let status = pods.get(name).await?.status.unwrap_or_default();
        let runs = status.phase.as_deref() == Some("Running");
        ensure(runs, || format!("{status:?}"))?;
        Ok(status.pod_ip.ok_or("no address")?)
    })
    .await
}
