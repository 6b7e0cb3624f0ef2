//! Networks that work: from nothing to true numbers, their workloads and ways of discovery, their changes, and their end.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    core::v1::{Node, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use peernet_api::{
    report::Report,
    v1alpha1::conditions::{READY, reason},
    v1alpha1::{PeerNetwork, PeerNetworkStatus, ReportOutcome},
};
use peernet_e2e::{
    Outcome,
    command::{kubectl, run_with_input},
    history::History,
    network::{Life, Network, condition, is, is_whole, message, nodes_column, peers_column, yaml},
    note, round_trip,
    scenario::{CLEARED, Scenario, scenario, tool_image},
    settings::SETTINGS,
    waiting::{ensure, eventually},
};
use serde_json::json;

/// Agents' median over the median of raw TCP, on the same pair at the same time, at most this many times; also the inverse.
const TRUTH: f64 = 3.0;

#[test]
fn from_nothing_to_true_numbers() {
    scenario("true-numbers", async |scenario| {
        let Some(image) = tool_image("the comparison with raw TCP round trips") else {
            return Network::create(scenario, "mesh", json!({}))
                .await?
                .until_ready(3)
                .await
                .map(drop);
        };
        // The shortest window: what the agents report is of the seconds in which raw TCP was measured, too.
        let spec = json!({"replicas": 2, "probe": {"interval": "100ms", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(2).await?;
        let (from, to) = ("mesh-0", "mesh-1");
        let pods = network.pods().await?;
        let node = |name: &str| pods[name].spec.as_ref().and_then(|spec| spec.node_name.clone());
        assert_ne!(
            node(from),
            node(to),
            "two agents of a network are spread over nodes"
        );
        let comparisons = round_trip::compare(&network, from, to, &image, 3).await?;
        for found in &comparisons {
            note(&format!(
                "round trip {from} -> {to}, p50: agents {} us, raw TCP {} us, ratio {:.2}",
                found.agents / 1_000,
                found.raw / 1_000,
                found.ratio()
            ));
        }
        let ratio = round_trip::median(comparisons.clone())
            .ok_or("no comparison")?
            .ratio();
        assert!(
            (1.0 / TRUTH..=TRUTH).contains(&ratio),
            "the agents' median is {ratio:.2} of raw TCP's: {comparisons:?}"
        );

        // What the resource says is what the agents say.
        let truth = network.report(from).await?.0;
        let truth = p50_to(&truth, to).ok_or("the agent measured nothing")? as f64 / 1_000.0;
        let status = network
            .until("an RTT that fits the agents' reports", |status| {
                status.rtt.as_ref().is_some_and(|rtt| {
                    (truth / TRUTH..=truth * TRUTH).contains(&(rtt.p50_micros as f64))
                        && rtt.p50_micros <= rtt.p99_micros
                })
            })
            .await?;
        let rtt = status.rtt.ok_or("no rtt")?;
        assert!(
            rtt.p50_micros > 0 && rtt.p50_micros <= rtt.p90_micros && rtt.p99_micros <= rtt.max_micros,
            "{rtt:?}"
        );
        assert!(rtt.samples > 0 && status.last_sample_time.is_some() && status.loss_ppm.is_some());
        Ok(())
    });
}

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
fn hostile_agents_are_named_and_in_no_number() {
    scenario("hostile", async |scenario| {
        let Some(image) = tool_image("the test of hostile agents") else {
            return Ok(());
        };
        let honest = Network::create(scenario, "honest", json!({"replicas": 2})).await?;
        honest.until_ready(2).await?;
        let spec = json!({"replicas": 6, "image": image, "imagePullPolicy": "IfNotPresent"});
        let hostile = Network::create(scenario, "hostile", spec).await?;
        let expected = [
            ReportOutcome::Undecodable,
            ReportOutcome::TooLarge,
            ReportOutcome::TimedOut,
            ReportOutcome::Unreachable,
            ReportOutcome::WrongPeer,
            ReportOutcome::WrongSignature,
        ];
        let status = hostile
            .until("every outcome named", |status| {
                nodes_column(status) == "6/6"
                    && expected.iter().enumerate().all(|(n, outcome)| {
                        let name = format!("hostile-{n}");
                        status
                            .nodes
                            .iter()
                            .any(|node| node.name == name && node.report == *outcome)
                    })
            })
            .await?;
        let ready = condition(&status, READY).ok_or("no condition")?;
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason::REPORTS_MISSING)
        );
        assert!(
            ready.message.contains("hostile-0") && ready.message.contains("can't be decoded"),
            "{}",
            ready.message
        );
        assert!(is(&status, "Connected", "Unknown"), "{}", yaml(&status));
        assert!(
            status.rtt.is_none() && status.peers.is_none() && status.loss_ppm.is_none(),
            "{}",
            yaml(&status)
        );
        assert!(
            status.nodes.iter().all(|node| node.connected_peers.is_none()),
            "{}",
            yaml(&status)
        );
        // The one whose reports were borrowed is none the worse for it.
        honest.until_ready(2).await.map(drop)
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

/// Also hostNetwork: its example comes with the namespace that it needs. Only one network of that kind fits on a node.
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
        assert!(networks.len() >= 6, "{} examples", networks.len());
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

fn p50_to(report: &Report, peer: &str) -> Option<u64> {
    report
        .peers
        .iter()
        .find(|found| found.name == peer)?
        .rtt
        .quantile(500)
}

fn connected_peers(report: &Report) -> Vec<String> {
    report
        .peers
        .iter()
        .filter(|peer| peer.connected)
        .map(|peer| peer.name.clone())
        .collect()
}

async fn network_lives_of(network: &Network, pods: &[&str]) -> Outcome<Vec<Life>> {
    let mut lives = Vec::new();
    for pod in pods {
        lives.push(network.life(pod).await?);
    }
    Ok(lives)
}

async fn peer_ids(network: &Network) -> Outcome<BTreeMap<String, String>> {
    Ok(network
        .lives()
        .await?
        .into_iter()
        .map(|(pod, life)| (pod, life.peer_id))
        .collect())
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

async fn put_secret(scenario: &Scenario, backup: &serde_json::Value, data: serde_json::Value) -> Outcome {
    let mut secret = backup.clone();
    secret["data"] = data;
    let arguments = ["--namespace", &scenario.namespace, "create", "-f", "-"];
    run_with_input(&SETTINGS.kubectl, &arguments, &secret.to_string()).await?;
    Ok(())
}

/// The name of a node that takes any pod.
async fn a_node(scenario: &Scenario) -> Outcome<String> {
    let nodes: Api<Node> = Api::all(scenario.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let free = nodes
        .iter()
        .find(|node| node.spec.as_ref().is_none_or(|spec| spec.taints.is_none()));
    let hostname = free.and_then(|node| node.labels().get("kubernetes.io/hostname"));
    Ok(hostname.ok_or("no node takes any pod")?.clone())
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
