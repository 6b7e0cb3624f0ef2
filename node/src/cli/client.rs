//! A client of the API: one request a connection, each with a deadline.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use libp2p::PeerId;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};

use super::Failure;
use crate::api::{
    AnnounceAnswer, ErrorAnswer, FindPeerAnswer, GetAnswer, PeersAnswer, PingAnswer, ProvidersAnswer,
    PutAnswer, ServiceName, text,
};

/// The agent's own deadlines are shorter.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest answer that is read: many providers with all their addresses.
const MAX_ANSWER: usize = 4 << 20;

/// Asks an agent.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    pub(super) async fn put(
        &self,
        key: &[u8],
        value: Vec<u8>,
        quorum: Option<&str>,
    ) -> Result<PutAnswer, Failure> {
        self.ask(Method::PUT, &record(key, quorum), value).await
    }

    pub(super) async fn get(&self, key: &[u8], quorum: Option<&str>) -> Result<GetAnswer, Failure> {
        self.ask(Method::GET, &record(key, quorum), Vec::new()).await
    }

    pub(super) async fn provide(&self, name: &[u8]) -> Result<AnnounceAnswer, Failure> {
        self.ask(Method::PUT, &service(name), Vec::new()).await
    }

    pub(super) async fn stop_providing(&self, name: &[u8]) -> Result<ServiceName, Failure> {
        self.ask(Method::DELETE, &service(name), Vec::new()).await
    }

    pub(super) async fn providers(&self, name: &[u8]) -> Result<ProvidersAnswer, Failure> {
        self.ask(Method::GET, &service(name), Vec::new()).await
    }

    pub(super) async fn peers(&self) -> Result<PeersAnswer, Failure> {
        self.ask(Method::GET, "/v1/peers", Vec::new()).await
    }

    pub(super) async fn find_peer(&self, peer: &PeerId) -> Result<FindPeerAnswer, Failure> {
        self.ask(Method::GET, &format!("/v1/peers/{peer}"), Vec::new())
            .await
    }

    pub(super) async fn ping(&self, peer: &PeerId, count: u8) -> Result<PingAnswer, Failure> {
        self.ask(Method::GET, &format!("/v1/ping/{peer}?count={count}"), Vec::new())
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let failed = |problem: String| Failure::Unreachable {
            address: self.address,
            problem,
        };
        let (status, body) = match timeout(DEADLINE, self.exchange(method, path, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => return Err(failed(problem)),
            Err(_) => return Err(failed(format!("no answer within {DEADLINE:?}"))),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| failed(error.to_string()));
        }
        let Ok(ErrorAnswer { error }) = serde_json::from_slice(&body) else {
            return Err(failed(format!("{status}: it is no agent's API")));
        };
        let message = match &error.parameter {
            Some(parameter) => format!("{parameter}: {}", error.message),
            None => error.message.clone(),
        };
        Err(match error.code.as_str() {
            "NotFound" => Failure::NotFound(message),
            "InvalidParameter" | "UnknownParameter" => Failure::Usage(message),
            _ => Failure::Refused(message),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), String> {
        let say = |error: &dyn std::error::Error| error.to_string();
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| say(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| say(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| say(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| say(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => {
                ended.map_err(|error| say(&error))?;
                // What came before the end is still there.
                answer.await
            }
        }
    }
}

/// Keys and names go as base64, so that any bytes survive.
fn record(key: &[u8], quorum: Option<&str>) -> String {
    let quorum = quorum.map_or_else(String::new, |quorum| {
        // Words and numbers alone: what else is written would change the path.
        let plain: String = quorum.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("&quorum={plain}")
    });
    format!("/v1/records/{}?keyEncoding=base64{quorum}", text::encode(key))
}

fn service(name: &[u8]) -> String {
    format!("/v1/services/{}?nameEncoding=base64", text::encode(name))
}
