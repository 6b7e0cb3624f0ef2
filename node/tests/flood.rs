//! A flood against one agent's libp2p port, by programs that hold no secret: 10,000 connections, handshakes that stop half-way,
//! frames of absurd lengths, and connections with 512 streams each that are filled and never read. All traffic stays on loopback.
//!
//! What must hold: the agent stays within its memory, stays connected to its peer, and still takes in a member that joins
//! meanwhile. How much longer round trips take is printed and not judged: `make bench` runs this with the agent as it is shipped. So
//! that this tells of the agents and not of the flood's own hunger for CPU time, the flood has one CPU and the agents another one,
//! where there are two.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

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
use libp2p::{
    core::{
        Endpoint, Transport as _,
        muxing::{StreamMuxer as _, StreamMuxerExt as _},
        transport::{DialOpts, PortUse},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use peernet_api::{histogram::Histogram, report::PeerReport};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{DEADLINE, program::Agent};

/// The memory limit of an agent's pod, if the resource does not say otherwise.
const LIMIT: u64 = 64 << 20;
/// Connections of the flood of connections, at least.
const CONNECTIONS: u64 = 10_000;
/// What a report tells of: looks so far apart see each round trip once.
const WINDOW: Duration = Duration::from_secs(10);
/// Between two looks at an agent.
const LOOK: Duration = Duration::from_millis(500);
/// Windows before the flood, and during it.
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

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn agent(name: &str, p2p: u16, seeds: &str) -> Agent {
    let (p2p, http) = (p2p.to_string(), free_port().to_string());
    let settings = [
        ("PEERNET_POD_IP", "127.0.0.1"),
        ("PEERNET_P2P_PORT", p2p.as_str()),
        ("PEERNET_HTTP_PORT", http.as_str()),
        ("PEERNET_STAMP_PORT", "0"),
        ("PEERNET_MDNS", "false"),
        ("PEERNET_SEEDS", seeds),
        ("PEERNET_PROBE_INTERVAL", "50ms"),
        ("PEERNET_PROBE_WINDOW", &format!("{}s", WINDOW.as_secs())),
    ];
    keep_on(CPUS.1);
    let agent = Agent::start("", name, &settings);
    keep_on(CPUS.0);
    agent
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    timeout(Duration::from_secs(5), socket.connect(to)).await?
}

/// Reads until the other side ends the connection, at most for this long.
async fn hold(mut stream: TcpStream, at_most: Duration) {
    let mut buffer = [0; 1024];
    let ended = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(at_most, ended).await;
}

/// One connection of the flood: in turn, silent, stopped half-way in the handshake, and with a frame of absurd length.
async fn raw(to: SocketAddr, number: u64) {
    let Ok(mut stream) = connect(HOSTILE, to).await else {
        return;
    };
    let sent = match number % 4 {
        0 => Ok(()),
        1 => stream.write_all(b"\x13/multistream/1.0.0\n").await,
        2 => {
            let hello = b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20".as_slice();
            stream.write_all(hello).await
        }
        // A length of 2^63, and what fits of it.
        _ => {
            let mut frame = vec![0xff; 8];
            frame.push(0x7f);
            frame.resize(1 << 16, b'x');
            stream.write_all(&frame).await
        }
    };
    if sent.is_ok() {
        hold(stream, Duration::from_secs(2)).await;
    }
}

/// Forwards from loopback's first address to the agent, so that libp2p's own dialer comes from the hostile address.
async fn forwarder(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = connect(POLITE, to).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    address
}

/// One connection by a made-up peer that shakes hands as it should, and then opens as many streams as it can and fills them. It
/// reads nothing. Returns how many streams it opened.
async fn muxed(through: SocketAddr) -> u64 {
    let key = Keypair::generate_ed25519();
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(STREAMS * 2);
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(muxer)
        .boxed();
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let address = peernet_node::discovery::Address::tcp(through).into();
    let Ok(dial) = transport.dial(address, options) else {
        return 0;
    };
    let Ok(Ok((_, mut connection))) = timeout(Duration::from_secs(10), dial).await else {
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
    // Whatever the other side does.
    let _ = timeout(Duration::from_millis(100), connection.close()).await;
    u64::try_from(opened).unwrap()
}

/// All of the flood, until it has lasted for as long as is looked at. Returns how many connections and streams it opened.
async fn flood(to: SocketAddr) -> (u64, u64) {
    let end = Instant::now() + WINDOW * WINDOWS;
    let number = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    // Few enough at a time for this machine's descriptors, and many more than the agent has places.
    for _ in 0..256 {
        let number = Arc::clone(&number);
        workers.spawn(async move {
            loop {
                let own = number.fetch_add(1, Ordering::Relaxed);
                if own >= CONNECTIONS && Instant::now() > end {
                    return 0;
                }
                raw(to, own).await;
            }
        });
    }
    let through = forwarder(to).await;
    let begun = Arc::new(AtomicU64::new(0));
    for _ in 0..WORKERS {
        let begun = Arc::clone(&begun);
        workers.spawn(async move {
            let mut streams = 0;
            while begun.fetch_add(1, Ordering::Relaxed) < MUXED || Instant::now() < end {
                streams += muxed(through).await;
            }
            streams
        });
    }
    let mut streams = 0;
    while let Some(ended) = workers.join_next().await {
        streams += ended.unwrap();
    }
    (number.load(Ordering::Relaxed), streams)
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
async fn times_while_one_joins(honest: &Agent, name: &str, to: SocketAddr) -> (Times, Duration) {
    let (begun, mut times) = (Instant::now(), Times::default());
    times.add(&connected_until(honest, begun + WINDOW).await);
    let late = agent(name, free_port(), &to.to_string());
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
        for window in 2..=WINDOWS {
            times.add(&connected_until(honest, begun + WINDOW * window).await);
        }
    };
    let (joined, ()) = futures::join!(joined, looks);
    (times, joined)
}

#[tokio::test]
async fn a_flood_leaves_memory_and_honest_connections_alone() {
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let victim = agent("mesh-0", port, "");
    let honest = agent("mesh-1", free_port(), &address.to_string());
    honest
        .row_when("mesh-0", "the two measure each other", |row| {
            row.connected && row.answered >= 20
        })
        .await;
    let quiet = times_while_one_joins(&honest, "mesh-2", address).await.0;

    let begun = Instant::now();
    let attack = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(flood(address))
    });
    // A member that comes now is let in all the same.
    let (during, joined) = times_while_one_joins(&honest, "mesh-3", address).await;
    while !attack.is_finished() {
        assert!(begun.elapsed() < DEADLINE, "the flood does not end");
        connected_until(&honest, Instant::now() + LOOK).await;
    }
    let (connections, streams) = attack.join().unwrap();
    let lasted = begun.elapsed();
    let (memory, refused) = (
        victim.peak_memory(),
        victim.metric("peernet_connections_refused_total").unwrap(),
    );
    // On a line of its own, whatever the harness has begun to write: `make bench` shows it.
    println!(
        "\nnote: {connections} connections and {streams} streams in {lasted:.1?}, {refused} refused; at most {} KiB of memory; a member \
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
    assert!(streams > 1000, "{streams} streams: that was no flood");
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
