//! How agents find each other. [`planner`] decides whom to dial and is pure; [`dns`] and [`mdns`] bring it news.

pub mod address;
pub mod dns;
pub mod mdns;
pub mod planner;

use std::net::IpAddr;

use libp2p::Multiaddr;
use peernet_api::transport::Transport;

pub use self::address::Address;

/// Most addresses kept of one peer and transport: what a peer says about itself is bounded, too.
pub const MAX_ADDRESSES: usize = 8;

/// Of the addresses that a peer says it listens on, those worth dialing: our transports, no wildcard, and loopback only for those
/// who talk to us over loopback (an agent on the host's network lists its loopback address, too: dialed from another
/// host, that is the dialer itself).
pub fn dialable<'a>(
    addresses: impl IntoIterator<Item = &'a Multiaddr> + 'a,
    seen_from: Option<IpAddr>,
    transports: &'a [Transport],
) -> impl Iterator<Item = Address> + 'a {
    let local = seen_from.is_some_and(|ip| ip.is_loopback());
    let mut taken = [0_usize; Transport::ALL.len()];
    addresses
        .into_iter()
        .filter_map(Address::parse)
        .filter(move |address| {
            let ip = address.ip();
            transports.contains(&address.transport())
                && !ip.is_unspecified()
                && !ip.is_multicast()
                && address.socket().port() != 0
                && (local || !ip.is_loopback())
        })
        .filter(move |address| {
            let of_transport = Transport::ALL
                .iter()
                .zip(&mut taken)
                .find(|(transport, _)| **transport == address.transport());
            of_transport.is_some_and(|(_, taken)| {
                *taken += 1;
                *taken <= MAX_ADDRESSES
            })
        })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn what_a_peer_says_of_itself_is_filtered_and_bounded() {
        let addresses: Vec<Multiaddr> = [
            "/ip4/10.0.0.3/udp/1/quic-v1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/0",
        ]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .chain((1..100).map(|port| Address::tcp(SocketAddr::from(([10, 0, 0, 2], port))).into()))
        .collect();
        let tcp = [Transport::Tcp];
        assert_eq!(dialable(&addresses, None, &tcp).count(), MAX_ADDRESSES);
        assert!(dialable(&addresses, None, &tcp).all(|address| address.ip().to_string() == "10.0.0.2"));
        assert_eq!(
            dialable(&addresses, None, &Transport::ALL).count(),
            MAX_ADDRESSES + 1
        );
        let loopback = Some("127.0.0.1".parse().unwrap());
        assert_eq!(
            dialable(&addresses, loopback, &tcp).next(),
            Some(Address::tcp("127.0.0.1:1".parse().unwrap()))
        );
    }
}
