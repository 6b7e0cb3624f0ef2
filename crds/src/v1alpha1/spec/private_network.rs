//! Who needs a key.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

fn default_swarm_key() -> String {
    "swarm.key".to_owned()
}
