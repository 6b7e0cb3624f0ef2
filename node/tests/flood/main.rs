//! A flood against one agent's libp2p port, by programs that hold no secret: 10,000 connections, handshakes that stop half-way,
//! frames of absurd lengths, and connections with as many streams as the other end allows, filled and never read; over TCP, and over
//! QUIC. All traffic stays on loopback.
//!
//! What must hold: the agent stays within its memory, stays connected to its peer, and still takes in a member that joins
//! meanwhile. How much longer round trips take is printed and not judged: `make bench` runs this with the agent as it is shipped, and
//! once more with no more than some 10,000 connections. So that this tells of the agents and not of the flood's own hunger for CPU
//! time, the flood has one CPU and the agents another one, where there are two.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod quic;
#[path = "../support/mod.rs"]
mod support;
mod tcp;

use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use futures::{AsyncWriteExt as _, StreamExt as _, stream::FuturesUnordered};
use libp2p::core::muxing::{StreamMuxer as _, StreamMuxerExt as _};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use peernet_api::{histogram::Histogram, report::PeerReport, transport::Transport};
use peernet_node::{discovery::Address, transport::Connected};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{DEADLINE, program::Agent};

/// The memory limit of an agent's pod, if the resource does not say otherwise.
const LIMIT: u64 = 64 << 20;
/// Connections of the flood, or handshakes begun, at least.
const CONNECTIONS: u64 = 10_000;
/// Of them each second, if `PEERNET_FLOOD_HANDSHAKES` does not say otherwise.
const EACH_SECOND: u64 = 6_400;
/// What a report tells of: looks so far apart see each round trip once.
const WINDOW: Duration = Duration::from_secs(10);
/// Between two looks at an agent.
const LOOK: Duration = Duration::from_millis(500);
/// Windows before the flood, and as many during it, if `PEERNET_FLOOD_WINDOWS` does not say otherwise. The slowest hundredth of one
/// window is the slowest five round trips: the more windows, the less it is left to chance.
const WINDOWS: u32 = 2;
/// Streams on one connection.
const STREAMS: usize = 512;
/// Connections with that many streams, one after the other by each of the workers.
const MUXED: u64 = 48;
const WORKERS: usize = 8;
/// The hostile programs come from other addresses than the members, as pods do.
const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Those that shake hands as they should: the others take all the places that one address has.
const POLITE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Where there are two CPUs: that of the flood and of the test itself, and the agents'.
const CPUS: (usize, usize) = (0, 1);

/// Keeps this thread, and the threads and programs that it starts from now on, on one CPU, if this machine has it.
fn keep_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    if sched_setaffinity(Pid::from_raw(0), &set).is_err() {
        println!("this runs on any CPU");
    }
}

/// What the environment says, if it does.
fn wanted<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, otherwise: T) -> T {
    std::env::var(name).map_or(otherwise, |wanted| wanted.parse().unwrap())
}

fn each_second() -> u64 {
    wanted("PEERNET_FLOOD_HANDSHAKES", EACH_SECOND)
}

fn windows() -> u32 {
    wanted("PEERNET_FLOOD_WINDOWS", WINDOWS)
}

fn free_port() -> u16 {
    // On all addresses: the flood has sockets on others than the first, and leaves some of them to the kernel.
    let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn agent(over: Transport, name: &str, p2p: u16, seeds: &str) -> Agent {
    let (over, p2p, http) = (over.to_string(), p2p.to_string(), free_port().to_string());
    let settings = [
        ("PEERNET_TRANSPORTS", over.as_str()),
        ("PEERNET_POD_IP", "127.0.0.1"),
        ("PEERNET_P2P_PORT", p2p.as_str()),
        ("PEERNET_HTTP_PORT", http.as_str()),
        ("PEERNET_STAMP_PORT", "0"),
        ("PEERNET_MDNS", "false"),
        ("PEERNET_SEEDS", seeds),
        ("PEERNET_PROBE_INTERVAL", "20ms"),
        ("PEERNET_PROBE_WINDOW", &format!("{}s", WINDOW.as_secs())),
    ];
    keep_on(CPUS.1);
    let agent = Agent::start("", name, &settings);
    keep_on(CPUS.0);
    agent
}

/// The cold round trips of some windows, and the network's own.
#[derive(Default)]
struct Times {
    rtt: Histogram,
    network: Histogram,
}

impl Times {
    fn add(&mut self, row: &PeerReport) {
        self.rtt.merge(&row.rtt);
        if let Some(network) = &row.network {
            self.network.merge(&network.rtt);
        }
    }

    /// A percentile of both; `None` of what there was nothing to measure of.
    fn quantile(&self, per_mille: u16) -> [Option<Duration>; 2] {
        [&self.rtt, &self.network].map(|times| times.quantile(per_mille).map(Duration::from_nanos))
    }
}

/// Looks at the connection to `mesh-0` now and then, which must stand all the time. Returns the row at the end.
async fn connected_until(honest: &Agent, end: Instant) -> PeerReport {
    loop {
        // Not more often: answers would take the time of those who are looked at.
        sleep(LOOK.min(end.saturating_duration_since(Instant::now()))).await;
        let row = honest.row("mesh-0").unwrap();
        assert!(row.connected, "two members were parted: {row:?}");
        if Instant::now() >= end {
            return row;
        }
    }
}

/// The round trips to `mesh-0` of as many windows as are looked at, while another member joins after the first of them, and how
/// long it took to join. So the times before and during the flood differ by the flood alone.
async fn times_while_one_joins(honest: &Agent, name: &str, to: Address) -> (Times, Duration) {
    let (begun, mut times) = (Instant::now(), Times::default());
    times.add(&connected_until(honest, begun + WINDOW).await);
    let late = agent(to.transport(), name, free_port(), &to.socket().to_string());
    let joins = Instant::now();
    let joined = async {
        while !late
            .row("mesh-0")
            .is_ok_and(|row| row.connected && row.answered > 0)
        {
            assert!(joins.elapsed() < DEADLINE, "{name} does not get in");
            sleep(LOOK).await;
        }
        joins.elapsed()
    };
    let looks = async {
        for window in 2..=windows() {
            times.add(&connected_until(honest, begun + WINDOW * window).await);
        }
    };
    let (joined, ()) = futures::join!(joined, looks);
    (times, joined)
}

/// One connection by a made-up peer that shakes hands as it should, and then opens as many streams as it can and fills them. It
/// reads nothing. Returns how many streams it opened.
async fn muxed(dial: impl Future<Output = Option<Connected>>) -> u64 {
    let Ok(Some((_, mut connection))) = timeout(Duration::from_secs(10), dial).await else {
        return 0;
    };
    let (mut writers, mut written) = (FuturesUnordered::new(), Vec::new());
    let mut opened = 0;
    let work = poll_fn(|cx| {
        while opened < STREAMS {
            match connection.poll_outbound_unpin(cx) {
                Poll::Ready(Ok(mut stream)) => {
                    opened += 1;
                    writers.push(async move {
                        let mut proposal = b"\x13/multistream/1.0.0\n".to_vec();
                        // One protocol after the other that nobody speaks: each is answered, and no answer is read.
                        while proposal.len() < 256 << 10 {
                            proposal.extend(b"\x0e/nobody/1.0.0\n");
                        }
                        let _ = stream.write_all(&proposal).await;
                        let _ = stream.flush().await;
                        stream
                    });
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        // They stay open, and unread.
        while let Poll::Ready(Some(stream)) = writers.poll_next_unpin(cx) {
            written.push(stream);
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    });
    let _ = timeout(Duration::from_secs(5), work).await;
    // Whatever the other end does.
    let _ = timeout(Duration::from_millis(100), connection.close()).await;
    u64::try_from(opened).unwrap()
}

/// Has peers shake hands and fill streams, one after the other, until then at least. Their tasks tell how many streams they opened.
fn fill<F>(workers: &mut JoinSet<u64>, end: Instant, dial: impl Fn() -> F + Clone + Send + 'static)
where
    F: Future<Output = Option<Connected>> + Send,
{
    let begun = Arc::new(AtomicU64::new(0));
    for _ in 0..WORKERS {
        let (begun, dial) = (Arc::clone(&begun), dial.clone());
        workers.spawn(async move {
            let mut streams = 0;
            while begun.fetch_add(1, Ordering::Relaxed) < MUXED || Instant::now() < end {
                streams += muxed(dial()).await;
            }
            streams
        });
    }
}

/// What a flood did.
struct Flooded {
    /// Connections, or handshakes begun.
    connections: u64,
    streams: u64,
}

/// One at a time: two would take each other's CPU.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_flood_leaves_memory_and_honest_connections_alone() {
    withstands(Transport::Tcp, tcp::flood).await;
}

#[tokio::test]
async fn a_flood_over_quic_leaves_memory_and_honest_connections_alone() {
    withstands(Transport::Quic, quic::flood).await;
}

/// Two members over a transport hold out against a flood of one of them, which lasts until the time that it is told.
async fn withstands<F>(over: Transport, flood: impl FnOnce(SocketAddr, Instant) -> F + Send + 'static)
where
    F: Future<Output = Flooded>,
{
    let _alone = ONE_AT_A_TIME.lock().await;
    let socket = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let address = Address::new(over, socket);
    let victim = agent(over, "mesh-0", socket.port(), "");
    let honest = agent(over, "mesh-1", free_port(), &socket.to_string());
    honest
        .row_when("mesh-0", "the two measure each other", |row| {
            row.connected && row.answered >= 20
        })
        .await;
    let quiet = times_while_one_joins(&honest, "mesh-2", address).await.0;

    let begun = Instant::now();
    let attack = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .unwrap()
            .block_on(flood(socket, begun + WINDOW * windows()))
    });
    // A member that comes now is let in all the same.
    let (during, joined) = times_while_one_joins(&honest, "mesh-3", address).await;
    while !attack.is_finished() {
        assert!(begun.elapsed() < DEADLINE, "the flood does not end");
        connected_until(&honest, Instant::now() + LOOK).await;
    }
    let Flooded { connections, streams } = attack.join().unwrap();
    let lasted = begun.elapsed();
    let memory = victim.peak_memory();
    // Whom it had no place for, and those over QUIC who never showed where they are.
    let mut refused = 0.0;
    for name in [
        "peernet_connections_refused_total",
        "peernet_handshakes_to_validate_total",
    ] {
        refused += victim.metric(name).unwrap();
    }
    // On a line of its own, whatever the harness has begun to write: `make bench` shows it.
    println!(
        "\nnote: over {over}, {connections} connections and {streams} streams in {lasted:.1?}, {refused} refused; at most {} KiB of memory; a member \
         joined within {joined:.1?}",
        memory >> 10,
    );
    for (name, per_mille) in [("p50", 500), ("p99", 990)] {
        let ([rtt, network], [flooded_rtt, flooded_network]) =
            (quiet.quantile(per_mille), during.quantile(per_mille));
        println!(
            "note: {name}: RTT {rtt:.1?} -> {flooded_rtt:.1?}, NET {network:.1?} -> {flooded_network:.1?}"
        );
    }
    assert!(refused > 1000.0, "{refused} refused: that was no flood");
    // QUIC's gate lets in a few each second; over TCP only an address that wasted too many is refused.
    let floor = if over == Transport::Quic { 500 } else { 1000 };
    assert!(streams > floor, "{streams} streams: that was no flood");
    assert!(memory < LIMIT / 10 * 8, "{memory} bytes");
    // When it is over, nothing of it is left.
    let rows = honest
        .row_when("mesh-0", "it goes on", |row| row.connected && row.answered > 50)
        .await;
    assert_eq!(rows.failed, 0, "{rows:?}");
    victim
        .metric_when("peernet_connections", |held| held <= 4.0)
        .await;
}
