//! What each transport costs beside raw TCP and raw UDP: the time of a handshake, and of a ping, cold and warm. All over
//! loopback, in one run, both ends in this process, each on a thread of its own as in an agent. Prints a table: `make bench`
//! calls it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench that can't go on fails"
)]

#[path = "../tests/support/swarms.rs"]
#[allow(dead_code, reason = "tests use the rest of it")]
mod swarms;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
        dummy,
    },
};
use peernet_api::transport::Transport;
use peernet_node::ping::{self, News, Over};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::{Builder, Handle},
    time::{interval, timeout},
};

const HANDSHAKES: usize = 200;
/// Between two handshakes, as between two pings: whoever is asked has gone to sleep.
const PACE: Duration = Duration::from_millis(20);
/// Between two handshakes over the same transport: QUIC's are rationed, four a second, and their waiting is not to be measured.
const ROUND: Duration = Duration::from_millis(250);
const PINGS: usize = 500;
/// As large as a libp2p ping.
const PAYLOAD: usize = 32;
const DEADLINE: Duration = Duration::from_secs(180);
const RAW_TCP: &str = "raw TCP";
const RAW_UDP: &str = "raw UDP";

/// Times by what they are of.
type Times = BTreeMap<String, Vec<Duration>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Cargo hands over `--bench`: there is nothing to choose here.
    timeout(DEADLINE, async {
        show("handshake", &handshakes().await, RAW_TCP);
        let (cold, warm) = pings().await;
        show("ping, cold", &cold, RAW_TCP);
        show("ping, warm", &warm, RAW_TCP);
    })
    .await
    .expect("the bench is done in time");
}

/// With a thread of its own for handshakes, as an agent has.
fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    swarms::swarm_beside(another_thread(), |_| behaviour)
}

/// A thread that works on what it is given, for as long as the process lives.
fn another_thread() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

/// Listens over all transports on a thread of its own.
async fn listening<B>(behaviour: B) -> (PeerId, BTreeMap<Transport, Multiaddr>)
where
    B: NetworkBehaviour<ToSwarm: std::fmt::Debug + Send> + Send,
{
    another_thread().spawn(listen(behaviour)).await.unwrap()
}

async fn listen<B>(behaviour: B) -> (PeerId, BTreeMap<Transport, Multiaddr>)
where
    B: NetworkBehaviour<ToSwarm: std::fmt::Debug + Send> + Send,
{
    let mut swarm = swarm(behaviour);
    let mut addresses = BTreeMap::new();
    for transport in Transport::ALL {
        addresses.insert(transport, swarms::listen_over(&mut swarm, transport).await);
    }
    let peer = *swarm.local_peer_id();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (peer, addresses)
}

fn dial(peer: PeerId, address: &Multiaddr, transport: Transport) -> DialOpts {
    let options = DialOpts::peer_id(peer)
        .condition(PeerCondition::Always)
        .addresses(vec![address.clone()]);
    if transport == Transport::Quic {
        options.build()
    } else {
        options.allocate_new_port().build()
    }
}

/// From the dial to a connection whose other end is proven, in turns.
async fn handshakes() -> Times {
    let (peer, addresses) = listening(dummy::Behaviour).await;
    let (tcp, _) = another_thread().spawn(echo()).await.unwrap();
    let mut dialer = swarm(dummy::Behaviour);
    let mut times = Times::new();
    for _ in 0..HANDSHAKES {
        for (transport, address) in &addresses {
            tokio::time::sleep(PACE).await;
            let begun = Instant::now();
            dialer.dial(dial(peer, address, *transport)).unwrap();
            loop {
                match dialer.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                        times
                            .entry(transport.to_string())
                            .or_default()
                            .push(begun.elapsed());
                        dialer.close_connection(connection_id);
                    }
                    SwarmEvent::ConnectionClosed { .. } => break,
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{transport}: {error}"),
                    _ => {}
                }
            }
        }
        tokio::time::sleep(PACE).await;
        let begun = Instant::now();
        let _stream = TcpStream::connect(tcp).await.unwrap();
        times.entry(RAW_TCP.to_owned()).or_default().push(begun.elapsed());
        tokio::time::sleep(ROUND).await;
    }
    times
}

/// The agents' own pings over all transports at once, at their moments, and raw round trips between them.
async fn pings() -> (Times, Times) {
    let ours = || {
        ping::Behaviour::new(ping::Config {
            interval: PACE,
            timeout: Duration::from_secs(5),
            burst: 5,
        })
    };
    let (peer, addresses) = listening(ours()).await;
    let mut dialer = swarm(ours());
    for (transport, address) in &addresses {
        dialer.dial(dial(peer, address, *transport)).unwrap();
        while !matches!(
            dialer.select_next_some().await,
            SwarmEvent::ConnectionEstablished { .. }
        ) {}
    }
    dialer.behaviour_mut().accept(peer);
    let raw = another_thread().spawn(raw_round_trips());
    let (mut cold, mut warm) = (Times::new(), Times::new());
    while Transport::ALL
        .iter()
        .any(|transport| warm.get(&transport.to_string()).map_or(0, Vec::len) < PINGS)
    {
        let SwarmEvent::Behaviour(event) = dialer.select_next_some().await else {
            continue;
        };
        let Over::Direct(transport) = event.over else {
            continue;
        };
        match event.outcome.news {
            News::Cold { result, .. } => {
                let took = result.expect("loopback loses nothing");
                cold.entry(transport.to_string()).or_default().push(took);
            }
            News::Warm(took) => warm.entry(transport.to_string()).or_default().push(took),
        }
    }
    let raw = raw.await.unwrap();
    cold.extend(raw.clone());
    warm.extend(raw);
    (cold, warm)
}

/// One round trip at a time over TCP, and one over UDP.
async fn raw_round_trips() -> Times {
    let (tcp, udp) = another_thread().spawn(echo()).await.unwrap();
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(udp).await.unwrap();
    let mut pace = interval(PACE / 2);
    let mut times = Times::new();
    let mut buffer = [0; PAYLOAD];
    for _ in 0..PINGS {
        pace.tick().await;
        let begun = Instant::now();
        stream.write_all(&[1; PAYLOAD]).await.unwrap();
        stream.read_exact(&mut buffer).await.unwrap();
        times.entry(RAW_TCP.to_owned()).or_default().push(begun.elapsed());
        pace.tick().await;
        let begun = Instant::now();
        socket.send(&[1; PAYLOAD]).await.unwrap();
        socket.recv(&mut buffer).await.unwrap();
        times.entry(RAW_UDP.to_owned()).or_default().push(begun.elapsed());
    }
    times
}

/// Answers over TCP and UDP, each on a port of its own, for as long as the process lives.
async fn echo() -> (SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addresses = (listener.local_addr().unwrap(), socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; PAYLOAD];
                while stream.read_exact(&mut buffer).await.is_ok() {
                    if stream.write_all(&buffer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; PAYLOAD];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = buffer.get(..length).unwrap_or_default();
            if socket.send_to(answer, from).await.is_err() {
                break;
            }
        }
    });
    addresses
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() as f64 * share) as usize;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn show(what: &str, all: &Times, yardstick: &str) {
    let yardstick = quantile(all.get(yardstick).map_or(&[], Vec::as_slice), 0.5);
    for (of, times) in all {
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        println!(
            "note: {what:<12} {of:<10} p50 {:>8.1} us  p99 {:>8.1} us  p50 to raw TCP's {:>5.2}",
            p50.as_secs_f64() * 1e6,
            p99.as_secs_f64() * 1e6,
            p50.as_secs_f64() / yardstick.as_secs_f64().max(1e-9),
        );
    }
}
