//! How agents find each other.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{super::schema, yes};

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
