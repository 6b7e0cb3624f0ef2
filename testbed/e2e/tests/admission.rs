//! Bad input. What schema and CEL can judge is refused by the API server with a message that names the field. What only the
//! operator can judge ends in `Stalled`, with a reason, a message that names the field or object, and an event.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use peernet_api::v1alpha1::conditions::{READY, STALLED, reason};
use peernet_e2e::{
    network::{Network, is, message, nodes_column, yaml},
    scenario::{Scenario, scenario},
    settings::SETTINGS,
    waiting::{ensure, eventually},
};
use serde_json::{Value, json};

const PEER: &str = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV";

/// Specs that the API server refuses, each with what its message must say.
fn refused_specs() -> Vec<(Value, &'static str)> {
    let address = |n: usize| format!("/ip4/192.0.2.{n}/tcp/4001/p2p/{PEER}");
    let many_labels: serde_json::Map<_, _> = (0..33).map(|n| (format!("label-{n}"), json!("x"))).collect();
    let tolerations: Vec<_> = (0..33)
        .map(|n| json!({"key": format!("key-{n}"), "operator": "Exists"}))
        .collect();
    let twice = [address(1), address(1)];
    vec![
        (
            json!({"workload": "Deployment"}),
            "spec.workload: Unsupported value: \"Deployment\"",
        ),
        (json!({"replicas": -1}), "spec.replicas"),
        (json!({"replicas": 501}), "spec.replicas"),
        (json!({"replicas": "three"}), "spec.replicas"),
        (json!({"replicas": 1.5}), "spec.replicas"),
        (
            json!({"discovery": {"dns": false, "mdns": false}}),
            "spec.discovery: with dns and mdns off",
        ),
        (json!({"discovery": {"mdns": "yes"}}), "spec.discovery.mdns"),
        (
            json!({"discovery": {"bootstrapPeers": ["192.0.2.7:4001"]}}),
            "spec.discovery.bootstrapPeers[0]",
        ),
        (
            json!({"discovery": {"bootstrapPeers": twice}}),
            "spec.discovery.bootstrapPeers[1]: Duplicate value",
        ),
        (
            json!({"discovery": {"bootstrapPeers": (0..17).map(address).collect::<Vec<_>>()}}),
            "spec.discovery.bootstrapPeers: Too many",
        ),
        (
            json!({"discovery": {"bootstrapPeers": [format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{PEER}")]}}),
            "spec.discovery.bootstrapPeers: use addresses of the network's own spec.transports",
        ),
        (
            json!({"discovery": {"kademliaProtocol": "kad"}}),
            "spec.discovery.kademliaProtocol",
        ),
        (json!({"transports": []}), "spec.transports"),
        (
            json!({"transports": ["UDP"]}),
            "spec.transports[0]: Unsupported value",
        ),
        (
            json!({"transports": ["TCP", "TCP"]}),
            "spec.transports: list each transport once",
        ),
        (
            json!({"transports": ["TCP", "QUIC"], "privateNetwork": {"enabled": true}}),
            "spec.transports: QUIC can't be part of a private network",
        ),
        (
            json!({"hostPortBase": 20_000}),
            "spec.hostPortBase: needs spec.hostNetwork",
        ),
        (json!({"services": ["-web"]}), "spec.services[0]"),
        (
            json!({"services": ["a", "a"]}),
            "spec.services[1]: Duplicate value",
        ),
        (
            json!({"services": (0..17).map(|n| format!("s{n}")).collect::<Vec<_>>()}),
            "spec.services: Too many",
        ),
        (
            json!({"services": ["web"], "discovery": {"kademlia": false}}),
            "spec.services: needs spec.discovery.kademlia",
        ),
        (json!({"api": {"open": "yes"}}), "spec.api.open"),
        (json!({"probe": {"interval": "1"}}), "spec.probe.interval"),
        (json!({"probe": {"interval": 1}}), "spec.probe.interval"),
        (
            json!({"relay": {"limits": {"circuitDuration": "119s"}}}),
            "spec.relay.limits.circuitDuration: use a duration from 2m to 168h",
        ),
        (json!({"relay": {"servers": 17}}), "spec.relay.servers"),
        (
            json!({"relay": {"limits": {"reservations": 0}}}),
            "spec.relay.limits.reservations",
        ),
        (
            json!({"probe": {"interval": "50ms"}}),
            "spec.probe.interval: use a duration from 100ms to 1h",
        ),
        (
            json!({"probe": {"interval": "2h", "window": "24h"}}),
            "spec.probe.interval: use a duration from 100ms to 1h",
        ),
        (
            json!({"probe": {"timeout": "5ms"}}),
            "spec.probe.timeout: use a duration from 10ms to 60s",
        ),
        (
            json!({"probe": {"timeout": "2m"}}),
            "spec.probe.timeout: use a duration from 10ms to 60s",
        ),
        (
            json!({"probe": {"window": "5s"}}),
            "spec.probe.window: use a duration from 10s to 24h",
        ),
        (
            json!({"probe": {"window": "25h"}}),
            "spec.probe.window: use a duration from 10s to 24h",
        ),
        (
            json!({"probe": {"interval": "10s", "window": "1m"}}),
            "spec.probe.window: use at least ten times",
        ),
        (json!({"probe": {"peersPerNode": 0}}), "spec.probe.peersPerNode"),
        (json!({"probe": {"peersPerNode": 257}}), "spec.probe.peersPerNode"),
        (
            json!({"privateNetwork": {"secretRef": {"name": "own"}}}),
            "spec.privateNetwork.secretRef: needs spec.privateNetwork.enabled",
        ),
        (
            json!({"privateNetwork": {"enabled": true, "secretRef": {}}}),
            "spec.privateNetwork.secretRef.name: Required value",
        ),
        (
            json!({"privateNetwork": {"enabled": true, "secretRef": {"name": "own", "key": "../x"}}}),
            "spec.privateNetwork.secretRef.key",
        ),
        (json!({"hostNetwork": "yes"}), "spec.hostNetwork"),
        (json!({"image": ""}), "spec.image"),
        (json!({"image": "two words"}), "spec.image"),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            "spec.imagePullPolicy: Unsupported value",
        ),
        (
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
            "spec.imagePullSecrets[1]: Duplicate value",
        ),
        (
            json!({"imagePullSecrets": [{}]}),
            "spec.imagePullSecrets[0].name: Required value",
        ),
        (
            json!({"podTemplate": {"labels": {"peernet.dev/network": "x"}}}),
            "spec.podTemplate.labels: labels under peernet.dev/",
        ),
        (
            json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}),
            "spec.podTemplate.labels: labels under",
        ),
        (
            json!({"podTemplate": {"labels": {"team": "x".repeat(64)}}}),
            "spec.podTemplate.labels.team: Too long",
        ),
        (
            json!({"podTemplate": {"labels": many_labels}}),
            "spec.podTemplate.labels: Too many",
        ),
        (
            json!({"podTemplate": {"annotations": {"note": 1}}}),
            "spec.podTemplate.annotations.note",
        ),
        (
            json!({"podTemplate": {"tolerations": [{"operator": "Maybe"}]}}),
            "spec.podTemplate.tolerations[0].operator",
        ),
        (
            json!({"podTemplate": {"tolerations": [{"effect": "Never"}]}}),
            "spec.podTemplate.tolerations[0].effect",
        ),
        (
            json!({"podTemplate": {"tolerations": tolerations}}),
            "spec.podTemplate.tolerations: Too many",
        ),
        (
            json!({"podTemplate": {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 0}]}}),
            "spec.podTemplate.topologySpreadConstraints[0].maxSkew",
        ),
        (
            json!({"podTemplate": {"topologySpreadConstraints": [{"topologyKey": "zone", "whenUnsatisfiable": "Cry"}]}}),
            "spec.podTemplate.topologySpreadConstraints[0].whenUnsatisfiable",
        ),
        (
            json!({"podTemplate": {"resources": {"limits": {"memory": "lots"}}}}),
            "spec.podTemplate.resources.limits.memory",
        ),
        (
            json!({"podTemplate": {"priorityClassName": ""}}),
            "spec.podTemplate.priorityClassName",
        ),
    ]
}

#[test]
fn bad_specs_are_refused_by_the_name_of_the_field() {
    scenario("refused-specs", async |scenario| {
        let table = refused_specs();
        assert!(table.len() >= 20);
        // Else everything would be refused, for whatever reason.
        offer(scenario, "mesh", json!({}))
            .await
            .map_err(|refusal| format!("a good spec was refused: {refusal}"))?;
        let mut wrong = Vec::new();
        for (spec, says) in table {
            match offer(scenario, "mesh", spec.clone()).await {
                Ok(()) => wrong.push(format!("taken, but should be refused: {spec}")),
                Err(refusal) if refusal.contains(says) => {}
                Err(refusal) => wrong.push(format!("{spec}\n  should say {says:?}\n  says {refusal}")),
            }
        }
        ensure(wrong.is_empty(), || wrong.join("\n"))
    });
}

#[test]
fn bad_names_are_refused() {
    scenario("refused-names", async |scenario| {
        for (name, says) in [
            (
                "m".repeat(41).as_str(),
                "metadata.name: use at most 40 characters",
            ),
            ("my.mesh", "metadata.name: use lower-case letters"),
            ("1mesh", "metadata.name: use lower-case letters"),
        ] {
            let refusal = offer(scenario, name, json!({})).await.err().ok_or("taken")?;
            ensure(refusal.contains(says), || refusal.clone())?;
        }
        offer(scenario, &"m".repeat(40), json!({}))
            .await
            .map_err(Into::into)
    });
}

#[test]
fn a_mistyped_field_is_refused_by_kubectl() {
    scenario("mistyped", async |scenario| {
        for (spec, says) in [
            ("replica: 3", "unknown field \"spec.replica\""),
            ("probe: {intervall: 1s}", "unknown field \"spec.probe.intervall\""),
        ] {
            let text = format!(
                "apiVersion: peernet.dev/v1alpha1\nkind: PeerNetwork\nmetadata: {{name: mesh}}\nspec: {{{spec}}}\n"
            );
            let arguments = [
                "--namespace",
                &scenario.namespace,
                "create",
                "--dry-run=server",
                "-f",
                "-",
            ];
            let result = peernet_e2e::command::run_with_input(&SETTINGS.kubectl, &arguments, &text).await;
            let refusal = result.err().ok_or("taken")?.to_string();
            ensure(refusal.contains(says), || refusal.clone())?;
        }
        Ok(())
    });
}

#[test]
fn what_only_the_operator_can_judge_ends_in_stalled() {
    scenario("judged", async |scenario| {
        let bad_peer =
            json!({"discovery": {"bootstrapPeers": ["/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWnotanid"]}});
        let no_port = json!({"discovery": {"bootstrapPeers": [format!("/ip4/192.0.2.7/tcp/0/p2p/{PEER}")]}});
        let greedy = json!({"podTemplate": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "64Mi"}}}});
        let tolerant =
            json!({"podTemplate": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}});
        let affine = json!({"podTemplate": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]}}}});
        let table = [
            (
                "bad-peer",
                bad_peer,
                reason::INVALID_SPEC,
                "spec.discovery.bootstrapPeers[0]: ",
            ),
            (
                "no-port",
                no_port,
                reason::INVALID_SPEC,
                "spec.discovery.bootstrapPeers[0]: ",
            ),
            ("greedy", greedy, reason::OBJECT_REFUSED, "resources.requests"),
            ("tolerant", tolerant, reason::OBJECT_REFUSED, "tolerations[0]"),
            ("affine", affine, reason::OBJECT_REFUSED, "affinity.podAffinity"),
            (
                "label",
                json!({"podTemplate": {"labels": {"team": "not a value!"}}}),
                reason::OBJECT_REFUSED,
                "not a value!",
            ),
            (
                "label-key",
                json!({"podTemplate": {"labels": {"not a key!": "x"}}}),
                reason::OBJECT_REFUSED,
                "not a key!",
            ),
            (
                "selector",
                json!({"podTemplate": {"nodeSelector": {"disk": "not a value!"}}}),
                reason::OBJECT_REFUSED,
                "nodeSelector",
            ),
            (
                "annotation",
                json!({"podTemplate": {"annotations": {"not a key!": "x"}}}),
                reason::OBJECT_REFUSED,
                "annotations",
            ),
        ];
        let mut networks = Vec::new();
        for (name, spec, reason, says) in table {
            networks.push((Network::create(scenario, name, spec).await?, reason, says));
        }
        for (network, reason, says) in &networks {
            assert_stalled(network, reason, says).await?;
        }
        // Mended by the one who can, it goes on by itself.
        let (mended, ..) = &networks[0];
        mended
            .change(json!({"discovery": {"bootstrapPeers": null}}))
            .await?;
        mended.until_ready(3).await?;
        mended
            .until_event("Normal", reason::ALL_NODES_CONNECTED)
            .await
            .map(drop)
    });
}

#[test]
fn objects_of_others_are_left_alone() {
    scenario("foreign", async |scenario| {
        // With a label of the operator's, since people copy manifests.
        let foreign = json!([
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "service"},
             "spec": {"ports": [{"port": 1}], "selector": {"app": "mine"}}},
            {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
             "metadata": {"name": "budget", "labels": {"app.kubernetes.io/managed-by": "peernet-operator"}},
             "spec": {"maxUnavailable": 3, "selector": {"matchLabels": {"app": "mine"}}}},
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "workload"},
             "spec": {"replicas": 0, "serviceName": "mine", "selector": {"matchLabels": {"app": "mine"}},
                      "template": {"metadata": {"labels": {"app": "mine"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret-identity"},
             "stringData": {"password": "mine"}},
        ]);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": foreign});
        let arguments = ["--namespace", &scenario.namespace, "create", "-f", "-"];
        peernet_e2e::command::run_with_input(&SETTINGS.kubectl, &arguments, &list.to_string()).await?;
        // Labels, owners and specs; what Kubernetes itself notes in their status is no matter.
        let theirs = async || {
            let fields = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.labels} \
                          {.metadata.ownerReferences} {.data} {.spec}{\"\\n\"}{end}";
            let foreign = "peernet.dev/network notin (service,budget,workload,secret)";
            scenario
                .kubectl(&[
                    "get",
                    "service,pdb,statefulset,secret",
                    "--selector",
                    foreign,
                    "-o",
                    fields,
                ])
                .await
        };
        let before = theirs().await?;
        for (name, reason, says) in [
            ("service", reason::NAME_CONFLICT, "Service service"),
            ("budget", reason::NAME_CONFLICT, "PodDisruptionBudget budget"),
            ("workload", reason::NAME_CONFLICT, "StatefulSet workload"),
            ("secret", reason::SECRET_DAMAGED, "Secret secret-identity"),
        ] {
            let network = Network::create(scenario, name, json!({})).await?;
            assert_stalled(&network, reason, says).await?;
        }
        assert_eq!(theirs().await?, before, "nothing of theirs was touched");

        scenario.kubectl(&["delete", "service", "service"]).await?;
        Network::named(scenario, "service").until_ready(3).await?;
        // A network that goes takes nothing of theirs with it.
        Network::named(scenario, "budget").delete().await?;
        eventually("the network's Service to go", async || {
            let left = scenario
                .kubectl(&["get", "service", "budget", "--ignore-not-found", "-o", "name"])
                .await?;
            ensure(left.is_empty(), || left)
        })
        .await?;
        scenario.kubectl(&["get", "pdb", "budget"]).await.map(drop)
    });
}

#[test]
fn a_bad_change_leaves_the_last_good_state_running() {
    scenario("bad-change", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"probe": {"window": "10s"}})).await?;
        network.until_ready(3).await?;
        let lives = network.lives().await?;
        let bad = json!({"replicas": 5, "discovery": {"bootstrapPeers": ["/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWnotanid"]}});
        network.change(bad).await?;
        let status = network.until_stalled(reason::INVALID_SPEC).await?;
        assert_eq!(nodes_column(&status), "3/3", "{}", yaml(&status));
        assert!(
            status.rtt.is_some() && is(&status, "Connected", "True"),
            "{}",
            yaml(&status)
        );
        let since = status.last_sample_time.ok_or("no sample")?;
        network
            .until("round trips measured after the change", |status| {
                status
                    .last_sample_time
                    .as_ref()
                    .is_some_and(|time| time.0 > since.0)
            })
            .await?;
        assert_eq!(network.lives().await?, lives);
        network
            .change(json!({"replicas": 3, "discovery": {"bootstrapPeers": null}}))
            .await?;
        network.until_ready(3).await?;
        assert_eq!(network.lives().await?, lives);
        Ok(())
    });
}

#[test]
fn a_host_network_where_pod_security_forbids_it_says_so() {
    scenario("forbidden-host", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"hostNetwork": true})).await?;
        let status = network
            .until("no node is ready", |status| {
                is(status, READY, "False") && nodes_column(status) == "0/3"
            })
            .await?;
        assert!(
            message(&status, READY).contains("0 of 3 nodes are ready"),
            "{}",
            yaml(&status)
        );
        // Kubernetes says why, and where people look: the events of the namespace.
        eventually("an event that names the cause", async || {
            let events = scenario
                .kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])
                .await?;
            ensure(
                events.contains("violates PodSecurity") && events.contains("host"),
                || events.clone(),
            )
        })
        .await
    });
}

/// `Stalled` for this reason, with a message that people can act on, and told once as an event.
async fn assert_stalled(network: &Network, reason: &str, says: &str) -> peernet_e2e::Outcome {
    let status = network.until_stalled(reason).await?;
    assert!(
        message(&status, STALLED).contains(says),
        "{}: {says}: {}",
        network.name,
        yaml(&status)
    );
    assert!(
        is(&status, READY, "False") && is(&status, "Reconciling", "False"),
        "{}",
        yaml(&status)
    );
    let told = network.until_event("Warning", reason).await?;
    assert!(told.contains(says), "{}: {told}", network.name);
    Ok(())
}

/// Offers a network to the API server without storing it. What it says when it refuses is the error.
async fn offer(scenario: &Scenario, name: &str, spec: Value) -> Result<(), String> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("peernet.dev", "v1alpha1", "PeerNetwork"));
    let networks: Api<DynamicObject> =
        Api::namespaced_with(scenario.client.clone(), &scenario.namespace, &kind);
    let network = DynamicObject::new(name, &kind).data(json!({"spec": spec}));
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match networks.create(&dry, &network).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => Err(error.to_string()),
    }
}
