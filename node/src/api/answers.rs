//! What the API answers. Fields may be added.

use std::time::Duration;

use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};

use super::text;
use crate::dht::command::{Announced, Found, Got, Peer, Pinged, Providers, Put};

/// A record was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PutAnswer {
    /// The key, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key as base64.
    pub key_base64: String,
    /// Length of the value.
    pub bytes: usize,
    /// Agents beside the one asked that had stored it when the answer was due.
    pub stored: usize,
    /// How many had to.
    pub needed: usize,
    /// Agents that are to store it.
    pub of: usize,
    /// How long it lives.
    pub expires_in_seconds: u64,
    /// Agents that were asked where it belongs.
    pub asked: u32,
    /// How long it took.
    pub took_micros: u64,
}

/// A record was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetAnswer {
    /// The key, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key as base64.
    pub key_base64: String,
    /// The value, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value as base64.
    pub value_base64: String,
    /// Copies found.
    pub copies: usize,
    /// How many of them have another value, which was put earlier.
    pub older: usize,
    /// The agent it was put on, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// How long it lives on, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// Agents that were asked.
    pub asked: u32,
    /// How long it took.
    pub took_micros: u64,
}

/// An agent advertises a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnounceAnswer {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceName,
    /// Requests that were sent to say so.
    pub requests: u32,
    /// How long it took.
    pub took_micros: u64,
}

/// The name of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceName {
    /// As text, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As base64.
    pub name_base64: String,
}

/// The services that an agent advertises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicesAnswer {
    /// Their names.
    pub services: Vec<ServiceName>,
}

/// The providers of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvidersAnswer {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceName,
    /// Who they are.
    pub providers: Vec<PeerAnswer>,
    /// Whether there may be more.
    pub may_be_more: bool,
    /// Agents that were asked, each as often as it was.
    pub asked: u32,
    /// How long it took.
    pub took_micros: u64,
}

/// A peer, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerAnswer {
    /// Its id.
    pub peer_id: String,
    /// Its name, if the agent asked is connected to it and it is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its addresses, as multiaddrs.
    pub addresses: Vec<String>,
}

/// The members that an agent is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeersAnswer {
    /// Who they are.
    pub peers: Vec<PeerAnswer>,
}

/// A peer was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FindPeerAnswer {
    /// The peer.
    #[serde(flatten)]
    pub peer: PeerAnswer,
    /// Whether the agent asked is connected to it, so that nobody else had to be asked.
    pub connected: bool,
    /// Agents that were asked.
    pub asked: u32,
    /// How long it took.
    pub took_micros: u64,
}

/// What became of the probes of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PingAnswer {
    /// The peer's id.
    pub peer_id: String,
    /// Its name, if it is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One entry a probe.
    pub pings: Vec<PingResult>,
}

/// What became of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PingResult {
    /// The cold round trip. A probe without an answer has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_micros: Option<u64>,
    /// The smallest round trip of its burst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_micros: Option<u64>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// It could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorAnswer {
    /// Why.
    pub error: ErrorDetail,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetail {
    /// For programs: one word out of a fixed set.
    pub code: String,
    /// For people.
    pub message: String,
    /// Which parameter it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl ServiceName {
    pub(super) fn new(name: &[u8]) -> Self {
        Self {
            name: text::shown(name),
            name_base64: text::encode(name),
        }
    }
}

impl PutAnswer {
    pub(super) fn new(key: &[u8], bytes: usize, put: &Put) -> Self {
        Self {
            key: text::shown(key),
            key_base64: text::encode(key),
            bytes,
            stored: put.stored,
            needed: put.needed,
            of: put.of,
            expires_in_seconds: put.expires_in.as_secs(),
            asked: put.asked,
            took_micros: micros(put.took),
        }
    }
}

impl GetAnswer {
    pub(super) fn new(key: &[u8], got: &Got) -> Self {
        Self {
            key: text::shown(key),
            key_base64: text::encode(key),
            value: text::shown(&got.value),
            value_base64: text::encode(&got.value),
            copies: got.copies,
            older: got.older,
            publisher: got.publisher.map(|peer| peer.to_string()),
            expires_in_seconds: got.expires_in.map(|left| left.as_secs()),
            asked: got.asked,
            took_micros: micros(got.took),
        }
    }
}

impl AnnounceAnswer {
    pub(super) fn new(name: &[u8], announced: Announced) -> Self {
        Self {
            service: ServiceName::new(name),
            requests: announced.requests,
            took_micros: micros(announced.took),
        }
    }
}

impl ProvidersAnswer {
    pub(super) fn new(name: &[u8], found: Providers) -> Self {
        Self {
            service: ServiceName::new(name),
            providers: found.providers.into_iter().map(PeerAnswer::from).collect(),
            may_be_more: found.may_be_more,
            asked: found.asked,
            took_micros: micros(found.took),
        }
    }
}

impl From<Peer> for PeerAnswer {
    fn from(peer: Peer) -> Self {
        let mut addresses: Vec<String> = Vec::new();
        for mut address in peer.addresses {
            // Kademlia's addresses end in the peer's own id, others do not.
            if address.iter().last() == Some(Protocol::P2p(peer.id)) {
                address.pop();
            }
            let address = address.to_string();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self {
            peer_id: peer.id.to_string(),
            name: peer.name,
            addresses,
        }
    }
}

impl From<Found> for FindPeerAnswer {
    fn from(found: Found) -> Self {
        Self {
            peer: found.peer.into(),
            connected: found.connected,
            asked: found.asked,
            took_micros: micros(found.took),
        }
    }
}

impl From<Pinged> for PingResult {
    fn from(pinged: Pinged) -> Self {
        match pinged.cold {
            Ok(cold) => Self {
                rtt_micros: Some(micros(cold)),
                warm_micros: pinged.warm.map(micros),
                error: None,
            },
            Err(error) => Self {
                error: Some(error),
                ..Self::default()
            },
        }
    }
}
