//! The agent as a whole: four threads. Those of the swarm, of its handshakes and of the reports have a runtime each; that of STAMP
//! waits for its sockets by itself.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    api,
    config::Config,
    dht,
    discovery::Address,
    host,
    http::{self, Shared},
    private::{Keys, reload},
    reporting::{Identity, Reporting},
    stamp,
    swarm::{self, Ends, EventLoop},
    telemetry::{self, Event},
};

/// From the start to the first address that the agent listens on.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// From the order to stop to the end of all threads: the agent hands its records over, and then closes its connections.
const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// Look-ups in the system's resolver that may hang at a time.
const BLOCKING_THREADS: usize = 4;
/// A look-up that hangs can't be interrupted: the process ends without it.
const RUNTIME_FAREWELL: Duration = Duration::from_millis(100);
/// How often the agent looks at what its host does to it.
const HOST_INTERVAL: Duration = Duration::from_secs(1);
/// How often it asks for what TCP sent again. On a host with many connections, asking takes milliseconds.
const TCP_INTERVAL: Duration = Duration::from_secs(5);
/// The thread that answers pings is to interrupt a handshake as soon as there is one to answer. It still leaves a tenth of the time
/// to handshakes if it never rests.
const HANDSHAKES_NICE: i32 = 10;
/// Threads that tell their end.
const THREADS: usize = 4;
/// Silent sessions that wait for the event loop.
const SILENT: usize = 64;
/// The STAMP thread calls nothing deep.
const STAMP_STACK: usize = 256 << 10;
/// Events that the reporting thread takes in one go.
const BATCH: usize = 256;

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP port can't be had.
    #[error("failed to open the HTTP port {port}: {source}")]
    Http {
        /// The port.
        port: u16,
        /// Why it can't be had.
        source: io::Error,
    },
    /// The API's port can't be had.
    #[error("failed to open the API port {port}: {source}")]
    Api {
        /// The port.
        port: u16,
        /// Why it can't be had.
        source: io::Error,
    },
    /// The STAMP port can't be had.
    #[error("failed to open the STAMP port {port}/udp: {source}")]
    Stamp {
        /// The port.
        port: u16,
        /// Why it can't be had.
        source: io::Error,
    },
    /// A thread or its runtime can't be had.
    #[error("failed to start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The swarm can't go on.
    #[error(transparent)]
    Swarm(#[from] swarm::Error),
    /// No address to listen on came up.
    #[error("not listening after {START_DEADLINE:?}")]
    NotListening,
    /// A thread ended that should not.
    #[error("the {0} thread ended")]
    Ended(&'static str),
    /// A thread did not end when told to.
    #[error("not stopped after {STOP_DEADLINE:?}")]
    NotStopped,
}

impl Error {
    /// Whether something else has one of the agent's ports.
    #[must_use]
    pub fn is_port_taken(&self) -> bool {
        match self {
            Self::Http { source, .. } | Self::Api { source, .. } | Self::Stamp { source, .. } => {
                source.kind() == io::ErrorKind::AddrInUse
            }
            Self::Swarm(swarm::Error::Listen { taken, .. }) => *taken,
            _ => false,
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    peer_id: PeerId,
    p2p: Vec<Address>,
    http: SocketAddr,
    api: SocketAddr,
    stamp: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    ended: mpsc::Receiver<Ended>,
}

/// A thread's last words.
#[derive(Debug)]
struct Ended {
    thread: &'static str,
    result: Result<(), Error>,
}

impl Agent {
    /// Starts the agent and waits until it listens.
    ///
    /// # Errors
    /// If a port can't be had.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let started = Instant::now();
        let key = config.secret.keypair(&config.name);
        let peer_id = key.public().to_peer_id();
        let port = config.http.map_or(config.http_port, |address| address.port());
        let http_failed = |source| Error::Http { port, source };
        let listener = http::bind(config.http, config.http_port).map_err(http_failed)?;
        let http = listener.local_addr().map_err(http_failed)?;

        let port = config.api_port;
        let api_failed = |source| Error::Api { port, source };
        let loopback = (!config.api_open).then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let api_listener = http::bind(loopback, port).map_err(api_failed)?;
        let api = api_listener.local_addr().map_err(api_failed)?;
        let (dht, commands) = dht::command::channel();

        let identity = Identity {
            network: config.network.clone(),
            name: config.name.clone(),
            transports: config.transports.clone(),
        };
        let private = config.private.as_ref();
        let keys = private.map(|private| Keys::new(private.keys.clone(), private.grace));
        let follow = private.and_then(|private| {
            let file = private.file.clone()?;
            Some(reload::follow(keys.clone()?, file, private.reread))
        });
        let reporting = Reporting::new(
            identity,
            keys.clone(),
            &config.bootstrap,
            config.probe.window,
            started.elapsed(),
        );
        let shared = Shared::new(reporting, key.clone(), started);
        let (stop, stopping) = watch::channel(false);
        let (ended, mut ends) = mpsc::channel(THREADS);
        let (events, received) = mpsc::channel(telemetry::CAPACITY);
        let (listening, heard) = oneshot::channel();

        let stamp = config
            .stamp
            .then(|| start_stamp(&config, started, events.clone(), ended.clone()))
            .transpose()?;
        let reflector = stamp.as_ref().map(|(handle, _)| handle.reflector());

        let stop_swarm = stopping.clone();
        let (handshakes, needed) = start_handshakes(ended.clone())?;
        spawn("swarm", ended.clone(), async move {
            let _needed = needed;
            let ends = Ends {
                events,
                listening,
                commands,
            };
            EventLoop::new(config, key, started, ends, stamp, keys.as_ref(), handshakes)?
                .run(stop_swarm)
                .await?;
            Ok(())
        })?;
        spawn("reporting", ended, async move {
            let listener = TcpListener::from_std(listener)?;
            let events = tokio::spawn(take_events(received, shared.clone()));
            let host = tokio::spawn(watch_host(shared.clone()));
            let api_listener = TcpListener::from_std(api_listener)?;
            let follow = follow.map(tokio::spawn);
            tokio::join!(
                http::serve(listener, http::router(shared), stopping.clone()),
                http::serve(api_listener, api::router(dht), stopping),
            );
            events.abort();
            host.abort();
            if let Some(follow) = follow {
                follow.abort();
            }
            Ok(())
        })?;

        tokio::select! {
            heard = timeout(START_DEADLINE, heard) => match heard {
                Ok(Ok(p2p)) => {
                    tracing::info!(%peer_id, ?p2p, %http, %api, stamp = reflector.map(display), version = peernet_api::VERSION, "started");
                    Ok(Self { peer_id, p2p, http, api, stamp: reflector, stop, ended: ends })
                }
                Ok(Err(_)) => Err(reason(ends.recv().await)),
                Err(_) => Err(Error::NotListening),
            },
            end = ends.recv() => Err(reason(end)),
        }
    }

    /// The agent's peer id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// An address at which other agents reach it over its first transport.
    #[must_use]
    pub fn p2p_address(&self) -> SocketAddr {
        let first = self.p2p.first();
        first.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), Address::socket)
    }

    /// An address at which other agents reach it over each of its transports, the first transport's first.
    #[must_use]
    pub fn p2p_addresses(&self) -> &[Address] {
        &self.p2p
    }

    /// The address that it serves HTTP on.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// The address that it serves the API on.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// The address at which it answers STAMP probes, if it does.
    #[must_use]
    pub fn stamp_address(&self) -> Option<SocketAddr> {
        self.stamp
    }

    /// Waits until a thread ends that should not, and says why it did.
    pub async fn failed(&mut self) -> Error {
        reason(self.ended.recv().await)
    }

    /// Closes all connections and ends.
    ///
    /// # Errors
    /// If it took too long. The process should end then.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        let all = async { while self.ended.recv().await.is_some() {} };
        timeout(STOP_DEADLINE, all).await.map_err(|_| Error::NotStopped)
    }
}

fn reason(ended: Option<Ended>) -> Error {
    match ended {
        Some(Ended {
            result: Err(error), ..
        }) => error,
        Some(Ended {
            thread,
            result: Ok(()),
        }) => Error::Ended(thread),
        None => Error::Ended("last"),
    }
}

/// Starts the STAMP thread. It works as long as the event loop holds its handle.
fn start_stamp(
    config: &Config,
    started: Instant,
    events: mpsc::Sender<Event>,
    ended: mpsc::Sender<Ended>,
) -> Result<(stamp::Handle, mpsc::Receiver<PeerId>), Error> {
    let port = config.stamp_port;
    let (silent, heard) = mpsc::channel(SILENT);
    let config = stamp::Config {
        interval: config.probe.interval,
        timeout: config.probe.timeout,
        address: config.listen,
        port,
        open: config.stamp_open,
        clock: config.stamp_clock,
    };
    let (worker, handle) =
        stamp::run::open(config, started, events, silent).map_err(|source| Error::Stamp { port, source })?;
    let thread = thread::Builder::new().stack_size(STAMP_STACK);
    // It ends with the event loop, whose own end says why.
    run(thread, "stamp", ended, move || {
        worker.run().err().map(|error| Err(error.into()))
    })?;
    Ok((handle, heard))
}

/// Starts the thread that works on handshakes. It does so until the sender is dropped.
fn start_handshakes(ended: mpsc::Sender<Ended>) -> io::Result<(Handle, oneshot::Sender<()>)> {
    // Sockets and deadlines are the swarm's.
    let runtime = Builder::new_current_thread().build()?;
    let handle = runtime.handle().clone();
    let (needed, dropped) = oneshot::channel();
    // It ends with the event loop, whose own end says why.
    run(thread::Builder::new(), "handshakes", ended, move || {
        // On Linux, that is this thread's alone. Without it, pings wait for handshakes a little longer.
        if let Err(error) = rustix::process::nice(HANDSHAKES_NICE) {
            tracing::debug!(%error, "handshakes have the same priority as all else");
        }
        let _ = runtime.block_on(dropped);
        None
    })?;
    Ok((handle, needed))
}

/// Runs a future on a thread and a runtime of its own.
fn spawn(
    name: &'static str,
    ended: mpsc::Sender<Ended>,
    work: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> io::Result<()> {
    let runtime: Runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    run(thread::Builder::new(), name, ended, move || {
        let result = runtime.block_on(work);
        runtime.shutdown_timeout(RUNTIME_FAREWELL);
        Some(result)
    })
}

/// Runs something on a thread of its own. Its end is told, unless it returns nothing.
fn run(
    thread: thread::Builder,
    name: &'static str,
    ended: mpsc::Sender<Ended>,
    work: impl FnOnce() -> Option<Result<(), Error>> + Send + 'static,
) -> io::Result<()> {
    thread.name(name.to_owned()).spawn(move || {
        let mut last_words = LastWords {
            thread: name,
            result: Some(Err(Error::Ended(name))),
            ended,
        };
        last_words.result = work();
    })?;
    Ok(())
}

/// Tells the end of a thread when it is dropped, so that a panic is told, too.
struct LastWords {
    thread: &'static str,
    result: Option<Result<(), Error>>,
    ended: mpsc::Sender<Ended>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let Some(result) = self.result.take() else {
            return;
        };
        // There is room for all threads' ends: this fails only if nobody listens any more.
        let _ = self.ended.try_send(Ended {
            thread: self.thread,
            result,
        });
    }
}

async fn take_events(mut events: mpsc::Receiver<Event>, shared: Shared) {
    let mut batch = Vec::with_capacity(BATCH);
    while events.recv_many(&mut batch, BATCH).await > 0 {
        let mut reporting = shared.reporting();
        for event in batch.drain(..) {
            reporting.apply(event);
        }
    }
}

/// Looks at the host as long as the agent runs.
async fn watch_host(shared: Shared) {
    let mut sampler = host::Sampler::new();
    let mut looked_at_tcp: Option<Instant> = None;
    let mut failing = false;
    let mut tick = interval(HOST_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let usage = sampler.sample();
        shared.reporting().apply_usage(&usage, shared.now());
        if looked_at_tcp.is_some_and(|then| then.elapsed() < TCP_INTERVAL) {
            continue;
        }
        looked_at_tcp = Some(Instant::now());
        match host::tcp::established() {
            Ok(sockets) => shared.reporting().apply_sockets(&sockets, shared.now()),
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::info!(%error, "the kernel does not tell what TCP sends again: going on without it");
                }
            }
        }
    }
}
