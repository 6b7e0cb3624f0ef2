//! The agent's HTTP: report, metrics, health. Made to survive slow clients and too many of them.
//!
//! Connections have a bound; at the bound the oldest one goes, so that whoever holds connections open can't keep the
//! kubelet's probes or the operator out. Every connection ends within a minute. The API ([`crate::api`]) is served in the
//! same way, on a port and with bounds of its own.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use libp2p::identity::Keypair;
use peernet_api::{envelope, report};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{metrics, reporting::Reporting, swarm::stopped};

const MAX_CONNECTIONS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// A connection takes no new request after this. The operator and Prometheus connect again.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// What is under way when a connection's life ends has this long to finish.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pause when no connection can be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the handlers work with.
#[derive(Clone)]
pub struct Shared {
    /// Touched by the reporting thread alone: never contended.
    reporting: Arc<Mutex<Reporting>>,
    key: Keypair,
    started: Instant,
}

impl Shared {
    /// Shares the state among the tasks of the reporting thread. `started` is the agent's start.
    #[must_use]
    pub fn new(reporting: Reporting, key: Keypair, started: Instant) -> Self {
        Self {
            reporting: Arc::new(Mutex::new(reporting)),
            key,
            started,
        }
    }

    /// The state. Hold it for no longer than a computation takes.
    pub fn reporting(&self) -> MutexGuard<'_, Reporting> {
        self.reporting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the agent's start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Serves until told to stop; what is under way may finish.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let new_stop = stop.clone();
    let mut connections = JoinSet::new();
    let mut open: VecDeque<(SocketAddr, AbortHandle)> = VecDeque::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => open.retain(|(_, handle)| !handle.is_finished()),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if open.len() >= MAX_CONNECTIONS && let Some((oldest, handle)) = open.pop_front() {
                        tracing::debug!(client = %oldest, "too many HTTP connections: closing the oldest");
                        handle.abort();
                    }
                    let handle = connections.spawn(connection(stream, router.clone(), new_stop.clone()));
                    open.push_back((peer, handle));
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to accept an HTTP connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = timeout(FAREWELL, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::debug!(left = connections.len(), "HTTP connections cut at the end");
    }
}

async fn connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = sleep(CONNECTION_LIFE) => None,
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            match timeout(FAREWELL, served).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Report, metrics and health.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route(report::PATH, get(get_report))
        .route("/metrics", get(get_metrics))
        .route("/livez", get(get_livez))
        .route("/readyz", get(get_readyz))
        .with_state(shared)
}

#[derive(Deserialize)]
struct ReportQuery {
    nonce: Option<String>,
}

async fn get_report(
    State(shared): State<Shared>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Response {
    let nonce = query
        .ok()
        .and_then(|Query(query)| query.nonce)
        .filter(|nonce| is_nonce(nonce));
    let Some(nonce) = nonce else {
        let message = format!(
            "the query parameter nonce must be 1 to {} hexadecimal digits\n",
            report::MAX_NONCE
        );
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    let report = shared.reporting().report(&nonce, shared.now());
    match envelope::seal(&report, &shared.key) {
        Ok(sealed) => ([(CONTENT_TYPE, "application/octet-stream")], sealed).into_response(),
        Err(error) => failure(&error),
    }
}

fn is_nonce(nonce: &str) -> bool {
    (1..=report::MAX_NONCE).contains(&nonce.len()) && nonce.bytes().all(|digit| digit.is_ascii_hexdigit())
}

async fn get_metrics(State(shared): State<Shared>) -> Response {
    let snapshot = shared.reporting().snapshot();
    match metrics::encode(snapshot) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => failure(&error),
    }
}

async fn get_livez(State(shared): State<Shared>) -> Response {
    let alive = shared.reporting().is_alive(shared.now());
    health(alive, "the event loop gives no sign of life\n")
}

async fn get_readyz(State(shared): State<Shared>) -> Response {
    let ready = shared.reporting().is_ready(shared.now());
    health(
        ready,
        "the agent can't be reached by others, or its event loop gives no sign of life\n",
    )
}

fn health(good: bool, otherwise: &'static str) -> Response {
    if good {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, otherwise).into_response()
    }
}

fn failure(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "failed to answer over HTTP");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

/// Opens the port on all addresses: IPv6 and IPv4 together where the host has IPv6.
///
/// # Errors
/// If the port can't be had.
pub fn bind(address: Option<SocketAddr>, port: u16) -> io::Result<std::net::TcpListener> {
    let listener = match address {
        Some(address) => std::net::TcpListener::bind(address)?,
        None => std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)))?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}
