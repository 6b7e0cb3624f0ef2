//! The agents' pods. They pass Pod Security `restricted`, unless the network asks for its nodes' own network.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, KeyToPath,
        LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
        ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Toleration,
        TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use peernet_api::{
    identity::SECRET_KEY,
    ports,
    transport::Transport,
    v1alpha1::{Guests, PodTemplate, Resources},
};

use super::{CONTAINER, labels, selector};
use crate::{
    host_ports::{HTTP_PORT_VARIABLE, ORDINAL_LABEL, PORT_STEP_VARIABLE},
    network::Network,
    private_network,
};

/// User and group of the agents, as in their image.
const USER: i64 = 65_532;
const SECRET_DIR: &str = "/etc/peernet/secret";
const SWARM_KEY_DIR: &str = "/etc/peernet/swarm-key";
const SWARM_KEY: &str = "swarm.key";
/// Agents that all others look up by name, in a StatefulSet with `hostNetwork`. They tell of the rest through the DHT.
const CONTACTS: u16 = 8;
/// The agents' program in their image, which asks itself for its health where the kubelet can't know its port.
const PROGRAM: &str = "/peernet-node";
/// The kubelet shows what an agent writes there at its end.
const TERMINATION_LOG: &str = "/dev/termination-log";

pub(super) fn template(network: &Network) -> PodTemplateSpec {
    let pod = &network.spec.pod_template;
    let mut all_labels = pod.labels.clone();
    all_labels.extend(labels(&network.identity));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(all_labels),
            annotations: non_empty(pod.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container(network)],
            volumes: Some(volumes(network)),
            // Agents have no business with the API server.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            host_network: network.spec.host_network.then_some(true),
            dns_policy: network
                .spec
                .host_network
                .then(|| "ClusterFirstWithHostNet".to_owned()),
            termination_grace_period_seconds: Some(10),
            image_pull_secrets: non_empty_list(
                network
                    .spec
                    .image_pull_secrets
                    .iter()
                    .map(|secret| LocalObjectReference {
                        name: secret.name.clone(),
                    })
                    .collect(),
            ),
            node_selector: non_empty(pod.node_selector.clone()),
            tolerations: non_empty_list(tolerations(pod)),
            affinity: pod.affinity.clone(),
            topology_spread_constraints: non_empty_list(spread(network)),
            priority_class_name: pod.priority_class_name.clone(),
            ..PodSpec::default()
        }),
    }
}

fn container(network: &Network) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(network.image.clone()),
        image_pull_policy: Some(format!("{:?}", network.image_pull_policy)),
        env: Some(environment(network)),
        ports: container_ports(network),
        readiness_probe: Some(probe(network, "/readyz", 2, 3)),
        // Patient: a busy host must not get its agents restarted.
        liveness_probe: Some(probe(network, "/livez", 10, 6)),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        resources: Some(resources(network.spec.pod_template.resources.as_ref())),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(
            secrets(network)
                .map(|secret| VolumeMount {
                    name: secret.volume.to_owned(),
                    mount_path: secret.folder.to_owned(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                })
                .collect(),
        ),
        ..Container::default()
    }
}

/// A Secret of which the agents read one key as a file.
struct MountedSecret {
    volume: &'static str,
    folder: &'static str,
    name: String,
    key: String,
    file: &'static str,
}

fn secrets(network: &Network) -> impl Iterator<Item = MountedSecret> {
    let identity = MountedSecret {
        volume: "secret",
        folder: SECRET_DIR,
        name: network.identity.secret_name(),
        key: SECRET_KEY.to_owned(),
        file: SECRET_KEY,
    };
    let swarm_key = private_network::wanted(&network.spec.private_network).map(|wanted| MountedSecret {
        volume: "swarm-key",
        folder: SWARM_KEY_DIR,
        name: wanted.name.clone(),
        key: wanted.key.clone(),
        file: SWARM_KEY,
    });
    std::iter::once(identity).chain(swarm_key)
}

/// Mounted as folders: the kubelet never changes a file that is mounted by its own path.
fn volumes(network: &Network) -> Vec<Volume> {
    secrets(network)
        .map(|secret| Volume {
            name: secret.volume.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.name),
                items: Some(vec![KeyToPath {
                    key: secret.key,
                    path: secret.file.to_owned(),
                    mode: None,
                }]),
                default_mode: Some(0o444),
                optional: None,
            }),
            ..Volume::default()
        })
        .collect()
}

/// What the agents speak libp2p on. In a StatefulSet with `hostNetwork` these are the ports of the first agent.
pub(super) fn p2p_ports(network: &Network) -> impl Iterator<Item = (&'static str, u16, &'static str)> {
    let ports = network.ports;
    network
        .spec
        .transports
        .iter()
        .map(move |transport| match transport {
            Transport::Tcp => ("p2p", ports.p2p, "TCP"),
            Transport::Quic => ("quic", ports.p2p, "UDP"),
            Transport::WebSocket => ("websocket", ports.websocket, "TCP"),
        })
}

/// What the agents listen on. With `hostNetwork` the scheduler keeps these ports of a node for one pod: not in a StatefulSet,
/// whose pods have one template and each its own ports.
fn container_ports(network: &Network) -> Option<Vec<ContainerPort>> {
    let ports = network.ports;
    if ports.step > 0 {
        return None;
    }
    let stamp = network.spec.probe.stamp.enabled;
    let stamp = stamp.then_some(("stamp", ports.stamp, "UDP"));
    let all = p2p_ports(network)
        .chain([("http", ports.http, "TCP"), ("api", ports.api, "TCP")])
        .chain(stamp);
    let port = |(name, port, protocol): (&str, u16, &str)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    Some(all.map(port).collect())
}

/// The names by which agents look each other up, each with its port if that is not the one's who asks.
fn seeds(network: &Network) -> String {
    let (identity, own) = (&network.identity, network.ports);
    let service = format!("{}.{}.svc", identity.name, identity.namespace);
    if own.step == 0 {
        return service;
    }
    let first = match network.spec.transports.first() {
        Some(Transport::WebSocket) => own.websocket,
        _ => own.p2p,
    };
    // The Service's name stands for nodes, and does not say which agents are on them. The first agents' own names do, however
    // many there are: a number that followed `replicas` would restart all agents whenever the network is scaled.
    let contacts = (0..CONTACTS).filter_map(|ordinal| {
        let port = ports::of_ordinal(first, own.step, ordinal)?;
        Some(format!("{}-{ordinal}.{service}:{port}", identity.name))
    });
    contacts.collect::<Vec<_>>().join(",")
}

fn environment(network: &Network) -> Vec<EnvVar> {
    let (identity, spec) = (&network.identity, &network.spec);
    let value = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    };
    let name_field = if network.is_stateful() {
        "metadata.name"
    } else {
        "spec.nodeName"
    };
    let mut environment = vec![
        value("PEERNET_NETWORK", identity.path()),
        field("PEERNET_NAME", name_field),
        field("PEERNET_POD_IP", "status.podIP"),
        value("PEERNET_SECRET_FILE", format!("{SECRET_DIR}/{SECRET_KEY}")),
        value(
            "PEERNET_TRANSPORTS",
            spec.transports
                .iter()
                .map(|transport| transport.name())
                .collect::<Vec<_>>()
                .join(","),
        ),
        value("PEERNET_P2P_PORT", network.ports.p2p.to_string()),
        value("PEERNET_WEBSOCKET_PORT", network.ports.websocket.to_string()),
        value(HTTP_PORT_VARIABLE, network.ports.http.to_string()),
        value("PEERNET_API_PORT", network.ports.api.to_string()),
        value("PEERNET_API_OPEN", spec.api.open.to_string()),
        value("PEERNET_SERVICES", spec.services.join(",")),
        value("PEERNET_PROBE_INTERVAL", spec.probe.interval.clone()),
        value("PEERNET_PROBE_TIMEOUT", spec.probe.timeout.clone()),
        value("PEERNET_PROBE_WINDOW", spec.probe.window.clone()),
        value("PEERNET_PEERS_PER_NODE", spec.probe.peers_per_node.to_string()),
        value("PEERNET_PROBE_BURST", spec.probe.burst.to_string()),
        value("PEERNET_STAMP", spec.probe.stamp.enabled.to_string()),
        value("PEERNET_STAMP_PORT", network.ports.stamp.to_string()),
        value("PEERNET_STAMP_OPEN", spec.probe.stamp.open_reflector.to_string()),
        value("PEERNET_MDNS", spec.discovery.mdns.to_string()),
        value("PEERNET_KADEMLIA", spec.discovery.kademlia.to_string()),
        value(
            "PEERNET_BOOTSTRAP_PEERS",
            spec.discovery.bootstrap_peers.join(","),
        ),
        value("PEERNET_GUESTS", guests(&spec.guests).to_string()),
        value("LOG_FORMAT", "json".to_owned()),
    ];
    // A network that is not private has no word of it: its pods need no restart for a new operator's sake.
    if spec.private_network.enabled {
        environment.push(value("PEERNET_PRIVATE_NETWORK", true.to_string()));
    }
    if private_network::wanted(&spec.private_network).is_some() {
        environment.push(value(
            "PEERNET_SWARM_KEY_FILE",
            format!("{SWARM_KEY_DIR}/{SWARM_KEY}"),
        ));
    }
    if spec.relay.enabled {
        let (relay, limits) = (&spec.relay, &spec.relay.limits);
        // A DaemonSet's agents have no ordinals.
        let servers = match relay.servers {
            1.. if !network.is_stateful() => "all".to_owned(),
            servers => servers.to_string(),
        };
        environment.extend([
            value("PEERNET_RELAY", relay.enabled.to_string()),
            value("PEERNET_RELAY_SERVERS", servers),
            value("PEERNET_RELAY_RESERVATIONS", limits.reservations.to_string()),
            value("PEERNET_RELAY_CIRCUITS", limits.circuits.to_string()),
            value(
                "PEERNET_RELAY_CIRCUITS_PER_PEER",
                limits.circuits_per_peer.to_string(),
            ),
            value("PEERNET_RELAY_CIRCUIT_DURATION", limits.circuit_duration.clone()),
            value(
                "PEERNET_RELAY_CIRCUIT_MEBIBYTES",
                limits.circuit_mebibytes.to_string(),
            ),
        ]);
    }
    if spec.discovery.dns {
        environment.push(value("PEERNET_SEED_DNS", seeds(network)));
    }
    if let Some(protocol) = &spec.discovery.kademlia_protocol {
        environment.push(value("PEERNET_KADEMLIA_PROTOCOL", protocol.clone()));
    }
    if network.ports.step > 0 {
        environment.push(value(PORT_STEP_VARIABLE, network.ports.step.to_string()));
        environment.push(field(
            "PEERNET_ORDINAL",
            &format!("metadata.labels['{ORDINAL_LABEL}']"),
        ));
    }
    environment.push(value("PEERNET_TERMINATION_LOG", TERMINATION_LOG.to_owned()));
    environment
}

/// Guests that an agent receives at a time.
fn guests(wanted: &Guests) -> i32 {
    if wanted.enabled { wanted.max } else { 0 }
}

/// A probe over HTTP, or, where each pod has another port than its template could name, by the agent's own program.
fn probe(network: &Network, path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    let has_own_port = network.ports.step > 0;
    let http_get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::String("http".to_owned()),
        ..HTTPGetAction::default()
    };
    let exec = ExecAction {
        command: Some([PROGRAM, "--check", path].map(str::to_owned).into()),
    };
    Probe {
        http_get: (!has_own_port).then_some(http_get),
        exec: has_own_port.then_some(exec),
        // A program's start costs more than a request.
        period_seconds: Some(if has_own_port {
            period_seconds * 2
        } else {
            period_seconds
        }),
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn resources(wanted: Option<&Resources>) -> ResourceRequirements {
    let quantities = |wanted: &BTreeMap<String, String>| {
        non_empty(
            wanted
                .iter()
                .map(|(name, text)| (name.clone(), Quantity(text.clone())))
                .collect(),
        )
    };
    match wanted {
        Some(wanted) => ResourceRequirements {
            requests: quantities(&wanted.requests),
            limits: quantities(&wanted.limits),
            claims: None,
        },
        None => {
            let quantity = |name: &str, text: &str| (name.to_owned(), Quantity(text.to_owned()));
            ResourceRequirements {
                requests: Some([quantity("cpu", "10m"), quantity("memory", "24Mi")].into()),
                // No CPU limit: a throttled agent measures its own throttling.
                limits: Some([quantity("memory", "64Mi")].into()),
                claims: None,
            }
        }
    }
}

fn tolerations(pod: &PodTemplate) -> Vec<Toleration> {
    pod.tolerations
        .iter()
        .map(|toleration| Toleration {
            key: toleration.key.clone(),
            operator: toleration.operator.map(|operator| format!("{operator:?}")),
            value: toleration.value.clone(),
            effect: toleration.effect.map(|effect| format!("{effect:?}")),
            toleration_seconds: toleration.toleration_seconds,
        })
        .collect()
}

fn spread(network: &Network) -> Vec<TopologySpreadConstraint> {
    let wanted = &network.spec.pod_template.topology_spread_constraints;
    let constraint = |key: &str, max_skew: i32, when_unsatisfiable: String| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        when_unsatisfiable,
        label_selector: Some(selector(&network.identity)),
        ..TopologySpreadConstraint::default()
    };
    if !wanted.is_empty() {
        return wanted
            .iter()
            .map(|wanted| {
                constraint(
                    &wanted.topology_key,
                    wanted.max_skew,
                    format!("{:?}", wanted.when_unsatisfiable),
                )
            })
            .collect();
    }
    if !network.is_stateful() {
        return Vec::new();
    }
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        .map(|key| constraint(key, 1, "ScheduleAnyway".to_owned()))
        .into()
}

/// `None` for an empty map: server-side apply would own the emptiness.
fn non_empty<V>(map: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then_some(map)
}

fn non_empty_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
