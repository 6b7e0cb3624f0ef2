//! The paths of the API.

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use libp2p::PeerId;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    MAX_BODY_BYTES, OPENAPI,
    answers::{
        AnnounceAnswer, FindPeerAnswer, GetAnswer, PeerAnswer, PeersAnswer, PingAnswer, PingResult,
        ProvidersAnswer, PutAnswer, ServiceName, ServicesAnswer,
    },
    errors::Error,
    parameters::{Parameters, peer_id},
};
use crate::dht::{Command, Handle, Limits, Quorum};

/// A body that comes slower than this is given up.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// No more probes of one request begin after this: a connection ends within a minute.
const PINGS_DEADLINE: Duration = Duration::from_secs(30);

/// Every method and path, as the document names them.
pub const ROUTES: [(&str, &str); 11] = [
    ("get", "/openapi.json"),
    ("get", "/v1/records/{key}"),
    ("put", "/v1/records/{key}"),
    ("get", "/v1/services"),
    ("get", "/v1/services/{name}"),
    ("put", "/v1/services/{name}"),
    ("delete", "/v1/services/{name}"),
    ("get", "/v1/peers"),
    ("get", "/v1/peers/{peerId}"),
    ("get", "/v1/ping/{peerId}"),
    ("get", "/livez"),
];

type Given = Result<Query<Vec<(String, String)>>, QueryRejection>;
type Part = Result<Path<String>, PathRejection>;

/// The API of the agent whose event loop `dht` leads to.
pub fn router(dht: Handle) -> Router {
    Router::new()
        .route(
            "/openapi.json",
            get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)),
        )
        .route("/livez", get(async || "ok\n"))
        .route("/v1/records/{key}", get(get_record).put(put_record))
        .route("/v1/services", get(services))
        .route(
            "/v1/services/{name}",
            get(providers).put(provide).delete(stop_providing),
        )
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{peerId}", get(find_peer))
        .route("/v1/ping/{peerId}", get(ping))
        .fallback(async || Error::no_such_path())
        .method_not_allowed_fallback(async || Error::no_such_method())
        .with_state(dht)
}

pub(super) fn json(status: StatusCode, answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(mut body) => {
            body.push(b'\n');
            (status, [(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "failed to write an answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn ok(answer: &impl Serialize) -> Response {
    json(StatusCode::OK, answer)
}

fn parameters(given: Given, known: &[&str]) -> Result<Parameters, Error> {
    match given {
        Ok(Query(given)) => Parameters::new(given, known),
        Err(error) => Err(Error::parameter("query", error.body_text())),
    }
}

fn part(name: &'static str, part: Part) -> Result<String, Error> {
    match part {
        Ok(Path(part)) => Ok(part),
        Err(_) => Err(Error::parameter(
            name,
            "it is no UTF-8: write it as base64 and say so by the parameter keyEncoding or nameEncoding",
        )),
    }
}

async fn put_record(
    State(dht): State<Handle>,
    key: Part,
    given: Given,
    body: Body,
) -> Result<Response, Error> {
    let given = parameters(given, &["quorum", "keyEncoding", "valueEncoding"])?;
    let key = given.key("key", &part("key", key)?)?;
    let quorum = given.quorum(Quorum::Majority)?;
    let body = timeout(BODY_DEADLINE, to_bytes(body, MAX_BODY_BYTES))
        .await
        .map_err(|_| Error::body("the value did not come in time"))?
        // What else can go wrong while a body is read ends the connection, and nobody hears of it.
        .map_err(|_| Error::too_large(Limits::DEFAULT.value_bytes))?;
    let value = given.value(body.into())?;
    let bytes = value.len();
    let put = |reply| Command::Put {
        key: key.clone(),
        value,
        quorum,
        reply,
    };
    let put = dht.ask(put).await?;
    Ok(ok(&PutAnswer::new(key.as_ref(), bytes, &put)))
}

async fn get_record(
    State(dht): State<Handle>,
    key: Part,
    given: Given,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let given = parameters(given, &["quorum", "keyEncoding"])?;
    let key = given.key("key", &part("key", key)?)?;
    let quorum = given.quorum(Quorum::One)?;
    let get = |reply| Command::Get {
        key: key.clone(),
        quorum,
        reply,
    };
    let got = dht.ask(get).await?;
    let raw = "application/octet-stream";
    let wants_raw = headers
        .get(ACCEPT)
        .and_then(|accepted| accepted.to_str().ok())
        .is_some_and(|accepted| accepted.starts_with(raw));
    if wants_raw {
        return Ok(([(CONTENT_TYPE, raw)], got.value).into_response());
    }
    Ok(ok(&GetAnswer::new(key.as_ref(), &got)))
}

async fn services(State(dht): State<Handle>, given: Given) -> Result<Response, Error> {
    parameters(given, &[])?;
    let keys = dht.ask(|reply| Command::Provided { reply }).await?;
    let services = keys.iter().map(|key| ServiceName::new(key.as_ref())).collect();
    Ok(ok(&ServicesAnswer { services }))
}

async fn providers(State(dht): State<Handle>, name: Part, given: Given) -> Result<Response, Error> {
    let key = parameters(given, &["nameEncoding"])?.key("name", &part("name", name)?)?;
    let found = dht
        .ask(|reply| Command::Providers {
            key: key.clone(),
            reply,
        })
        .await?;
    Ok(ok(&ProvidersAnswer::new(key.as_ref(), found)))
}

async fn provide(State(dht): State<Handle>, name: Part, given: Given) -> Result<Response, Error> {
    let key = parameters(given, &["nameEncoding"])?.key("name", &part("name", name)?)?;
    let announced = dht
        .ask(|reply| Command::Provide {
            key: key.clone(),
            reply,
        })
        .await?;
    Ok(ok(&AnnounceAnswer::new(key.as_ref(), announced)))
}

async fn stop_providing(State(dht): State<Handle>, name: Part, given: Given) -> Result<Response, Error> {
    let key = parameters(given, &["nameEncoding"])?.key("name", &part("name", name)?)?;
    dht.ask(|reply| Command::StopProviding {
        key: key.clone(),
        reply,
    })
    .await?;
    Ok(ok(&ServiceName::new(key.as_ref())))
}

async fn peers(State(dht): State<Handle>, given: Given) -> Result<Response, Error> {
    parameters(given, &[])?;
    let peers = dht.ask(|reply| Command::Peers { reply }).await?;
    let mut peers: Vec<PeerAnswer> = peers.into_iter().map(PeerAnswer::from).collect();
    peers.sort_by(|a, b| (&a.name, &a.peer_id).cmp(&(&b.name, &b.peer_id)));
    Ok(ok(&PeersAnswer { peers }))
}

async fn find_peer(State(dht): State<Handle>, peer: Part, given: Given) -> Result<Response, Error> {
    parameters(given, &[])?;
    let peer = peer_id(&part("peerId", peer)?)?;
    let found = dht.ask(|reply| Command::FindPeer { peer, reply }).await?;
    Ok(ok(&FindPeerAnswer::from(found)))
}

async fn ping(State(dht): State<Handle>, peer: Part, given: Given) -> Result<Response, Error> {
    let count = parameters(given, &["count"])?.count()?;
    let peer = peer_id(&part("peerId", peer)?)?;
    let begun = Instant::now();
    let mut answer = PingAnswer {
        peer_id: peer.to_string(),
        name: None,
        pings: Vec::new(),
    };
    while answer.pings.len() < count && (answer.pings.is_empty() || begun.elapsed() < PINGS_DEADLINE) {
        let pinged = ping_once(&dht, peer).await?;
        answer.name = pinged.name.clone().or(answer.name);
        answer.pings.push(PingResult::from(pinged));
    }
    Ok(ok(&answer))
}

/// Finds the peer first, if this agent is not connected to it.
async fn ping_once(dht: &Handle, peer: PeerId) -> Result<crate::dht::command::Pinged, Error> {
    let found = dht.ask(|reply| Command::FindPeer { peer, reply }).await?;
    let addresses = if found.connected {
        Vec::new()
    } else {
        found.peer.addresses
    };
    let ping = |reply| Command::Ping {
        peer,
        addresses,
        reply,
    };
    Ok(dht.ask(ping).await?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_describes_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .filter(|key| *key != "parameters")
                    .map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let routes: BTreeSet<(String, String)> = ROUTES
            .iter()
            .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(described, routes);
        assert_eq!(document["info"]["version"], "1");
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect(value: &serde_json::Value, references: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(object) => {
                for (key, value) in object {
                    match value.as_str() {
                        Some(reference) if key == "$ref" => references.push(reference.to_owned()),
                        _ => collect(value, references),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
            _ => {}
        }
    }
}
