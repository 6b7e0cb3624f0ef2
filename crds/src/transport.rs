//! The transports that agents speak libp2p over.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How libp2p gets from one agent to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Transport {
    /// TCP, encrypted by Noise, with Yamux's streams.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// QUIC version 1 (RFC 9000) over UDP, with its own encryption and streams.
    #[serde(rename = "QUIC")]
    Quic,
    /// WebSocket over TCP, with Noise and Yamux inside it.
    WebSocket,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Quic, Self::WebSocket];

    /// The name that people write and read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
            Self::WebSocket => "WebSocket",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no transport.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no transport: write TCP, QUIC or WebSocket")]
pub struct UnknownTransport(String);

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|transport| transport.name() == text)
            .ok_or_else(|| UnknownTransport(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_name_in_text_and_json() {
        for transport in Transport::ALL {
            assert_eq!(transport.to_string().parse(), Ok(transport));
            let json = format!("\"{transport}\"");
            assert_eq!(serde_json::to_string(&transport).unwrap(), json);
            assert_eq!(serde_json::from_str::<Transport>(&json).unwrap(), transport);
        }
        assert!("quic".parse::<Transport>().is_err());
    }
}
