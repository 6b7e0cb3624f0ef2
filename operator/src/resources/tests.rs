use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use serde_json::{Value, json};

use super::*;
use crate::network::fixtures::network;

fn template(spec: Value) -> PodTemplateSpec {
    match desired(&network(spec), "f00d").workload {
        DesiredWorkload::StatefulSet(set) => set.spec.unwrap().template,
        DesiredWorkload::DaemonSet(set) => set.spec.unwrap().template,
    }
}

fn pod(spec: Value) -> PodSpec {
    template(spec).spec.unwrap()
}

fn env(pod: &PodSpec, name: &str) -> Option<String> {
    let variable = pod.containers[0]
        .env
        .iter()
        .flatten()
        .find(|variable| variable.name == name)?;
    variable
        .value
        .clone()
        .or_else(|| Some(variable.value_from.clone()?.field_ref?.field_path))
}

#[test]
fn a_rollout_waits_until_a_new_pod_has_met_others() {
    // After which an agent that waits to be dialed dials by itself, in seconds: the planner's `GRACE`.
    const GRACE: i32 = 3;
    for workload in ["StatefulSet", "DaemonSet"] {
        let seconds = match desired(&network(json!({"workload": workload})), "f00d").workload {
            DesiredWorkload::StatefulSet(set) => set.spec.unwrap().min_ready_seconds,
            DesiredWorkload::DaemonSet(set) => set.spec.unwrap().min_ready_seconds,
        };
        assert!(seconds > Some(GRACE), "{workload}: {seconds:?}");
    }
}

#[test]
fn every_object_is_owned_and_labelled() {
    let Desired {
        service,
        disruption_budget,
        workload,
    } = desired(&network(json!({})), "f00d");
    let DesiredWorkload::StatefulSet(set) = workload else {
        panic!("a StatefulSet is the default")
    };
    for metadata in [
        service.metadata,
        disruption_budget.unwrap().metadata,
        set.metadata,
    ] {
        assert_eq!(metadata.name.as_deref(), Some("mesh"));
        assert_eq!(metadata.namespace.as_deref(), Some("lab"));
        let owner = &metadata.owner_references.unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
            ("PeerNetwork", "11111111-2222", Some(true))
        );
        assert_eq!(
            metadata.labels.unwrap()["app.kubernetes.io/managed-by"],
            "peernet-operator"
        );
    }
}

#[test]
fn the_selector_is_a_part_of_the_pods_labels_and_free_of_versions() {
    let network = network(json!({"podTemplate": {"labels": {"team": "net"}}}));
    let labels = template(json!({"podTemplate": {"labels": {"team": "net"}}}))
        .metadata
        .unwrap()
        .labels
        .unwrap();
    assert_eq!(labels["team"], "net");
    for (key, value) in selector_labels(&network.identity) {
        assert_eq!(labels[&key], value);
    }
    assert_eq!(
        selector_text(&network.identity),
        "app.kubernetes.io/name=peernet-node,peernet.dev/network=mesh"
    );
}

#[test]
fn pods_pass_pod_security_restricted() {
    let pod = pod(json!({}));
    let security = pod.security_context.unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    let container = pod.containers[0].security_context.clone().unwrap();
    assert_eq!(container.allow_privilege_escalation, Some(false));
    assert_eq!(container.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(container.read_only_root_filesystem, Some(true));
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.host_network, None);
}

#[test]
fn the_nodes_network_is_used_only_when_asked_for() {
    let pod = pod(json!({"hostNetwork": true}));
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.dns_policy.as_deref(), Some("ClusterFirstWithHostNet"));
}

#[test]
fn ports_are_named_so_that_the_scheduler_knows_what_a_node_has_left() {
    let ports = |spec| -> Vec<(String, i32, String)> {
        let ports = pod(spec).containers[0].ports.clone().unwrap();
        ports
            .into_iter()
            .map(|port| (port.name.unwrap(), port.container_port, port.protocol.unwrap()))
            .collect()
    };
    let tcp = [
        ("p2p".to_owned(), 4001, "TCP".to_owned()),
        ("http".to_owned(), 8080, "TCP".to_owned()),
        ("api".to_owned(), 8081, "TCP".to_owned()),
    ];
    let stamp = ("stamp".to_owned(), 8620, "UDP".to_owned());
    let with = ports(json!({}));
    assert_eq!(with, [tcp.as_slice(), std::slice::from_ref(&stamp)].concat());
    let without = json!({"probe": {"stamp": {"enabled": false}}});
    assert_eq!(ports(without), tcp);
    let on_nodes = ports(json!({"hostNetwork": true, "workload": "DaemonSet"}));
    let numbers: Vec<_> = on_nodes.iter().map(|(_, port, _)| *port).collect();
    assert_eq!(numbers, [20_000, 20_001, 20_003, 20_002]);
}

#[test]
fn agents_that_share_a_node_have_ports_by_their_ordinal() {
    let spec =
        json!({"hostNetwork": true, "hostPortBase": 4000, "discovery": {"kademliaProtocol": "/lab/kad"}});
    let pod = pod(spec.clone());
    let container = &pod.containers[0];
    // One template for all: the scheduler can't be told.
    assert_eq!(container.ports, None);
    for (name, value) in [
        ("PEERNET_P2P_PORT", "4000"),
        ("PEERNET_HTTP_PORT", "4001"),
        ("PEERNET_STAMP_PORT", "4002"),
        ("PEERNET_API_PORT", "4003"),
        ("PEERNET_PORT_STEP", "8"),
        (
            "PEERNET_ORDINAL",
            "metadata.labels['apps.kubernetes.io/pod-index']",
        ),
        ("PEERNET_KADEMLIA_PROTOCOL", "/lab/kad"),
    ] {
        assert_eq!(env(&pod, name).as_deref(), Some(value), "{name}");
    }
    let seeds = env(&pod, "PEERNET_SEED_DNS").unwrap();
    assert!(
        seeds.starts_with("mesh-0.mesh.lab.svc:4000,mesh-1.mesh.lab.svc:4008,"),
        "{seeds}"
    );
    assert_eq!(seeds.split(',').count(), 8);
    let probe = container.readiness_probe.clone().unwrap();
    assert_eq!(probe.http_get, None);
    assert_eq!(
        probe.exec.unwrap().command.unwrap(),
        ["/peernet-node", "--check", "/readyz"]
    );
    let DesiredWorkload::StatefulSet(set) = desired(&network(spec), "f00d").workload else {
        panic!("a StatefulSet is the default")
    };
    assert_eq!(
        set.metadata.annotations.unwrap()["peernet.dev/host-ports"],
        "4000-4023"
    );
}

#[test]
fn each_transport_has_its_port_and_is_told_to_the_agents() {
    let spec = json!({"transports": ["QUIC", "WebSocket"], "probe": {"stamp": {"enabled": false}}});
    let container = pod(spec).containers.remove(0);
    let ports: Vec<_> = container
        .ports
        .unwrap()
        .into_iter()
        .map(|port| (port.name.unwrap(), port.container_port, port.protocol.unwrap()))
        .collect();
    let expected = [
        ("quic", 4001, "UDP"),
        ("websocket", 4002, "TCP"),
        ("http", 8080, "TCP"),
        ("api", 8081, "TCP"),
    ];
    assert_eq!(
        ports,
        expected.map(|(name, port, protocol)| (name.to_owned(), port, protocol.to_owned()))
    );
    let environment = container.env.unwrap();
    let value = |name: &str| {
        let found = environment.iter().find(|variable| variable.name == name);
        found.and_then(|variable| variable.value.clone())
    };
    assert_eq!(value("PEERNET_TRANSPORTS").as_deref(), Some("QUIC,WebSocket"));
    assert_eq!(value("PEERNET_WEBSOCKET_PORT").as_deref(), Some("4002"));
}

#[test]
fn identities_follow_the_pod_in_a_stateful_set_and_the_node_in_a_daemon_set() {
    assert_eq!(env(&pod(json!({})), "PEERNET_NAME").unwrap(), "metadata.name");
    assert_eq!(
        env(&pod(json!({"workload": "DaemonSet"})), "PEERNET_NAME").unwrap(),
        "spec.nodeName"
    );
}

#[test]
fn agents_are_told_what_the_spec_says() {
    let pod = pod(json!({
        "discovery": {"dns": false, "mdns": false, "bootstrapPeers":
            ["/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWNxBz9mwtft5FrW9i5YBacGP1RHnrndmQiZh4fjBRJLGK"]},
        "probe": {"interval": "250ms", "timeout": "1s", "window": "1m", "peersPerNode": 9,
            "burst": 3, "stamp": {"openReflector": true}},
        "services": ["web", "db/1"],
        "api": {"open": true},
    }));
    assert_eq!(env(&pod, "PEERNET_SEED_DNS"), None);
    for (name, value) in [
        ("PEERNET_NETWORK", "lab/mesh"),
        ("PEERNET_MDNS", "false"),
        ("PEERNET_KADEMLIA", "true"),
        ("PEERNET_PROBE_INTERVAL", "250ms"),
        ("PEERNET_PROBE_TIMEOUT", "1s"),
        ("PEERNET_PROBE_WINDOW", "1m"),
        ("PEERNET_PEERS_PER_NODE", "9"),
        ("PEERNET_PROBE_BURST", "3"),
        ("PEERNET_STAMP", "true"),
        ("PEERNET_STAMP_PORT", "8620"),
        ("PEERNET_STAMP_OPEN", "true"),
        ("PEERNET_API_PORT", "8081"),
        ("PEERNET_API_OPEN", "true"),
        ("PEERNET_SERVICES", "web,db/1"),
        (
            "PEERNET_BOOTSTRAP_PEERS",
            "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWNxBz9mwtft5FrW9i5YBacGP1RHnrndmQiZh4fjBRJLGK",
        ),
    ] {
        assert_eq!(env(&pod, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        env(&super::tests::pod(json!({})), "PEERNET_SEED_DNS").unwrap(),
        "mesh.lab.svc"
    );
}

#[test]
fn agents_receive_guests_only_where_the_network_does() {
    for (guests, told) in [
        (json!({}), "0"),
        (json!({"max": 5}), "0"),
        (json!({"enabled": true}), "16"),
        (json!({"enabled": true, "max": 5}), "5"),
    ] {
        let pod = pod(json!({"guests": guests}));
        assert_eq!(env(&pod, "PEERNET_GUESTS").as_deref(), Some(told), "{guests}");
    }
}

#[test]
fn agents_are_told_who_relays_and_within_which_bounds() {
    let with = |workload: &str, relay: serde_json::Value| pod(json!({"workload": workload, "relay": relay}));
    let limits = json!({"reservations": 3, "circuits": 4, "circuitsPerPeer": 5, "circuitDuration": "6m",
        "circuitMebibytes": 7});
    let relaying = with(
        "StatefulSet",
        json!({"enabled": true, "servers": 1, "limits": limits}),
    );
    for (name, value) in [
        ("PEERNET_RELAY", "true"),
        ("PEERNET_RELAY_SERVERS", "1"),
        ("PEERNET_RELAY_RESERVATIONS", "3"),
        ("PEERNET_RELAY_CIRCUITS", "4"),
        ("PEERNET_RELAY_CIRCUITS_PER_PEER", "5"),
        ("PEERNET_RELAY_CIRCUIT_DURATION", "6m"),
        ("PEERNET_RELAY_CIRCUIT_MEBIBYTES", "7"),
    ] {
        assert_eq!(env(&relaying, name).as_deref(), Some(value), "{name}");
    }
    let servers = |pod| env(&pod, "PEERNET_RELAY_SERVERS");
    assert_eq!(
        servers(with("DaemonSet", json!({"enabled": true}))).as_deref(),
        Some("all")
    );
    assert_eq!(
        servers(with("DaemonSet", json!({"enabled": true, "servers": 0}))).as_deref(),
        Some("0")
    );
    assert_eq!(servers(with("StatefulSet", json!({}))), None);
}

#[test]
fn a_budget_exists_where_a_drain_could_take_two() {
    for (spec, wanted) in [
        (json!({}), true),
        (json!({"replicas": 2}), true),
        (json!({"replicas": 1}), false),
        (json!({"replicas": 0}), false),
        (json!({"workload": "DaemonSet"}), false),
    ] {
        assert_eq!(
            desired(&network(spec.clone()), "f00d")
                .disruption_budget
                .is_some(),
            wanted,
            "{spec}"
        );
    }
}

#[test]
fn the_users_spread_replaces_ours() {
    let keys = |spec| -> Vec<String> {
        let spread = pod(spec).topology_spread_constraints.unwrap_or_default();
        spread
            .into_iter()
            .map(|constraint| constraint.topology_key)
            .collect()
    };
    assert_eq!(
        keys(json!({})),
        ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    );
    assert_eq!(keys(json!({"workload": "DaemonSet"})), Vec::<String>::new());
    assert_eq!(
        keys(json!({"podTemplate": {"topologySpreadConstraints": [{"topologyKey": "rack"}]}})),
        ["rack"]
    );
}

#[test]
fn agents_have_no_cpu_limit_unless_asked_for() {
    let limits = |spec| {
        pod(spec).containers[0]
            .resources
            .clone()
            .unwrap()
            .limits
            .unwrap_or_default()
    };
    assert!(!limits(json!({})).contains_key("cpu"));
    assert_eq!(
        limits(json!({"podTemplate": {"resources": {"limits": {"cpu": "1"}}}}))["cpu"].0,
        "1"
    );
}

#[test]
fn no_empty_list_or_map_is_applied() {
    // Server-side apply would claim it, and fight whoever fills it.
    fn check(path: &str, value: &Value) {
        assert!(!value.is_null(), "{path} is null");
        match value {
            Value::Object(map) => map
                .iter()
                .for_each(|(key, child)| check(&format!("{path}.{key}"), child)),
            Value::Array(list) => {
                assert!(!list.is_empty(), "{path} is empty");
                list.iter().for_each(|child| check(path, child));
            }
            _ => {}
        }
    }
    let Desired {
        service,
        disruption_budget,
        workload,
    } = desired(&network(json!({})), "f00d");
    check("service", &serde_json::to_value(service).unwrap());
    check(
        "budget",
        &serde_json::to_value(disruption_budget.unwrap()).unwrap(),
    );
    let DesiredWorkload::StatefulSet(set) = workload else {
        panic!("a StatefulSet is the default")
    };
    check("workload", &serde_json::to_value(set).unwrap());
}

#[test]
fn the_users_key_is_mounted_where_it_can_change_and_nothing_of_it_is_in_the_template() {
    let mounted = |spec| -> Vec<(String, String, String)> {
        let volumes = pod(spec).volumes.unwrap();
        let secrets = volumes.into_iter().filter_map(|volume| volume.secret);
        secrets
            .map(|secret| {
                let item = secret.items.unwrap().remove(0);
                (secret.secret_name.unwrap(), item.key, item.path)
            })
            .collect()
    };
    let identity = ("mesh-identity", "network-secret", "network-secret");
    let all = |secrets: &[(&str, &str, &str)]| -> Vec<(String, String, String)> {
        let own = |(name, key, path): &(&str, &str, &str)| {
            ((*name).to_owned(), (*key).to_owned(), (*path).to_owned())
        };
        secrets.iter().map(own).collect()
    };
    let derived = json!({"privateNetwork": {"enabled": true}});
    let given = json!({"privateNetwork": {"enabled": true, "secretRef": {"name": "own", "key": "psk"}}});
    assert_eq!(mounted(json!({})), all(&[identity]));
    assert_eq!(mounted(derived.clone()), all(&[identity]));
    assert_eq!(
        mounted(given.clone()),
        all(&[identity, ("own", "psk", "swarm.key")])
    );
    let told = |spec| {
        let pod = pod(spec);
        let told = ["PEERNET_PRIVATE_NETWORK", "PEERNET_SWARM_KEY_FILE"];
        told.map(|name| env(&pod, name).unwrap_or_default())
    };
    assert_eq!(told(json!({})), ["", ""]);
    assert_eq!(told(derived), ["true", ""]);
    assert_eq!(told(given.clone()), ["true", "/etc/peernet/swarm-key/swarm.key"]);
    let mounts = pod(given).containers[0].volume_mounts.clone().unwrap();
    assert_eq!(mounts[1].mount_path, "/etc/peernet/swarm-key");
    assert!(mounts.iter().all(|mount| mount.sub_path.is_none()));
}
