//! The flood over TCP: connections that say nothing, stop half-way in the handshake or send a frame of absurd length, and such as
//! shake hands and open streams.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::{
    core::{
        Endpoint,
        transport::{DialOpts, PortUse, Transport as _},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use peernet_node::{discovery::Address, transport::Connected};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::{CONNECTIONS, Flooded, HOSTILE, POLITE, STREAMS, each_second, fill};

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

/// A made-up peer's connection that has been shaken hands on.
async fn polite(through: SocketAddr) -> Option<Connected> {
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
    let dial = transport.dial(Address::tcp(through).into(), options);
    dial.ok()?.await.ok()
}

/// All of the flood, until then at least.
pub(crate) async fn flood(to: SocketAddr, end: Instant) -> Flooded {
    let (begun, number) = (Instant::now(), Arc::new(AtomicU64::new(0)));
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
                let due = begun + Duration::from_millis(own * 1000 / each_second());
                sleep_until(due.into()).await;
                raw(to, own).await;
            }
        });
    }
    let through = forwarder(to).await;
    fill(&mut workers, end, move || polite(through));
    let streams = workers.join_all().await.into_iter().sum();
    Flooded {
        connections: number.load(Ordering::Relaxed),
        streams,
    }
}
