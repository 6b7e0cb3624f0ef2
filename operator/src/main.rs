//! The operator's program: settings, log, signals, exit code.

use std::{process::ExitCode, sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Duration};

use clap::Parser;
use futures::{FutureExt, future::join_all};
use kube::Client;
use peernet_operator::{
    clock::Monotonic,
    config::{Config, LogFormat},
    controller::{self, Shared},
    http::{self, Readiness},
    metrics::Metrics,
    network::NodeDefaults,
    reconcile::error_chain,
};
use tokio::signal::unix::{SignalKind, signal};

/// A watch that brings nothing for longer than this hangs: the API server ends each one after 25 s.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    start_log(config.log_format);
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error_chain(error.as_ref()), "the operator can't go on");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = kube::Config::infer().await?;
    settings.read_timeout = Some(READ_TIMEOUT);
    // The next round tries again, with what is true then. A queued retry would write what was true minutes ago.
    settings.default_retry = false;
    let client = Client::try_from(settings)?;
    let clock = Monotonic::start();
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    }
    .boxed()
    .shared();

    let shared = Shared {
        client,
        defaults: NodeDefaults {
            image: config.node_image.clone(),
            image_pull_policy: config.node_image_pull_policy.into(),
        },
        metrics: metrics.clone(),
        clock,
    };
    let scopes = config.scopes();
    let waiting = Arc::new(AtomicUsize::new(scopes.len()));
    let controllers = scopes.into_iter().map(|namespace| {
        let (waiting, readiness) = (waiting.clone(), readiness.clone());
        let watching = move || {
            if waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
                readiness.set_watching();
            }
        };
        controller::run(shared.clone(), namespace, watching, shutdown.clone())
    });
    tracing::info!(
        version = peernet_api::VERSION,
        node_image = config.node_image,
        "operator started"
    );
    let serve = http::serve(
        config.http_port,
        metrics,
        clock,
        readiness.clone(),
        shutdown.clone(),
    );
    tokio::select! {
        served = serve => served?,
        _ = join_all(controllers) => {}
    }
    tracing::info!("operator stopped");
    Ok(())
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
