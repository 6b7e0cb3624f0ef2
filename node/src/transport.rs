//! What libp2p runs over: TCP, QUIC and WebSocket, as many of them as the network is to be measured over.
//!
//! TCP and WebSocket are encrypted by Noise and multiplexed by Yamux; QUIC brings both. All have the same limits: on the
//! time of a handshake, on streams, and on what one connection may make us hold. In a private network all of TCP and
//! WebSocket is encrypted with the pre-shared key, too; QUIC can't be. Circuits through relays carry Noise and Yamux once
//! more, from end to end.

mod aside;
mod own_port;
#[cfg(feature = "quic")]
mod quic;
mod reset;
#[cfg(feature = "websocket")]
mod websocket;

use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    PeerId,
    core::{Transport as _, muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, relay, tcp, yamux,
};
use peernet_api::transport::Transport;
use tokio::runtime::Handle;

use self::{aside::Aside, own_port::OwnPort, reset::ResetUnlessClosed};
use crate::{
    discovery::Address,
    private,
    probation::{Probation, Watched},
};

/// From the first packet to the end of all handshakes.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Streams on one connection. Each has a window of 256 KiB: this bounds what one peer can make us hold.
const MAX_STREAMS: u16 = 32;
/// Streams on one connection where there are relays: each circuit takes one, on both of its connections.
const MAX_STREAMS_WITH_CIRCUITS: u16 = 192;

/// A connection: who is at its other end, and its streams.
pub type Connected = (PeerId, StreamMuxerBox);

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key does not fit Noise.
    #[error("failed to prepare the encryption: {0}")]
    Noise(#[from] noise::Error),
    /// The key does not fit TLS.
    #[error("failed to prepare QUIC: {0}")]
    Quic(String),
    /// This program was built without it.
    #[error("this agent was built without {0}")]
    NotBuilt(Transport),
    /// Nothing of QUIC but its streams can be encrypted a second time.
    #[error("QUIC can't be part of a private network")]
    Private,
    /// None was asked for.
    #[error("no transport was asked for")]
    None,
}

/// The transports that this program can speak.
#[must_use]
pub fn is_built(transport: Transport) -> bool {
    match transport {
        Transport::Tcp => true,
        Transport::Quic => cfg!(feature = "quic"),
        Transport::WebSocket => cfg!(feature = "websocket"),
    }
}

/// All of these transports in one. What is not asked for is not even prepared, and costs nothing. `private`: the keys of
/// the private network, if it is one. `probation`: counts what unknown peers send. `circuits`: those through relays, if there may be
/// any. Where a TCP dial does not say otherwise, it leaves from the port that the agent listens on then: that is how two ends behind
/// firewalls meet. `handshakes`: works on Noise's handshakes; those of QUIC are part of its connections.
///
/// # Errors
/// If one of them can't be had.
pub fn build(
    key: &Keypair,
    wanted: &[Transport],
    private: Option<&private::Keys>,
    probation: &Probation,
    circuits: Option<relay::client::Transport>,
    handshakes: Handle,
) -> Result<Boxed<Connected>, Error> {
    let noise = Aside {
        noise: noise::Config::new(key)?,
        runtime: handshakes,
    };
    let streams = match circuits {
        Some(_) => MAX_STREAMS_WITH_CIRCUITS,
        None => MAX_STREAMS,
    };
    let meets = circuits.is_some();
    let mut all: Option<Boxed<Connected>> = None;
    for transport in wanted {
        let built = match transport {
            Transport::Tcp if meets => secured(
                watched(tcp().map(|stream, _| ResetUnlessClosed::new(stream)), probation),
                noise.clone(),
                private,
                streams,
            ),
            Transport::Tcp => secured(
                watched(OwnPort(tcp()), probation),
                noise.clone(),
                private,
                streams,
            ),
            #[cfg(feature = "websocket")]
            Transport::WebSocket => secured(
                watched(websocket::WebSocket::new(OwnPort(tcp())), probation),
                noise.clone(),
                private,
                streams,
            ),
            #[cfg(feature = "quic")]
            Transport::Quic if private.is_some() => return Err(Error::Private),
            #[cfg(feature = "quic")]
            Transport::Quic => quic::Quic::new(key, streams, probation)?
                .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
                .boxed(),
            #[cfg(not(all(feature = "quic", feature = "websocket")))]
            missing => return Err(Error::NotBuilt(*missing)),
        };
        all = Some(match all {
            None => built,
            Some(others) => either(others, built),
        });
    }
    let direct = all.ok_or(Error::None)?;
    Ok(match circuits {
        // Both ways to and from the relay are guarded and watched already.
        Some(circuits) => either(upgraded(circuits, noise, streams), direct),
        None => direct,
    })
}

fn either(first: Boxed<Connected>, second: Boxed<Connected>) -> Boxed<Connected> {
    first
        .or_transport(second)
        .map(|either, _| either.into_inner())
        .boxed()
}

fn tcp() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::default())
}

/// Counts what unknown peers send over a transport of byte streams.
fn watched<T>(
    transport: T,
    probation: &Probation,
) -> impl libp2p::Transport<
    Output = Watched<T::Output>,
    Error = T::Error,
    Dial: Send + 'static,
    ListenerUpgrade: Send + 'static,
> + Send
+ Unpin
+ use<T>
where
    T: libp2p::Transport<Dial: Send + 'static, ListenerUpgrade: Send + 'static> + Send + Unpin,
{
    let probation = probation.clone();
    transport.map(move |stream, endpoint| {
        let remote = Address::parse(endpoint.get_remote_address());
        probation
            .watch(remote.map(|address| address.socket()))
            .over(stream)
    })
}

/// The private network's key, Noise and Yamux over a byte stream.
fn secured<T>(transport: T, noise: Aside, private: Option<&private::Keys>, streams: u16) -> Boxed<Connected>
where
    T: libp2p::Transport<
            Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
            Error: Send + Sync + 'static,
            Dial: Send + 'static,
            ListenerUpgrade: Send + 'static,
        > + Send
        + Unpin
        + 'static,
{
    match private {
        Some(keys) => upgraded(keys.guard(transport), noise, streams),
        None => upgraded(transport, noise, streams),
    }
}

fn upgraded<T>(transport: T, noise: Aside, streams: u16) -> Boxed<Connected>
where
    T: libp2p::Transport<
            Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
            Error: Send + Sync + 'static,
            Dial: Send + 'static,
            ListenerUpgrade: Send + 'static,
        > + Send
        + Unpin
        + 'static,
{
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(streams.into());
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(muxer)
        .timeout(HANDSHAKE_DEADLINE)
        .boxed()
}
