//! How two members agree on a session: over a stream of their libp2p connection, so that the key is known to nobody
//! else. The protocol, `/peernet/stamp/1.0.0`, is one message each way:
//!
//! ```text
//! sender  ──►  32 random octets, wanted interval in microseconds (8 octets)
//!         ◄──  1: agreed, SSID (2 octets), UDP port (2 octets), IP address (16 octets), 32 random octets
//!              or 0: refused, and as many zeros
//! ```
//!
//! IPv4 addresses are mapped to IPv6 (`::ffff:a.b.c.d`). The unspecified one (`::`) stands for the address that the
//! connection goes to: only a reflector that knows its own address says it, since that of the connection may be another.
//!
//! The session's keys, one for each direction, are HKDF-SHA256 (RFC 5869) of both random halves, with the protocol's name
//! and both peer ids in the order of their roles as info. Peers are asked and answered only once the event loop has
//! accepted them as members; who asks earlier is answered then.

mod behaviour;
mod handler;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use hkdf::Hkdf;
use libp2p::{PeerId, StreamProtocol};
use sha2::Sha256;

pub use self::{
    behaviour::{Behaviour, Config, Event},
    handler::Handler,
};
use super::wire::{KEY, Key};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/peernet/stamp/1.0.0");
/// Octets that each side adds to the key.
const HALF: usize = 32;

/// A session's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Authenticates requests.
    pub requests: Key,
    /// Authenticates replies.
    pub replies: Key,
}

impl Keys {
    /// The keys that follow from both halves and both ends.
    #[must_use]
    pub fn agree(sender: (&PeerId, &[u8; HALF]), reflector: (&PeerId, &[u8; HALF])) -> Self {
        let protocol = PROTOCOL;
        let mut secret = [0; 2 * HALF];
        let halves = sender.1.iter().chain(reflector.1);
        secret.iter_mut().zip(halves).for_each(|(to, from)| *to = *from);
        let derive = |direction: &[u8]| {
            let mut key = [0; KEY];
            // Peer ids of Ed25519 keys are all equally long: the parts can't run into each other.
            let info = [
                protocol.as_ref().as_bytes(),
                &sender.0.to_bytes(),
                &reflector.0.to_bytes(),
                direction,
            ];
            match Hkdf::<Sha256>::new(None, &secret).expand_multi_info(&info, &mut key) {
                Ok(()) => Key::new(&key),
                // RFC 5869 limits the output to 255 hashes (8160 octets).
                Err(_) => unreachable!("HKDF gives up to 8160 octets"),
            }
        };
        Self {
            requests: derive(b"requests"),
            replies: derive(b"replies"),
        }
    }
}

/// A session in which this agent sends.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Who reflects.
    pub peer: PeerId,
    /// Where.
    pub ip: IpAddr,
    /// On which UDP port.
    pub port: u16,
    /// The session.
    pub ssid: u16,
    /// Its keys.
    pub keys: Keys,
}

/// A session in which this agent reflects.
#[derive(Clone, Debug)]
pub struct Reflecting {
    /// Who sends.
    pub peer: PeerId,
    /// The session.
    pub ssid: u16,
    /// Its keys.
    pub keys: Keys,
    /// How often the peer sends.
    pub interval: Duration,
}

/// The sender's message.
#[derive(Clone, Copy)]
struct Ask {
    half: [u8; HALF],
    interval: Duration,
}

/// The reflector's message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    Agreed {
        ssid: u16,
        /// Where to send, if the reflector knows.
        address: Option<IpAddr>,
        port: u16,
        half: [u8; HALF],
    },
    Refused,
}

/// Length of [`Ask`] and [`Offer`] on the wire, in octets.
const ASK: usize = HALF + 8;
const OFFER: usize = 5 + 16 + HALF;

impl Ask {
    fn to_bytes(self) -> [u8; ASK] {
        let micros = u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX);
        joined(&[&self.half, &micros.to_be_bytes()])
    }

    fn from_bytes(bytes: &[u8; ASK]) -> Option<Self> {
        let (half, rest) = bytes.split_first_chunk::<HALF>()?;
        let micros = u64::from_be_bytes(*rest.first_chunk()?);
        Some(Self {
            half: *half,
            interval: Duration::from_micros(micros),
        })
    }
}

impl Offer {
    fn to_bytes(self) -> [u8; OFFER] {
        match self {
            Self::Agreed {
                ssid,
                address,
                port,
                half,
            } => {
                let address = match address {
                    None => Ipv6Addr::UNSPECIFIED,
                    Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
                    Some(IpAddr::V6(v6)) => v6,
                };
                let numbers = [ssid.to_be_bytes(), port.to_be_bytes()];
                joined(&[&[1], numbers.as_flattened(), &address.octets(), &half])
            }
            Self::Refused => [0; OFFER],
        }
    }

    /// `None` for what a member does not say.
    fn from_bytes(bytes: &[u8; OFFER]) -> Option<Self> {
        let ([agreed, s0, s1, p0, p1], rest) = bytes.split_first_chunk::<5>()?;
        let (address, half) = rest.split_first_chunk::<16>()?;
        let address = Ipv6Addr::from(*address).to_canonical();
        match agreed {
            0 => Some(Self::Refused),
            1 => Some(Self::Agreed {
                ssid: u16::from_be_bytes([*s0, *s1]),
                address: (!address.is_unspecified()).then_some(address),
                port: u16::from_be_bytes([*p0, *p1]),
                half: *half.first_chunk()?,
            }),
            _ => None,
        }
    }
}

/// The halves are secret.
impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ask({:?})", self.interval)
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agreed {
                ssid, address, port, ..
            } => write!(f, "Agreed({ssid}, {address:?}, {port})"),
            Self::Refused => f.write_str("Refused"),
        }
    }
}

fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut all = [0; N];
    let octets = parts.iter().flat_map(|part| part.iter());
    all.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stamp::{
        clock::Wall,
        wire::{self, Request},
    };

    #[test]
    fn keys_differ_by_halves_ends_and_direction() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let keys = Keys::agree((&a, &[1; HALF]), (&b, &[2; HALF]));
        let request = Request {
            seq: 1,
            ssid: 2,
            sent: Wall(3),
        };
        let packet = wire::request(&keys.requests, &request);
        let same = Keys::agree((&a, &[1; HALF]), (&b, &[2; HALF]));
        assert_eq!(wire::parse_request(&same.requests, &packet), Some(request));
        for other in [
            Keys::agree((&b, &[1; HALF]), (&a, &[2; HALF])),
            Keys::agree((&a, &[2; HALF]), (&b, &[1; HALF])),
            Keys::agree((&a, &[1; HALF]), (&b, &[3; HALF])),
            Keys::agree((&a, &[1; HALF]), (&PeerId::random(), &[2; HALF])),
        ] {
            assert_eq!(wire::parse_request(&other.requests, &packet), None);
        }
        assert_eq!(wire::parse_request(&same.replies, &packet), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let ask = Ask {
            half: [0xab; HALF],
            interval: Duration::from_secs(1),
        };
        let offer = Offer::Agreed {
            ssid: 1,
            address: None,
            port: 2,
            half: [0xab; HALF],
        };
        let keys = Keys::agree((&PeerId::random(), &[1; HALF]), (&PeerId::random(), &[2; HALF]));
        assert_eq!(
            format!("{ask:?} {offer:?} {keys:?}"),
            "Ask(1s) Agreed(1, None, 2) Keys { requests: Key, replies: Key }"
        );
    }

    fn address() -> impl Strategy<Value = Option<IpAddr>> {
        prop_oneof![
            Just(None),
            any::<u32>().prop_map(|v4| Some(IpAddr::from((v4 | 1).to_be_bytes()))),
            any::<u64>().prop_map(|v6| Some(IpAddr::from((u128::from(v6) | 0xfd << 120).to_be_bytes()))),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_the_way(half: [u8; HALF], micros: u64, ssid: u16, port: u16, address in address()) {
            let ask = Ask { half, interval: Duration::from_micros(micros) };
            let back = Ask::from_bytes(&ask.to_bytes()).unwrap();
            prop_assert_eq!((back.half, back.interval), (ask.half, ask.interval));
            let offer = Offer::Agreed { ssid, address, port, half };
            prop_assert_eq!(Offer::from_bytes(&offer.to_bytes()), Some(offer));
        }

        #[test]
        fn noise_is_no_message_or_one_that_says_the_same_again(first in 2..=255_u8, half: [u8; HALF], rest: [u8; 20]) {
            let noise: [u8; OFFER] = joined(&[&[first], &rest, &half]);
            prop_assert!(Offer::from_bytes(&noise).is_none());
        }
    }
}
