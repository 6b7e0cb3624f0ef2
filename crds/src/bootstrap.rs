//! Addresses of hosts that agents connect to at the start.

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

/// Why an address can't be used as a bootstrap peer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidBootstrapPeer {
    /// It is no multiaddr.
    #[error("{0:?} is not a multiaddr: {1}")]
    NotAMultiaddr(String, String),
    /// It is a multiaddr that agents can't dial.
    #[error(
        "{0:?} can't be dialed: write /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT, /tcp/PORT/ws or /udp/PORT/quic-v1, and /p2p/PEER-ID"
    )]
    NotDialable(String),
}

/// Reads the address of a bootstrap peer: a host, a transport with its port, and a peer id. Returns the address without the peer id, and
/// the peer id.
///
/// # Errors
/// [`InvalidBootstrapPeer`] says what to write instead.
pub fn parse(text: &str) -> Result<(Multiaddr, PeerId), InvalidBootstrapPeer> {
    let mut address: Multiaddr = text
        .parse()
        .map_err(|error| InvalidBootstrapPeer::NotAMultiaddr(text.to_owned(), format!("{error}")))?;
    let parts: Vec<_> = address.iter().collect();
    let (host, transport, peer) = match parts.as_slice() {
        [host, transport @ .., Protocol::P2p(peer)] => (host, transport, *peer),
        _ => return Err(InvalidBootstrapPeer::NotDialable(text.to_owned())),
    };
    let is_host = matches!(
        host,
        Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)
    );
    let is_transport = match transport {
        [Protocol::Tcp(1..)] | [Protocol::Udp(1..), Protocol::QuicV1] => true,
        [Protocol::Tcp(1..), Protocol::Ws(path)] => path == "/",
        _ => false,
    };
    if !is_host || !is_transport {
        return Err(InvalidBootstrapPeer::NotDialable(text.to_owned()));
    }
    drop(parts);
    address.pop();
    Ok((address, peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NetworkSecret;

    #[test]
    fn hosts_with_a_port_and_a_peer_id_are_read() {
        let peer = NetworkSecret::new(&[1; 32]).unwrap().peer_id("boot");
        for host in [
            "/ip4/192.0.2.7",
            "/ip6/2001:db8::1",
            "/dns/boot.example",
            "/dns4/boot.example",
        ] {
            for transport in ["tcp/4001", "udp/4001/quic-v1", "tcp/4002/ws"] {
                let (address, id) = parse(&format!("{host}/{transport}/p2p/{peer}")).unwrap();
                assert_eq!((address.to_string(), id), (format!("{host}/{transport}"), peer));
            }
        }
    }

    #[test]
    fn what_agents_cannot_dial_is_refused() {
        let peer = NetworkSecret::new(&[1; 32]).unwrap().peer_id("boot");
        for text in [
            "/ip4/1.2.3/tcp/1/p2p/x",
            "192.0.2.7:4001",
            "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWnotanid",
        ] {
            assert!(
                matches!(parse(text), Err(InvalidBootstrapPeer::NotAMultiaddr(..))),
                "{text}"
            );
        }
        for text in [
            "/ip4/192.0.2.7/tcp/4001".to_owned(),
            format!("/ip4/192.0.2.7/tcp/0/p2p/{peer}"),
            format!("/ip4/192.0.2.7/udp/4001/p2p/{peer}"),
            format!("/ip4/192.0.2.7/tcp/4001/wss/p2p/{peer}"),
            format!("/p2p/{peer}"),
        ] {
            assert!(
                matches!(parse(&text), Err(InvalidBootstrapPeer::NotDialable(_))),
                "{text}"
            );
        }
    }
}
