//! Addresses of agents: a transport, and where it listens.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};
use peernet_api::transport::Transport;

/// Where one agent's transport can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    transport: Transport,
    socket: SocketAddr,
}

impl Address {
    /// The address of a transport.
    #[must_use]
    pub const fn new(transport: Transport, socket: SocketAddr) -> Self {
        Self { transport, socket }
    }

    /// The address of plain TCP.
    #[must_use]
    pub const fn tcp(socket: SocketAddr) -> Self {
        Self::new(Transport::Tcp, socket)
    }

    /// What a multiaddr says, with or without `/p2p/…` behind it. `None` for transports that agents don't speak.
    #[must_use]
    pub fn parse(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter().peekable();
        let ip: IpAddr = match parts.next()? {
            Protocol::Ip4(ip) => ip.into(),
            Protocol::Ip6(ip) => ip.into(),
            _ => return None,
        };
        let (transport, port) = match parts.next()? {
            Protocol::Tcp(port) if parts.next_if(is_plain_websocket).is_some() => {
                (Transport::WebSocket, port)
            }
            Protocol::Tcp(port) => (Transport::Tcp, port),
            Protocol::Udp(port) if parts.next_if_eq(&Protocol::QuicV1).is_some() => (Transport::Quic, port),
            _ => return None,
        };
        let rest_fits = match parts.next() {
            None => true,
            Some(Protocol::P2p(_)) => parts.next().is_none(),
            Some(_) => false,
        };
        rest_fits.then(|| Self::new(transport, SocketAddr::new(ip, port)))
    }

    /// The transport.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// The IP address, and the port of TCP or UDP.
    #[must_use]
    pub const fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// The IP address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        self.socket.ip()
    }
}

/// At the root of a host: the only path that agents serve.
fn is_plain_websocket(part: &Protocol<'_>) -> bool {
    matches!(part, Protocol::Ws(path) if path.is_empty() || path == "/")
}

impl From<Address> for Multiaddr {
    fn from(Address { transport, socket }: Address) -> Self {
        let host = Self::from(socket.ip());
        match transport {
            Transport::Tcp => host.with(Protocol::Tcp(socket.port())),
            Transport::Quic => host.with(Protocol::Udp(socket.port())).with(Protocol::QuicV1),
            Transport::WebSocket => host
                .with(Protocol::Tcp(socket.port()))
                .with(Protocol::Ws("/".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_agents_speak_is_an_address() {
        let id = libp2p::PeerId::random();
        for (text, expected) in [
            (
                "/ip4/10.0.0.1/tcp/4001".to_owned(),
                Some((Transport::Tcp, "10.0.0.1:4001")),
            ),
            (
                format!("/ip6/fd00::1/tcp/4001/p2p/{id}"),
                Some((Transport::Tcp, "[fd00::1]:4001")),
            ),
            (
                "/ip4/10.0.0.1/udp/4001/quic-v1".to_owned(),
                Some((Transport::Quic, "10.0.0.1:4001")),
            ),
            (
                format!("/ip4/10.0.0.1/tcp/4002/ws/p2p/{id}"),
                Some((Transport::WebSocket, "10.0.0.1:4002")),
            ),
            ("/ip4/10.0.0.1/udp/4001".to_owned(), None),
            ("/ip4/10.0.0.1/udp/4001/quic".to_owned(), None),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/webtransport".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4002/wss".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4002/tls/ws".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4002/x-parity-ws/%2Fpath".to_owned(), None),
            (format!("/ip4/10.0.0.1/tcp/4001/p2p/{id}/p2p-circuit"), None),
            ("/dns4/a/tcp/4001".to_owned(), None),
        ] {
            let expected =
                expected.map(|(transport, socket)| Address::new(transport, socket.parse().unwrap()));
            assert_eq!(Address::parse(&text.parse().unwrap()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_address_is_read_back(ip in any::<IpAddr>(), port in any::<u16>(), n in 0_usize..3) {
            let address = Address::new(Transport::ALL[n], SocketAddr::new(ip, port));
            prop_assert_eq!(Address::parse(&address.into()), Some(address));
        }
    }
}
