//! What holds for the generated CustomResourceDefinition, whatever field is added to it.
#![cfg(feature = "crd")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic"
)]

use std::{fs, path::Path};

use kube::{CustomResourceExt, core::cel::validate_cel};
use peernet_api::v1alpha1::{PeerNetwork, crd_yaml};
use serde_json::{Value, json};

fn schema() -> Value {
    let crd = serde_json::to_value(PeerNetwork::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `check` with the path of each schema below `schema` and the schema itself.
fn walk(path: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
    check(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, check);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{suffix}"), &schema[key], check);
        }
    }
}

#[test]
fn the_yaml_in_the_repository_and_in_the_chart_is_the_one_of_these_types() {
    let generated = crd_yaml().unwrap();
    for copy in ["peernetworks.yaml", "../charts/peernet/files/peernetworks.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(copy);
        assert!(
            fs::read_to_string(&path).unwrap() == generated,
            "{copy} is old: run `make generate`"
        );
    }
}

#[test]
fn it_fits_well_into_the_annotation_in_which_kubectl_apply_keeps_a_copy() {
    // As JSON without spaces. 262,144 bytes of annotations fit on an object.
    let copy = serde_json::to_string(&PeerNetwork::crd()).unwrap();
    assert!(copy.len() < 100_000, "{} bytes", copy.len());
}

#[test]
fn every_list_map_and_string_of_the_spec_is_bounded() {
    let mut unbounded = Vec::new();
    walk("spec", &schema()["properties"]["spec"], &mut |path, schema| {
        let bound = match schema["type"].as_str() {
            Some("array") => "maxItems",
            Some("string") if schema.get("enum").is_none() => "maxLength",
            Some("object") if schema.get("additionalProperties").is_some() => "maxProperties",
            _ => return,
        };
        if schema.get(bound).is_none() {
            unbounded.push(format!("{path} has no {bound}"));
        }
    });
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}

#[test]
fn every_list_of_the_status_is_bounded() {
    walk(
        "status",
        &schema()["properties"]["status"],
        &mut |path, schema| {
            if schema["type"] == "array" {
                assert!(schema.get("maxItems").is_some(), "{path} has no maxItems");
            }
        },
    );
}

#[test]
fn numbers_are_signed_integers() {
    walk("", &schema(), &mut |path, schema| {
        assert_ne!(schema["type"], "number", "{path} is a float");
        if schema["type"] == "integer" {
            assert!(
                ["int32", "int64"].contains(&schema["format"].as_str().unwrap()),
                "{path}: {}",
                schema["format"]
            );
        }
    });
}

#[test]
fn lists_of_objects_are_keyed() {
    for (path, keys) in [
        ("/properties/spec/properties/imagePullSecrets", json!(["name"])),
        (
            "/properties/spec/properties/podTemplate/properties/topologySpreadConstraints",
            json!(["topologyKey", "whenUnsatisfiable"]),
        ),
        ("/properties/status/properties/conditions", json!(["type"])),
        ("/properties/status/properties/nodes", json!(["name"])),
        ("/properties/status/properties/services", json!(["name"])),
    ] {
        assert_eq!(
            schema().pointer(path).unwrap()["x-kubernetes-list-map-keys"],
            keys,
            "{path}"
        );
    }
}

#[test]
fn every_field_is_explained() {
    walk("spec", &schema()["properties"]["spec"], &mut |path, schema| {
        // The inside of an affinity is Kubernetes' own: `kubectl explain pod.spec.affinity` tells.
        let own =
            !path.starts_with("spec.podTemplate.affinity.") && !path.ends_with("[]") && !path.ends_with("{}");
        assert!(
            !own || schema["description"].as_str().is_some_and(|text| text.len() > 12),
            "{path}"
        );
    });
}

#[test]
fn an_empty_spec_gets_every_default() {
    let network: PeerNetwork = serde_json::from_value(json!({
        "apiVersion": "peernet.dev/v1alpha1", "kind": "PeerNetwork", "metadata": {"name": "demo"}, "spec": {}
    }))
    .unwrap();
    let spec = serde_json::to_value(&network.spec).unwrap();
    assert_eq!(
        spec,
        json!({
            "workload": "StatefulSet", "replicas": 3, "privateNetwork": {"enabled": false},
            "guests": {"enabled": false, "max": 16},
            "hostNetwork": false, "podTemplate": {}, "transports": ["TCP"],
            "discovery": {"dns": true, "mdns": true, "kademlia": true},
            "probe": {"interval": "1s", "timeout": "2s", "window": "5m", "peersPerNode": 64, "burst": 5,
                "stamp": {"enabled": true, "openReflector": false}},
            "relay": {"enabled": false, "servers": 2, "limits": {"reservations": 128, "circuits": 256,
                "circuitsPerPeer": 64, "circuitDuration": "1h", "circuitMebibytes": 64}},
            "api": {"open": false},
        })
    );
    // What serde fills in, the API server fills in, too: the schema's defaults are the same.
    for (field, value) in spec.as_object().unwrap() {
        let default = &schema()["properties"]["spec"]["properties"][field]["default"];
        assert_eq!(default, value, "default of spec.{field}");
    }
}

/// What CEL says of a network of this name and spec; nothing if it accepts it.
fn refusal(name: &str, spec: Value) -> String {
    let network: PeerNetwork = serde_json::from_value(json!({
        "apiVersion": "peernet.dev/v1alpha1", "kind": "PeerNetwork", "metadata": {"name": name}, "spec": spec
    }))
    .unwrap();
    validate_cel(&network)
        .err()
        .map(|errors| format!("{errors:?}"))
        .unwrap_or_default()
}

#[test]
fn rules_name_the_field_and_say_what_to_do() {
    let long = "a".repeat(41);
    for (name, spec, message) in [
        (
            long.as_str(),
            json!({}),
            "metadata.name: use at most 40 characters",
        ),
        ("with.dot", json!({}), "metadata.name: use lower-case letters"),
        ("0digit", json!({}), "metadata.name: use lower-case letters"),
        (
            "demo",
            json!({"discovery": {"dns": false, "mdns": false}}),
            "spec.discovery: with dns and mdns off",
        ),
        (
            "demo",
            json!({"hostPortBase": 4000}),
            "spec.hostPortBase: needs spec.hostNetwork",
        ),
        (
            "demo",
            json!({"hostNetwork": true, "hostPortBase": 65520}),
            "spec.hostPortBase: leave room for 8 ports",
        ),
        (
            "demo",
            json!({"hostNetwork": true, "replicas": 9, "discovery": {"mdns": false, "kademlia": false}}),
            "spec.discovery: with hostNetwork and more than 8 replicas",
        ),
        (
            "demo",
            json!({"discovery": {"kademlia": false, "kademliaProtocol": "/a/kad"}}),
            "spec.discovery.kademliaProtocol: needs spec.discovery.kademlia",
        ),
        (
            "demo",
            json!({"probe": {"interval": "50ms"}}),
            "spec.probe.interval: use a duration from 100ms to 1h",
        ),
        (
            "demo",
            json!({"probe": {"interval": "2h", "window": "24h"}}),
            "spec.probe.interval: use a duration",
        ),
        (
            "demo",
            json!({"probe": {"timeout": "61s"}}),
            "spec.probe.timeout: use a duration from 10ms to 60s",
        ),
        (
            "demo",
            json!({"probe": {"window": "9s"}}),
            "spec.probe.window: use a duration from 10s to 24h",
        ),
        (
            "demo",
            json!({"probe": {"interval": "1m"}}),
            "spec.probe.window: use at least ten times",
        ),
        (
            "demo",
            json!({"probe": {"stamp": {"enabled": false, "openReflector": true}}}),
            "spec.probe.stamp.openReflector: needs spec.probe.stamp.enabled",
        ),
        (
            "demo",
            json!({"privateNetwork": {"secretRef": {"name": "own"}}}),
            "spec.privateNetwork.secretRef: needs spec.privateNetwork.enabled",
        ),
        (
            "demo",
            json!({"relay": {"limits": {"circuitDuration": "1m"}}}),
            "spec.relay.limits.circuitDuration: use a duration from 2m to 168h",
        ),
        (
            "demo",
            json!({"services": ["web"], "discovery": {"kademlia": false}}),
            "spec.services: needs spec.discovery.kademlia",
        ),
        (
            "demo",
            json!({"transports": ["TCP", "QUIC", "TCP"]}),
            "spec.transports: list each transport once",
        ),
        (
            "demo",
            json!({"transports": ["TCP", "QUIC"], "privateNetwork": {"enabled": true}}),
            "spec.transports: QUIC can't be part of a private network",
        ),
        (
            "demo",
            json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "mine"}}}),
            "spec.podTemplate.labels: labels under peernet.dev/",
        ),
    ] {
        let got = refusal(name, spec);
        assert!(got.contains(message), "expected {message:?}, got {got:?}");
    }
}

#[test]
fn rules_accept_what_is_right() {
    for spec in [
        json!({}),
        json!({"discovery": {"dns": false}}),
        json!({"discovery": {"dns": false, "mdns": false, "bootstrapPeers": ["/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW"]}}),
        json!({"probe": {"interval": "100ms", "timeout": "10ms", "window": "10s"}}),
        json!({"probe": {"interval": "1m30s", "window": "15m"}}),
        json!({"probe": {"burst": 1, "stamp": {"enabled": false}}}),
        json!({"probe": {"burst": 16, "stamp": {"openReflector": true}}}),
        json!({"privateNetwork": {"enabled": true}}),
        json!({"privateNetwork": {"enabled": true, "secretRef": {"name": "own"}}}),
        json!({"relay": {"enabled": true, "servers": 0, "limits": {"circuitDuration": "168h"}}}),
        json!({"podTemplate": {"labels": {"team": "net"}}}),
        json!({"services": ["web", "storage/v1"]}),
        json!({"services": [], "discovery": {"kademlia": false}}),
    ] {
        assert_eq!(refusal("demo", spec.clone()), "", "{spec}");
    }
}
