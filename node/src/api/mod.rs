//! The agent's HTTP API: records, services and peers of the network, as JSON.
//!
//! Paths and answers are described by `openapi.json`, which is served, too, and which tests compare with the routes. The
//! program's own commands ([`crate::cli`]) talk to it. It listens on loopback unless the resource opens it: who can
//! reach it can read and write the network's records.

mod answers;
mod errors;
mod parameters;
mod routes;
pub mod text;

pub use self::{
    answers::{
        AnnounceAnswer, ErrorAnswer, ErrorDetail, FindPeerAnswer, GetAnswer, PeerAnswer, PeersAnswer,
        PingAnswer, PingResult, ProvidersAnswer, PutAnswer, ServiceName, ServicesAnswer,
    },
    routes::{ROUTES, router},
};

/// The document that describes the API.
pub const OPENAPI: &str = include_str!("openapi.json");
/// Longest body of a request: the largest value, as base64.
const MAX_BODY_BYTES: usize = (64 << 10) * 4 / 3 + 16;
