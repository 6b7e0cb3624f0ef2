//! Dials from a port of its own, and not from the port that the agent listens on.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr,
    core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent},
};

/// Dials from a port of its own.
///
/// libp2p's default helps through NATs. Between pods it does harm: two agents that dial each other at once would meet
/// in one TCP connection on which both are the dialer, and a connection that was cut would block the next one between
/// the same two ports until the kernel forgets it.
#[derive(Debug)]
pub(super) struct OwnPort<T>(pub(super) T);

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
