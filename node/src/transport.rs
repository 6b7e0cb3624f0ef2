//! TCP, encrypted by Noise, multiplexed by Yamux.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        Transport,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};

/// From the first packet to the end of both handshakes.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Streams on one connection. yamux gives each a window of 256 KiB: this bounds what one peer can make us hold.
const MAX_STREAMS: usize = 32;

/// The agent's only transport.
///
/// # Errors
/// If the key does not fit Noise.
pub fn build(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(MAX_STREAMS);
    let tcp = OwnPort(tcp::tokio::Transport::new(tcp::Config::default()));
    Ok(tcp
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(muxer)
        .timeout(HANDSHAKE_DEADLINE)
        .boxed())
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
