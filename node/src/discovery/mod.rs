//! How agents find each other. [`planner`] decides whom to dial and is pure; [`dns`] and [`mdns`] bring it news.

pub mod dns;
pub mod mdns;
pub mod planner;

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// Most addresses kept of one peer: what a peer says about itself is bounded, too.
pub const MAX_ADDRESSES: usize = 8;

/// The TCP address in `/ip4/…/tcp/…` or `/ip6/…/tcp/…`, with or without `/p2p/…` behind it. Nothing else is dialed.
#[must_use]
pub fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else {
        return None;
    };
    let rest_fits = match parts.next() {
        None => true,
        Some(Protocol::P2p(_)) => parts.next().is_none(),
        Some(_) => false,
    };
    rest_fits.then(|| SocketAddr::new(ip, port))
}

/// The multiaddr of a TCP address.
#[must_use]
pub fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// Of the addresses that a peer says it listens on, those worth dialing: TCP, no wildcard, and loopback only for those
/// who talk to us over loopback (an agent on the host's network lists its loopback address, too: dialed from another
/// host, that is the dialer itself).
pub fn dialable<'a>(
    addresses: impl IntoIterator<Item = &'a Multiaddr> + 'a,
    seen_from: Option<IpAddr>,
) -> impl Iterator<Item = SocketAddr> + 'a {
    let local = seen_from.is_some_and(|ip| ip.is_loopback());
    addresses
        .into_iter()
        .filter_map(socket_addr)
        .filter(move |address| {
            let ip = address.ip();
            !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0 && (local || !ip.is_loopback())
        })
        .take(MAX_ADDRESSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_tcp_is_dialed() {
        let id = libp2p::PeerId::random();
        for (text, expected) in [
            ("/ip4/10.0.0.1/tcp/4001".to_owned(), Some("10.0.0.1:4001")),
            (format!("/ip6/fd00::1/tcp/4001/p2p/{id}"), Some("[fd00::1]:4001")),
            ("/ip4/10.0.0.1/udp/4001/quic-v1".to_owned(), None),
            ("/ip4/10.0.0.1/tcp/4001/ws".to_owned(), None),
            (format!("/ip4/10.0.0.1/tcp/4001/p2p/{id}/p2p-circuit"), None),
            ("/dns4/a/tcp/4001".to_owned(), None),
        ] {
            let got = socket_addr(&text.parse().unwrap());
            assert_eq!(got, expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_a_peer_says_of_itself_is_filtered_and_bounded() {
        let addresses: Vec<Multiaddr> = [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/0",
        ]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .chain((1..100).map(|port| multiaddr(SocketAddr::from(([10, 0, 0, 2], port)))))
        .collect();
        assert_eq!(dialable(&addresses, None).count(), MAX_ADDRESSES);
        assert!(dialable(&addresses, None).all(|address| address.ip().to_string() == "10.0.0.2"));
        let loopback = Some("127.0.0.1".parse().unwrap());
        assert_eq!(
            dialable(&addresses, loopback).next(),
            Some("127.0.0.1:1".parse().unwrap())
        );
    }
}
