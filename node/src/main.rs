//! The agent's program: flags and environment in, exit code out.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use peernet_api::ports;
use peernet_node::{
    agent::{Agent, Error},
    check::check,
    cli,
    config::{Args, Config, Invalid, LogFormat},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// libp2p's mDNS logs every record of every packet that anybody sends.
const DEFAULT_LOG: &str = "info,libp2p_kad=warn,libp2p_mdns=warn,libp2p_swarm=warn";
/// A setting can't be used: starting again will not help.
const EXIT_CONFIG: u8 = 2;

/// A member of a PeerNet network: measures round trips to the other members, and keeps the network's records. With a
/// command, it asks the agent that runs beside it.
#[derive(Debug, Parser)]
#[command(version = peernet_api::VERSION)]
struct Program {
    #[command(subcommand)]
    command: Option<cli::Command>,
    #[command(flatten)]
    agent: Args,
}

fn main() -> ExitCode {
    let Program { command, agent: args } = Program::parse();
    if let Some(command) = command {
        return cli::run(command);
    }
    if let Some(path) = &args.check {
        return health(&args, path);
    }
    let config = match settings(&args) {
        Ok(config) => config,
        Err(error) => {
            // Nothing else can be done if even this can't be written.
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(run(config)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the agent ends");
            leave_word(&args.termination_log, &error);
            if error.is_port_taken() {
                ExitCode::from(ports::EXIT_PORT_TAKEN)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The kubelet's probe, where the agent's port is not that of the pod's template.
fn health(args: &Args, path: &str) -> ExitCode {
    let answer = args
        .own_http_port()
        .map_err(io::Error::other)
        .and_then(|port| check(port, path));
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// For those who look at the pod: Kubernetes shows what is in this file.
fn leave_word(file: &str, error: &Error) {
    if !file.is_empty()
        && let Err(unwritten) = fs::write(file, error.to_string())
    {
        tracing::debug!(error = %unwritten, "no word could be left");
    }
}

fn settings(args: &Args) -> Result<Config, Invalid> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format()? {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    args.config()
}

async fn run(config: Config) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut agent = Agent::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = agent.failed() => return Err(error),
    }
    agent.stop().await
}
