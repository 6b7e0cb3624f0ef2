//! Who else may connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Guests: libp2p hosts that hold no part of the network's secret, of whatever make.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guests {
    /// Let libp2p hosts that are no agents of this network connect to the agents, ask who they are (identify), ping them,
    /// and ask the network's Kademlia DHT, if it is on: they find peers, records and providers there, and store nothing.
    /// Guests are measured by nobody and are in no number but their own, the agents never dial them and tell nobody of
    /// them, and they can't take the agents' room. Without it, agents turn everybody away who is none of theirs.
    #[serde(default)]
    pub enabled: bool,

    /// Most guests that one agent receives at a time, with two connections each. Others are turned away until one of them has
    /// left.
    #[serde(default = "default_max")]
    #[schemars(range(min = 1, max = 256))]
    pub max: i32,
}

impl Default for Guests {
    fn default() -> Self {
        Self {
            enabled: false,
            max: default_max(),
        }
    }
}

fn default_max() -> i32 {
    16
}
