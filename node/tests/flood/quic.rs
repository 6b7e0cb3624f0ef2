//! The flood over QUIC: handshakes that are begun and never gone on with, each in a packet that looks like a client's first one,
//! and connections that shake hands and open streams.
//!
//! The keys of first packets follow from a connection id that the client chooses (RFC 9001, section 5.2), so anybody can make
//! as many of them as it likes from one client's greeting, at little cost and from any address.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, PortUse, Transport as _, TransportEvent},
    },
    identity::Keypair,
    quic,
};
use peernet_api::transport::Transport;
use peernet_node::{discovery::Address, transport::Connected};
use quinn::rustls::{
    Side,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{DirectionalKeys, Suite, Version},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{CONNECTIONS, Flooded, HOSTILE, POLITE, each_second, fill};

/// Between two times that some are begun.
const PACE: Duration = Duration::from_millis(10);

/// A client's first packets, opened: what is in them, and the rest of what their headers say.
struct Greeting {
    source_id: Vec<u8>,
    /// Frames of each packet, with their padding.
    frames: Vec<Vec<u8>>,
}

fn suite() -> Suite {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    suite.quic_suite().unwrap()
}

/// Reads `length` bytes at `at`, which moves on.
fn take<'a>(packet: &'a [u8], at: &mut usize, length: usize) -> &'a [u8] {
    let taken = &packet[*at..*at + length];
    *at += length;
    taken
}

/// A number of variable length (RFC 9000, section 16).
fn number(packet: &[u8], at: &mut usize) -> usize {
    let length = 1 << (packet[*at] >> 6);
    let bytes = take(packet, at, length);
    let first = usize::from(bytes[0] & 0x3f);
    bytes[1..]
        .iter()
        .fold(first, |number, byte| number << 8 | usize::from(*byte))
}

/// Takes the protection off a client's Initial packet (RFC 9001, section 5). Returns its source connection id and its frames.
fn open(mut packet: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut at = 5;
    let length = take(&packet, &mut at, 1)[0].into();
    let destination = take(&packet, &mut at, length).to_vec();
    let length = take(&packet, &mut at, 1)[0].into();
    let source = take(&packet, &mut at, length).to_vec();
    let token = number(&packet, &mut at);
    at += token;
    let rest = number(&packet, &mut at);
    let keys = suite().keys(&destination, Side::Server, Version::V1).remote;
    let sample = packet[at + 4..at + 4 + keys.header.sample_len()].to_vec();
    let (head, tail) = packet.split_at_mut(at);
    keys.header
        .decrypt_in_place(&sample, &mut head[0], &mut tail[..4])
        .unwrap();
    let number_length = usize::from(head[0] & 3) + 1;
    let number = tail[..number_length]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    let header = packet[..at + number_length].to_vec();
    let payload = &mut packet[at + number_length..at + rest];
    let frames = keys.packet.decrypt_in_place(number, &header, payload);
    (source, frames.unwrap().to_vec())
}

/// Makes a client's Initial packet, with a packet number of four bytes.
fn seal(keys: &DirectionalKeys, destination: &[u8], source: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, u8::try_from(destination.len()).unwrap()];
    packet.extend(destination);
    packet.push(u8::try_from(source.len()).unwrap());
    packet.extend(source);
    // No token, and the length of the rest.
    packet.push(0);
    let rest = 4 + frames.len() + keys.packet.tag_len();
    packet.extend(u16::try_from(rest | 0x4000).unwrap().to_be_bytes());
    let at = packet.len();
    packet.extend(number.to_be_bytes());
    let mut payload = frames.to_vec();
    let tag = keys
        .packet
        .encrypt_in_place(number.into(), &packet, &mut payload)
        .unwrap();
    packet.extend(payload);
    packet.extend(tag.as_ref());
    let sample = packet[at + 4..at + 4 + keys.header.sample_len()].to_vec();
    let (head, tail) = packet.split_at_mut(at);
    keys.header
        .encrypt_in_place(&sample, &mut head[0], &mut tail[..4])
        .unwrap();
    packet
}

fn to_quic(socket: SocketAddr) -> libp2p::Multiaddr {
    Address::new(Transport::Quic, socket).into()
}

fn options(port_use: PortUse) -> DialOpts {
    DialOpts {
        role: Endpoint::Dialer,
        port_use,
    }
}

impl Greeting {
    /// Lets libp2p's own client greet a socket that does not answer.
    async fn overhear() -> Self {
        let sink = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
        let dial = client.dial(to_quic(sink.local_addr().unwrap()), options(PortUse::New));
        let dial = tokio::spawn(dial.unwrap());
        let mut greeting = Self {
            source_id: Vec::new(),
            frames: Vec::new(),
        };
        let mut buffer = [0; 2048];
        // Its first packets come at once; whatever comes later is the same again.
        let heard = async {
            loop {
                let length = sink.recv(&mut buffer).await.unwrap();
                let (source, frames) = open(buffer[..length].to_vec());
                greeting.source_id = source;
                greeting.frames.push(frames);
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), heard).await;
        dial.abort();
        assert!(!greeting.frames.is_empty());
        greeting
    }

    /// Begins one handshake.
    fn send(&self, from: &UdpSocket, to: SocketAddr, number: u64) {
        // As long as a client's: shorter datagrams than 1200 bytes are thrown away.
        let mut destination = [0; 20];
        destination[12..].copy_from_slice(&number.to_be_bytes());
        let keys = suite().keys(&destination, Side::Client, Version::V1).local;
        for (number, frames) in (0..).zip(&self.frames) {
            let packet = seal(&keys, &destination, &self.source_id, number, frames);
            // Loopback may have no room at the moment.
            let _ = from.send_to(&packet, to);
        }
    }
}

/// A made-up peer's connection that has been shaken hands on.
async fn polite(to: SocketAddr) -> Option<Connected> {
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    // It dials from where it listens.
    let from = to_quic((POLITE, 0).into());
    transport.listen_on(ListenerId::next(), from).ok()?;
    let mut transport = transport.boxed();
    while !matches!(
        transport.select_next_some().await,
        TransportEvent::NewAddress { .. }
    ) {}
    let dial = transport.dial(to_quic(to), options(PortUse::Reuse)).ok()?;
    let (peer, connection) = dial.await.ok()?;
    Some((peer, libp2p::core::muxing::StreamMuxerBox::new(connection)))
}

/// All of the flood, until then at least.
pub(crate) async fn flood(to: SocketAddr, end: Instant) -> Flooded {
    let greeting = Greeting::overhear().await;
    let mut workers = JoinSet::new();
    fill(&mut workers, end, move || polite(to));
    // Each from a port of its own would be of no use: nothing is answered to.
    let from = UdpSocket::bind((HOSTILE, 0)).unwrap();
    from.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let mut connections = 0;
    while connections < CONNECTIONS || Instant::now() < end {
        let due = u64::try_from(begun.elapsed().as_millis()).unwrap() * each_second() / 1000;
        for connection in connections..due {
            greeting.send(&from, to, connection);
        }
        connections = connections.max(due);
        sleep(PACE).await;
    }
    let streams = workers.join_all().await.into_iter().sum();
    Flooded { connections, streams }
}
