//! The operator's HTTP port: liveness, readiness, metrics.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{clock::Monotonic, metrics::Metrics};

/// What the operator waits for before it is ready.
#[derive(Debug, Default)]
pub struct Readiness {
    watching: AtomicBool,
}

impl Readiness {
    /// Every watch has brought its first list.
    pub fn set_watching(&self) {
        self.watching.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Served {
    metrics: Arc<Metrics>,
    clock: Monotonic,
    readiness: Arc<Readiness>,
}

/// Serves until `shutdown` ends.
///
/// # Errors
/// If the port can't be had, or serving fails.
pub async fn serve(
    port: u16,
    metrics: Arc<Metrics>,
    clock: Monotonic,
    readiness: Arc<Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Served {
            metrics,
            clock,
            readiness,
        });
    // On the IPv6 wildcard Linux takes IPv4, too; where IPv6 is switched off, IPv4 alone.
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?,
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

async fn readyz(State(served): State<Served>) -> Response {
    if served.readiness.watching.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        let text = "waiting for the first lists of the watches: are the CRD and the permissions installed?\n";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn show_metrics(State(served): State<Served>) -> Response {
    match served.metrics.encode(served.clock.now()) {
        Ok(text) => (
            [(
                CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
