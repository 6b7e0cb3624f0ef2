//! QUIC v1 (RFC 9000), with libp2p's TLS handshake inside.
//!
//! The protocol is `quinn`'s and the certificates are `libp2p-tls`'s, as in `libp2p-quic`. That crate is not used because it
//! shakes hands with everybody: it works through a whole handshake for each first packet, before it asks whether there is a place
//! for it, and has 65,536 of them wait meanwhile. A few thousand forged packets a second were enough to take an agent's memory to
//! ten times its limit; here they wait at a [`gate`].

mod connection;
mod gate;
mod lanes;
mod listener;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use hmac::{KeyInit, Mac};
use libp2p::{
    Multiaddr, PeerId,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    identity::Keypair,
};
use peernet_api::transport::Transport as Over;
use quinn::{
    ClientConfig, Connecting, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::{
        CryptoError, HmacKey,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
    rustls::pki_types::CertificateDer,
};
use tokio::time::timeout;

pub(crate) use self::connection::Connection;
use self::{gate::MAX_WAITING, lanes::Lanes, listener::Listener};
use super::HANDSHAKE_DEADLINE;
use crate::{
    discovery::Address,
    probation::{ALLOWANCE, Probation},
};

/// A peer that is silent for so long is gone. TCP waits longer; but pings that fail close a connection before.
const IDLE: Duration = Duration::from_secs(30);
/// Where probes are rare, this keeps the connection up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const STREAM_WINDOW: u32 = 256 << 10;
/// Unread bytes of a connection whose peer has shown what it is.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Unread bytes of a connection before that.
const UNKNOWN_WINDOW: u32 = 2 * ALLOWANCE as u32;
/// First packets that have come, with those that wait for their turn. More are dropped at little cost, and their senders send them
/// again: the fewer there are, the sooner it is the turn of what came behind them on the same socket.
const MAX_INCOMING: usize = 4 * MAX_WAITING;
/// What may follow a first packet before it has its turn, in bytes: the rest of a greeting.
const BESIDE_FIRST_PACKET: u64 = 8 << 10;

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is nothing to dial.
    #[error("can't be dialed: {0}")]
    Dial(#[from] quinn::ConnectError),
    /// It failed.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The socket, or the list of the host's addresses, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("the handshake took longer than {} s", HANDSHAKE_DEADLINE.as_secs())]
    Timeout,
    /// The peer has shown none, or one that says nothing.
    #[error("no certificate of libp2p")]
    Certificate,
}

/// A handshake.
type Upgrade = BoxFuture<'static, Result<(PeerId, Connection), Error>>;

/// A socket, and the connections over it.
#[derive(Clone)]
struct Socket {
    endpoint: Endpoint,
    lanes: Arc<Lanes>,
}

impl Socket {
    fn open(config: EndpointConfig, server: Option<ServerConfig>, address: SocketAddr) -> io::Result<Self> {
        let lanes = Lanes::bind(address)?;
        let socket = Arc::clone(&lanes);
        let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, lanes })
    }

    fn upgrade(&self, connecting: Connecting, probation: &Probation) -> Upgrade {
        let (lanes, probation) = (Arc::clone(&self.lanes), probation.clone());
        async move {
            let shaken = timeout(HANDSHAKE_DEADLINE, connecting).await;
            let connection = shaken.map_err(|_| Error::Timeout)??;
            let peer = peer_of(&connection).ok_or(Error::Certificate)?;
            let watch = probation.watch(Some(connection.remote_address()));
            Ok((peer, Connection::new(connection, lanes, watch)))
        }
        .boxed()
    }
}

/// Who is at the other end: TLS has checked the certificate already.
fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let certificates: Box<Vec<CertificateDer<'static>>> = connection.peer_identity()?.downcast().ok()?;
    let certificate = libp2p::tls::certificate::parse(certificates.first()?).ok()?;
    Some(certificate.peer_id())
}

/// The transport. One UDP port for each address that is listened on, which dials leave from, too: QUIC tells connections
/// apart by their ids.
pub(super) struct Quic {
    endpoint: EndpointConfig,
    server: ServerConfig,
    client: ClientConfig,
    probation: Probation,
    listeners: Vec<Listener>,
    /// For dials that none of the listeners' sockets serves: for IPv4, and for IPv6.
    dialers: [Option<Socket>; 2],
    waker: Option<Waker>,
}

impl Quic {
    /// `streams`: those that a peer may have open at a time, on one connection. `probation`: counts what unknown peers send.
    pub(super) fn new(key: &Keypair, streams: u16, probation: &Probation) -> Result<Self, super::Error> {
        let failed = |error: &dyn std::error::Error| super::Error::Quic(error.to_string());
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_concurrent_bidi_streams(streams.into())
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(Some(IDLE.try_into().map_err(|error| failed(&error))?))
            .stream_receive_window(STREAM_WINDOW.into())
            .receive_window(UNKNOWN_WINDOW.into())
            .allow_spin(false);
        let transport = Arc::new(transport);

        let tls = libp2p::tls::make_server_config(key).map_err(|error| failed(&error))?;
        let tls = QuicServerConfig::try_from(tls).map_err(|error| failed(&error))?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(Arc::clone(&transport))
            // A connection's address is who it is with.
            .migration(false)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(BESIDE_FIRST_PACKET)
            .incoming_buffer_size_total(BESIDE_FIRST_PACKET * MAX_INCOMING as u64);

        let tls = libp2p::tls::make_client_config(key, None).map_err(|error| failed(&error))?;
        let tls = QuicClientConfig::try_from(tls).map_err(|error| failed(&error))?;
        let mut client = ClientConfig::new(Arc::new(tls));
        client.transport_config(transport);

        // An agent that starts again at the same address can tell peers of its life before that their connections are gone.
        let secret = key.derive_secret(b"peernet quic stateless reset key");
        let mut endpoint = secret.map_or_else(EndpointConfig::default, |secret| {
            EndpointConfig::new(Arc::new(ResetKey(secret)))
        });
        endpoint.supported_versions(vec![1]);
        Ok(Self {
            endpoint,
            server,
            client,
            probation: probation.clone(),
            listeners: Vec::new(),
            dialers: [None, None],
            waker: None,
        })
    }

    /// Where a dial to that address leaves from.
    fn dialer(&mut self, to: IpAddr) -> io::Result<Socket> {
        if let Some(listener) = self.listeners.iter().find(|listener| listener.reaches(to)) {
            return Ok(listener.socket.clone());
        }
        let [v4, v6] = &mut self.dialers;
        let (any, dialer) = match to {
            IpAddr::V4(_) => (IpAddr::from(Ipv4Addr::UNSPECIFIED), v4),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), v6),
        };
        if let Some(dialer) = dialer {
            return Ok(dialer.clone());
        }
        let opened = Socket::open(self.endpoint.clone(), None, (any, 0).into())?;
        Ok(dialer.insert(opened).clone())
    }
}

fn quic_address(address: Multiaddr) -> Result<Address, TransportError<Error>> {
    Address::parse(&address)
        .filter(|parsed| parsed.transport() == Over::Quic)
        .ok_or(TransportError::MultiaddrNotSupported(address))
}

impl Transport for Quic {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Error>> {
        let address = quic_address(address)?;
        let server = Some(self.server.clone());
        let socket = Socket::open(self.endpoint.clone(), server, address.socket()).map_err(Error::from);
        let listener = socket.and_then(|socket| Listener::new(id, socket, self.probation.clone()));
        self.listeners.push(listener.map_err(TransportError::Other)?);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let found = self.listeners.iter_mut().find(|listener| listener.id == id);
        found.map(Listener::close).is_some()
    }

    /// All dials are dials: where two ends are to meet by dialing at once, each lets the other's packets in by its own.
    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Upgrade, TransportError<Error>> {
        let to = quic_address(address)?.socket();
        let dialer = self
            .dialer(to.ip())
            .map_err(|error| TransportError::Other(error.into()))?;
        let (client, probation) = (self.client.clone(), self.probation.clone());
        Ok(async move {
            // libp2p knows no names; TLS asks for one that could be one.
            let connecting = dialer.endpoint.connect_with(client, to, "l")?;
            dialer.upgrade(connecting, &probation).await
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, Error>> {
        let mut at = 0;
        while let Some(listener) = self.listeners.get_mut(at) {
            match listener.poll(cx) {
                Poll::Ready(Some(event)) => return Poll::Ready(event),
                Poll::Ready(None) => drop(self.listeners.swap_remove(at)),
                Poll::Pending => at += 1,
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Makes the tokens by which peers tell a real stateless reset (RFC 9000, section 10.3.2).
struct ResetKey([u8; 32]);

type HmacSha256 = hmac::Hmac<sha2::Sha256>;

impl ResetKey {
    fn of(&self, data: &[u8]) -> Option<HmacSha256> {
        let mut mac = HmacSha256::new_from_slice(&self.0).ok()?;
        mac.update(data);
        Some(mac)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        if let Some(mac) = self.of(data) {
            signature.copy_from_slice(&mac.finalize().into_bytes());
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mac = self.of(data).ok_or(CryptoError)?;
        mac.verify_slice(signature).map_err(|_| CryptoError)
    }
}
