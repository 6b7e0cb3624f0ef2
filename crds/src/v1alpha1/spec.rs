//! What the user asks for.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

mod discovery;
mod pod_template;
mod private_network;
mod probe;
mod relay;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    discovery::Discovery,
    pod_template::{
        PodTemplate, Resources, Toleration, TolerationEffect, TolerationOperator, TopologySpreadConstraint,
        WhenUnsatisfiable,
    },
    private_network::{PrivateNetwork, PrivateNetworkSecret},
    probe::{Probe, Stamp},
    relay::{Relay, RelayLimits},
};
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
    validation = Rule::new("!has(self.spec.discovery.bootstrapPeers) || self.spec.discovery.bootstrapPeers.all(peer, self.spec.transports.exists(one, one == (peer.contains('/quic-v1/') ? 'QUIC' : peer.contains('/ws/') ? 'WebSocket' : 'TCP')))").message(
        "spec.discovery.bootstrapPeers: use addresses of the network's own spec.transports, since agents speak no others"),
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

fn yes() -> bool {
    true
}

fn default_replicas() -> i32 {
    3
}

fn default_transports() -> Vec<Transport> {
    vec![Transport::Tcp]
}
