//! TCP, encrypted by Noise, multiplexed by Yamux. In a private network all of it is encrypted with the pre-shared key, too.
//! Circuits through relays carry Noise and Yamux once more, from end to end.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Transport,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, OrTransport, PortUse, TransportError, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, relay, tcp, yamux,
};

use crate::private;

/// From the first packet to the end of both handshakes.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Streams on one connection. yamux gives each a window of 256 KiB: this bounds what one peer can make us hold.
const MAX_STREAMS: usize = 32;
/// Streams on one connection where there are relays: each circuit takes one, on both of its connections.
const MAX_STREAMS_WITH_CIRCUITS: usize = 192;

/// The agent's only transport, if it uses no relays. `private`: the keys of the private network, if it is one.
///
/// # Errors
/// If the key does not fit Noise.
pub fn build(
    key: &Keypair,
    private: Option<&private::Keys>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let noise = noise::Config::new(key)?;
    let tcp = OwnPort(tcp::tokio::Transport::new(tcp::Config::default()));
    Ok(match private {
        Some(keys) => upgraded(keys.guard(tcp), noise, MAX_STREAMS),
        None => upgraded(tcp, noise, MAX_STREAMS),
    })
}

/// The agent's transport with relays. Where a dial does not say otherwise, it leaves from the port that the agent listens on:
/// that is how two ends behind firewalls meet.
///
/// # Errors
/// If the key does not fit Noise.
pub fn build_with_relays(
    key: &Keypair,
    private: Option<&private::Keys>,
    circuits: relay::client::Transport,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let noise = noise::Config::new(key)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default());
    Ok(match private {
        // Both ways to and from the relay are guarded.
        Some(keys) => {
            let both = OrTransport::new(circuits, keys.guard(tcp));
            upgraded(both, noise, MAX_STREAMS_WITH_CIRCUITS)
        }
        None => upgraded(OrTransport::new(circuits, tcp), noise, MAX_STREAMS_WITH_CIRCUITS),
    })
}

fn upgraded<T>(transport: T, noise: noise::Config, max_streams: usize) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<
            Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
            Error: Send + Sync + 'static,
            Dial: Send + 'static,
            ListenerUpgrade: Send + 'static,
        > + Send
        + Unpin
        + 'static,
{
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(max_streams);
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(muxer)
        .timeout(HANDSHAKE_DEADLINE)
        .boxed()
}

/// Dials from a port of its own, and not from the port that the agent listens on.
///
/// libp2p's default helps through NATs. Between pods it does harm: two agents that dial each other at once would meet
/// in one TCP connection on which both are the dialer, and a connection that was cut would block the next one between
/// the same two ports until the kernel forgets it.
#[derive(Debug)]
struct OwnPort<T>(T);

impl<T: Transport + Unpin> Transport for OwnPort<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.0.dial(
            address,
            DialOpts {
                port_use: PortUse::New,
                ..options
            },
        )
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}
