//! Who connects whom.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
