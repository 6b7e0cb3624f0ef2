//! What the user asks for.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Affinity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{guests::Guests, schema, status::PeerNetworkStatus};
use crate::transport::Transport;

/// A network of peers: libp2p agents in pods that measure the round trips between each other.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "peernet.dev",
    version = "v1alpha1",
    kind = "PeerNetwork",
    plural = "peernetworks",
    singular = "peernetwork",
    shortname = "pnet",
    category = "p2p",
    namespaced,
    status = "PeerNetworkStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A network of peers: libp2p agents in pods that measure the round trips between each other.",
    validation = Rule::new("self.metadata.name.size() <= 40").message(
        "metadata.name: use at most 40 characters, since the names of pods and other objects are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name: use lower-case letters, digits and '-', beginning with a letter and without '.', since it becomes a DNS name"),
    validation = Rule::new("!has(self.spec.services) || self.spec.services.size() == 0 || self.spec.discovery.kademlia").message(
        "spec.services: needs spec.discovery.kademlia, since services are advertised through the DHT"),
    validation = Rule::new("!self.spec.privateNetwork.enabled || !self.spec.transports.exists(one, one == 'QUIC')").message(
        "spec.transports: QUIC can't be part of a private network, since a pre-shared key encrypts byte streams: use TCP and WebSocket, or turn spec.privateNetwork.enabled off"),
    validation = Rule::new("!has(self.spec.hostPortBase) || self.spec.hostNetwork").message(
        "spec.hostPortBase: needs spec.hostNetwork, since pods without it have the same ports in every network"),
    validation = Rule::new("!has(self.spec.hostPortBase) || self.spec.workload == 'DaemonSet' || self.spec.hostPortBase + 8 * self.spec.replicas <= 65536")
        .message("spec.hostPortBase: leave room for 8 ports for each of spec.replicas, up to 65535"),
    validation = Rule::new("!self.spec.hostNetwork || self.spec.workload == 'DaemonSet' || self.spec.replicas <= 8 || self.spec.discovery.kademlia || self.spec.discovery.mdns")
        .message("spec.discovery: with hostNetwork and more than 8 replicas, DNS names only the first 8 agents: turn kademlia on"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether every node is ready, reports, and is connected to its peers"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.columns.nodes",
        description = "Nodes that are ready, of those wanted"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".status.columns.peers",
        description = "Fewest peers that a node is connected to, of those expected"),
    printcolumn(name = "RTT P50", type_ = "string", json_path = ".status.columns.rttP50",
        description = "Median of the cold round-trip time of libp2p ping over all pairs of nodes, both hosts' time included"),
    printcolumn(name = "RTT P99", type_ = "string", json_path = ".status.columns.rttP99",
        description = "99th percentile of the same round trips"),
    printcolumn(name = "Net P99", type_ = "string", json_path = ".status.columns.netP99",
        description = "99th percentile of the network's own round-trip time, without the hosts"),
    printcolumn(name = "Loss", type_ = "string", json_path = ".status.columns.loss",
        description = "Share of probes that got no answer in time"),
    printcolumn(name = "Sampled", type_ = "date", json_path = ".status.lastSampleTime",
        description = "How long ago the newest sample behind these numbers was taken"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Status", type_ = "string", priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "What the Ready condition says"),
    printcolumn(name = "Net P50", type_ = "string", priority = 1, json_path = ".status.columns.netP50",
        description = "Median of the network's own round-trip time, without the hosts"),
    printcolumn(name = "Host P99", type_ = "string", priority = 1, json_path = ".status.columns.hostP99",
        description = "99th percentile of the time that probes spent in both hosts"),
    printcolumn(name = "Breakdown", type_ = "string", priority = 1, json_path = ".status.columns.breakdown",
        description = "What was the network and what the hosts, both as 99th percentiles"),
    printcolumn(name = "Worst link", type_ = "string", priority = 1, json_path = ".status.columns.worstLink",
        description = "The pair of nodes with the highest 99th percentile of the cold round-trip time"),
    printcolumn(name = "Image", type_ = "string", priority = 1, json_path = ".status.columns.image",
        description = "Image that the nodes are to run")
)]
#[serde(rename_all = "camelCase")]
pub struct PeerNetworkSpec {
    /// How the agents run. `StatefulSet`: as many as `replicas` says, spread over nodes and zones, for a network of
    /// peers. `DaemonSet`: one on each node of the cluster that the pod template's node selector and tolerations allow,
    /// to measure the cluster itself. An agent's peer id follows from its pod's name in a StatefulSet and from its
    /// node's name in a DaemonSet, so changing the workload gives the agents new peer ids.
    #[serde(default)]
    pub workload: Workload,

    /// Number of agents in a StatefulSet. `kubectl scale` and a HorizontalPodAutoscaler set this field. A DaemonSet
    /// takes its number from the cluster's nodes and ignores it.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 500))]
    pub replicas: i32,

    /// What agents speak libp2p over, each listed once. Agents connect over every one of them, and each has round trips of its
    /// own in `status.transports`: for the same pairs of nodes within the same window. The first one's are those of all
    /// other numbers and of the columns. `TCP` takes TCP port 4001 of the pods, `QUIC` UDP port 4001, `WebSocket` TCP
    /// port 4002. Each adds connections and probes of its own.
    #[serde(default = "default_transports")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other == one))").message(
        "spec.transports: list each transport once"))]
    pub transports: Vec<Transport>,

    /// How agents find each other.
    #[serde(default)]
    pub discovery: Discovery,

    /// What agents measure, and how often.
    #[serde(default)]
    pub probe: Probe,

    /// Let only those connect who have a key beside the network's Secret.
    #[serde(default)]
    pub private_network: PrivateNetwork,

    /// Who may connect to the agents without being one of them.
    #[serde(default)]
    pub guests: Guests,

    /// Whether and how agents that can't connect to each other directly are connected through others.
    #[serde(default)]
    pub relay: Relay,

    /// Names of services that every agent advertises through the DHT, at most 16. Any agent finds their providers, with
    /// addresses: see `api`. How many are found stands in `status.services`. Agents advertise more by their API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), schema_with = "schema::services")]
    pub services: Vec<String>,

    /// The agents' HTTP API, on TCP port 8081 of their pods: put and get records, advertise and find services, find peers.
    #[serde(default)]
    pub api: ApiAccess,

    /// Run the agents in their nodes' network namespace, to measure the nodes' own network without the cluster's pod
    /// network. Such pods may not run where Pod Security `restricted` or `baseline` is enforced. They take ports of their
    /// nodes, from a block that the network has for itself: see `hostPortBase`.
    #[serde(default)]
    pub host_network: bool,

    /// First port of the network's block, with `hostNetwork`. Each agent of a StatefulSet has the next 8 ports of it, by
    /// its ordinal, so that several fit on a node; in a DaemonSet all have the first 8. Without it, the operator chooses
    /// a block between 20000 and 29999 that no other network has, and keeps it: `status.hostPorts`. Choose one if other
    /// programs of the nodes take those ports, or if firewalls must know them beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65528))]
    pub host_port_base: Option<i32>,

    /// Image of the agents. Without it, the one that the operator was installed with, which always fits the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    pub image: Option<String>,

    /// When the kubelet pulls the agents' image. Without it, what the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets of this namespace with which the agents' image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<ImagePullSecret>,

    /// Labels, scheduling and resources of the agents' pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// Kind of workload that runs the agents.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Workload {
    /// A number of agents, spread over nodes and zones.
    #[default]
    StatefulSet,
    /// One agent on every node.
    DaemonSet,
}

/// How agents find each other. Each way is bounded, and none but one is needed.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.dns || self.mdns || (has(self.bootstrapPeers) && self.bootstrapPeers.size() > 0)").message(
        "spec.discovery: with dns and mdns off, agents can't find each other: turn one on or give bootstrapPeers"),
    validation = Rule::new("self.kademlia || !has(self.kademliaProtocol)").message(
        "spec.discovery.kademliaProtocol: needs spec.discovery.kademlia, since without it no Kademlia protocol is spoken"),
)]
pub struct Discovery {
    /// Look the agents up in the DNS of the network's headless Service. This works on every cluster network.
    #[serde(default = "yes")]
    pub dns: bool,

    /// Ask for agents on the local link by multicast DNS. Most cluster networks don't carry multicast from pod to pod, so
    /// this rarely finds any that `dns` does not; it needs no name service.
    #[serde(default = "yes")]
    pub mdns: bool,

    /// Learn about further agents from the ones already met, through the network's own Kademlia DHT. The DHT also keeps
    /// records and services: without it there are none.
    #[serde(default = "yes")]
    pub kademlia: bool,

    /// Name of the Kademlia protocol that the agents speak. Without it, one of the network's own,
    /// `/peernet/NAMESPACE/NAME/kad/1.0.0`, which no other network's agents answer. With another name the agents take part
    /// in the DHT that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 128), regex(pattern = r"^(/[A-Za-z0-9._~-]+)+$"))]
    pub kademlia_protocol: Option<String>,

    /// Addresses of libp2p hosts to connect to, as multiaddrs that end in the host's peer id:
    /// `/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...`. They are connected to for ever. Those that are no agents of this network
    /// are measured apart: `status.external`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), schema_with = "schema::bootstrap_peers")]
    pub bootstrap_peers: Vec<String>,
}

/// Who may use the agents' API.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiAccess {
    /// Serve it to everybody who can reach the pods. It asks nobody who they are: whoever reaches it can read and write the
    /// network's records. Without this it listens on loopback alone, for `kubectl exec` and `kubectl port-forward`, and for
    /// whatever else runs in the pod, or on the node with `hostNetwork`.
    #[serde(default)]
    pub open: bool,
}

/// What agents measure, and how often.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.interval) >= duration('100ms') && duration(self.interval) <= duration('1h')")
        .message("spec.probe.interval: use a duration from 100ms to 1h"),
    validation = Rule::new("duration(self.timeout) >= duration('10ms') && duration(self.timeout) <= duration('60s')")
        .message("spec.probe.timeout: use a duration from 10ms to 60s"),
    validation = Rule::new("duration(self.window) >= duration('10s') && duration(self.window) <= duration('24h')")
        .message("spec.probe.window: use a duration from 10s to 24h"),
    validation = Rule::new("duration(self.window).getMilliseconds() >= 10 * duration(self.interval).getMilliseconds()")
        .message("spec.probe.window: use at least ten times spec.probe.interval, so that percentiles stand on samples"),
)]
pub struct Probe {
    /// Time from one probe of a peer to the next, as `1s` or `500ms`. The pace is kept (with a little jitter) whether or
    /// not answers come. A probe is a burst of libp2p pings and, if `stamp` is enabled, one STAMP packet.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub interval: String,

    /// Time after which a probe without an answer counts as lost. A lost probe is never part of a round-trip time.
    #[serde(default = "default_timeout")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub timeout: String,

    /// Span of time that the reported numbers cover: they are those of the last `window`.
    #[serde(default = "default_window")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub window: String,

    /// Most peers that an agent connects to on its own. In a larger network each agent takes a stable choice, so that the
    /// cost per agent stays the same however many there are.
    #[serde(default = "default_peers_per_node")]
    #[schemars(range(min = 1, max = 256))]
    pub peers_per_node: i32,

    /// Pings of one burst. The first one leaves at the pace of `interval`, each next one as soon as the answer before it
    /// came. The first answer is the cold round trip, what a rare request feels; the smallest of the burst is the warm one,
    /// the path's floor. With 1, the two are the same.
    #[serde(default = "default_burst")]
    #[schemars(range(min = 1, max = 16))]
    pub burst: i32,

    /// The probe that tells the network's own time from the hosts'.
    #[serde(default)]
    pub stamp: Stamp,
}

/// The probe that tells the network's own time from the hosts': STAMP (RFC 8762) over UDP, with the kernel's timestamps.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.enabled || !self.openReflector").message(
    "spec.probe.stamp.openReflector: needs spec.probe.stamp.enabled, since without STAMP there is no reflector"))]
pub struct Stamp {
    /// Send one STAMP packet to each peer in each `interval`, over UDP, to port 8620 of its pod. Turn it off where the
    /// cluster network carries no UDP. Without it, the network's own time, the hosts' time and the direction of losses
    /// are not known.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// Also answer unauthenticated STAMP packets of anybody who can reach UDP port 8620 of the pods, so that other STAMP
    /// senders (routers, probes of other makes) can measure towards the agents. Answers are never longer than what asks
    /// for them, and limited in rate. Without it, strangers get no answer.
    #[serde(default)]
    pub open_reflector: bool,
}

/// A private network, as libp2p has it: every connection is encrypted with a pre-shared key before either side says
/// anything. Who does not have the key learns nothing but that a port is open, is counted as a stranger, and shows in
/// `status.strangers` with its address.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.enabled || !has(self.secretRef)").message(
    "spec.privateNetwork.secretRef: needs spec.privateNetwork.enabled, since without it no key is used"))]
pub struct PrivateNetwork {
    /// Whether the key is needed. Turning it on or off restarts the agents one after the other; those with and those
    /// without it don't connect to each other meanwhile.
    #[serde(default)]
    pub enabled: bool,

    /// The user's own key. Without it, the key follows from the network's Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<PrivateNetworkSecret>,
}

/// A Secret with the key of a private network, in the same namespace. A change of its content reaches the agents within
/// some two minutes and restarts none of them: no connection is cut, and the key before is accepted for 10 minutes more.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateNetworkSecret {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The Secret's key under which the file lies: 32 bytes, or a swarm key as other libp2p implementations have it
    /// (`/key/swarm/psk/1.0.0/`). Up to four swarm keys may follow each other: agents connect by the first one, and
    /// accept the others.
    #[serde(default = "default_swarm_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Whether and how agents that can't connect to each other directly are connected through others (libp2p circuit relay v2).
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// Connect agents through others where no direct connection can be had for some seconds. Both ends go on dialing each other,
    /// and a direct connection replaces the circuit as soon as one stands. Only members of the network may use its relays. Of two
    /// networks that share their secret, either may use the other's relays.
    #[serde(default)]
    pub enabled: bool,

    /// Number of agents that relay for others: those with the lowest ordinals in a StatefulSet. In a DaemonSet, every agent
    /// does, unless this is 0. With 0, the network uses the relays of others: those among `discovery.bootstrapPeers`.
    #[serde(default = "default_relay_servers")]
    #[schemars(range(min = 0, max = 16))]
    pub servers: i32,

    /// What each relay allows.
    #[serde(default)]
    pub limits: RelayLimits,
}

/// What each relay allows. More is refused, and agents try another relay.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "duration(self.circuitDuration) >= duration('2m') && duration(self.circuitDuration) <= duration('168h')")
    .message("spec.relay.limits.circuitDuration: use a duration from 2m to 168h"))]
pub struct RelayLimits {
    /// Members that may be reached through it at a time. Each agent is reached through up to two relays.
    #[serde(default = "default_reservations")]
    #[schemars(range(min = 1, max = 1024))]
    pub reservations: i32,

    /// Circuits through it at a time: one for each pair that it connects.
    #[serde(default = "default_circuits")]
    #[schemars(range(min = 1, max = 4096))]
    pub circuits: i32,

    /// Circuits that one member may have through it at a time: a member with more is refused another.
    #[serde(default = "default_circuits_per_peer")]
    #[schemars(range(min = 1, max = 128))]
    pub circuits_per_peer: i32,

    /// Time after which a circuit ends. Agents make a new one a minute before, so that no probe is lost.
    #[serde(default = "default_circuit_duration")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub circuit_duration: String,

    /// Mebibytes after which a circuit ends, both directions together. At the default pace of probes, a circuit carries some
    /// 6 MiB an hour.
    #[serde(default = "default_circuit_mebibytes")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub circuit_mebibytes: i32,
}

/// When the kubelet pulls the image. Without it, what the operator was installed with.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of a pod.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: it must be on the node.
    Never,
}

/// A Secret with credentials for an image registry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub struct ImagePullSecret {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The part of the agents' pods that users shape.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.labels) || self.labels.all(key, !key.startsWith('peernet.dev/') && !key.startsWith('app.kubernetes.io/'))")
        .message("spec.podTemplate.labels: labels under peernet.dev/ and app.kubernetes.io/ are set by the operator, use other keys"),
)]
pub struct PodTemplate {
    /// Labels to add to the pods, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,

    /// Annotations to add to the pods, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run an agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pods tolerate, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Affinity and anti-affinity of the pods, as in a Pod's `spec.affinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// How the pods spread over nodes and zones, at most 8 rules. Without any, they spread over nodes and zones as evenly
    /// as the scheduler can, which is what a measurement of the network wants. A DaemonSet has no use for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// CPU and memory of an agent. Without it: requests of 10m CPU and 24Mi, a limit of 64Mi memory, and no CPU limit,
    /// since a throttled agent measures its own throttling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Name of the PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A taint that the pods tolerate.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Empty with operator `Exists`: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// `Equal` (the default): the value must be the same. `Exists`: any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint. Without it: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,
    /// How long the pods stay when a `NoExecute` taint comes. Without it: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TolerationOperator {
    /// The taint's value must be the same.
    Equal,
    /// Any value.
    Exists,
}

/// Effect of a taint.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TolerationEffect {
    /// New pods don't come.
    NoSchedule,
    /// New pods rather don't come.
    PreferNoSchedule,
    /// Running pods leave, too.
    NoExecute,
}

/// How the pods spread over one kind of place.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpreadConstraint {
    /// Label of nodes that names the place, like `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Largest difference in the number of pods between two places.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 500))]
    pub max_skew: i32,
    /// What to do with a pod that would exceed it.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// What to do with a pod that no place suits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// Schedule it all the same, where it does the least harm.
    #[default]
    ScheduleAnyway,
    /// Leave it pending.
    DoNotSchedule,
}

/// Requests and limits of CPU and memory.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub struct Resources {
    /// What is set aside for an agent, like `cpu: 10m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, String>,
    /// What an agent may use at most, like `memory: 64Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, String>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            dns: true,
            mdns: true,
            kademlia: true,
            kademlia_protocol: None,
            bootstrap_peers: Vec::new(),
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: default_interval(),
            timeout: default_timeout(),
            window: default_window(),
            peers_per_node: default_peers_per_node(),
            burst: default_burst(),
            stamp: Stamp::default(),
        }
    }
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            enabled: true,
            open_reflector: false,
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            enabled: false,
            servers: default_relay_servers(),
            limits: RelayLimits::default(),
        }
    }
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: default_reservations(),
            circuits: default_circuits(),
            circuits_per_peer: default_circuits_per_peer(),
            circuit_duration: default_circuit_duration(),
            circuit_mebibytes: default_circuit_mebibytes(),
        }
    }
}

fn default_relay_servers() -> i32 {
    2
}

fn default_reservations() -> i32 {
    128
}

fn default_circuits() -> i32 {
    256
}

fn default_circuits_per_peer() -> i32 {
    64
}

fn default_circuit_duration() -> String {
    "1h".to_owned()
}

fn default_circuit_mebibytes() -> i32 {
    64
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}

fn default_replicas() -> i32 {
    3
}

fn default_transports() -> Vec<Transport> {
    vec![Transport::Tcp]
}

fn default_interval() -> String {
    "1s".to_owned()
}

fn default_timeout() -> String {
    "2s".to_owned()
}

fn default_window() -> String {
    "5m".to_owned()
}

fn default_peers_per_node() -> i32 {
    64
}

fn default_swarm_key() -> String {
    "swarm.key".to_owned()
}

fn default_burst() -> i32 {
    5
}
