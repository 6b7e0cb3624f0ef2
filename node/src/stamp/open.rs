//! Answers to unauthenticated probes of anybody, where the resource asks for that. Pure.
//!
//! The mode of RFC 8762, sections 4.2.1 and 4.3.1, so that other session-senders can measure to an agent: stateless, the
//! sender's sequence number is repeated. A reply is as long as its request and rate-limited, in all and by source, since
//! source addresses can be forged. Of the TLVs (RFC 8972) only padding means something without a session and a key: all
//! others come back as not understood.

use std::{net::IpAddr, time::Duration};

use super::{
    clock::{Reading, Wall},
    wire::{ERROR_ESTIMATE, FLAG_U, TYPE_TELEMETRY, timestamp},
};
use crate::{
    bucket::{Bucket, BySource, Rate},
    ledger::Moment,
};

/// Length of an unauthenticated packet without TLVs, in octets.
pub const BASE: usize = 44;
/// Longer packets are not answered: what fits into an Ethernet frame is enough.
pub const LONGEST: usize = 1472;

/// Answers in all: 100 a second.
const TOTAL: Rate = Rate {
    each: Duration::from_millis(10),
    burst: 100,
};
/// Answers to one source: 20 a second.
const SOURCE: Rate = Rate {
    each: Duration::from_millis(50),
    burst: 20,
};
/// Sources that are told apart.
const SOURCES: usize = 256;

const FLAG_M: u8 = 0x40;
const TYPE_RESERVED: u8 = 0;
const TYPE_PADDING: u8 = 1;

/// The reflector for strangers.
#[derive(Debug)]
pub struct OpenReflector {
    total: Bucket<Moment>,
    sources: BySource<Moment>,
}

impl Default for OpenReflector {
    fn default() -> Self {
        Self {
            total: Bucket::new(TOTAL, Moment::ZERO),
            sources: BySource::new(SOURCE, SOURCES),
        }
    }
}

impl OpenReflector {
    /// Whether a source gets another answer.
    pub fn allows(&mut self, source: IpAddr, now: &Reading) -> bool {
        self.sources.take(source, now.after) && self.total.take(now.after)
    }
}

/// The reply to an unauthenticated request, as long as the request. `None` if this can't be one.
#[must_use]
pub fn answer(request: &[u8], ttl: u8, received: Wall, sent: Wall) -> Option<Vec<u8>> {
    if request.len() > LONGEST {
        return None;
    }
    let (base, tlvs) = request.split_first_chunk::<BASE>()?;
    // Sequence number, timestamp and error estimate.
    let sender: &[u8; 14] = base.first_chunk()?;
    let seq: &[u8; 4] = base.first_chunk()?;
    let (_, rest) = base.split_first_chunk::<14>()?;
    let ssid: &[u8; 2] = rest.first_chunk()?;
    let mut reply = Vec::with_capacity(request.len());
    reply.extend_from_slice(seq);
    reply.extend_from_slice(&timestamp(sent));
    reply.extend_from_slice(&ERROR_ESTIMATE);
    reply.extend_from_slice(ssid);
    reply.extend_from_slice(&timestamp(received));
    reply.extend_from_slice(sender);
    reply.extend_from_slice(&[0, 0, ttl, 0, 0, 0]);
    reply_tlvs(tlvs, &mut reply);
    Some(reply)
}

/// Copies TLVs with the flags of a reflector (RFC 8972, section 4). Padding without any TLV, as TWAMP Light sends it, comes
/// back as it is.
fn reply_tlvs(mut rest: &[u8], reply: &mut Vec<u8>) {
    while let Some(([_, kind, high, low], value)) = rest.split_first_chunk::<4>() {
        if *kind == TYPE_RESERVED {
            break;
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let known = matches!(*kind, TYPE_PADDING | TYPE_TELEMETRY);
        let unknown = if known { 0 } else { FLAG_U };
        let whole = value.split_at_checked(length);
        let malformed = match whole {
            None => FLAG_M,
            Some(_) if *kind == TYPE_TELEMETRY && length != 16 => FLAG_M,
            Some(_) => 0,
        };
        reply.extend_from_slice(&[unknown | malformed, *kind, *high, *low]);
        let Some((value, next)) = whole else {
            rest = value;
            break;
        };
        if *kind == TYPE_TELEMETRY {
            // A stateless reflector leaves it zero (RFC 8972, section 4.7), whatever came.
            reply.resize(reply.len() + value.len(), 0);
        } else {
            reply.extend_from_slice(value);
        }
        rest = next;
    }
    reply.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by hand from the figures of RFC 8762, 4.2.1 and 4.3.1, with the SSID of RFC 8972.
    #[test]
    fn a_reply_has_the_octets_of_the_rfc() {
        let mut request = vec![0, 0, 0, 9];
        request.extend([0x65, 0x53, 0xf1, 0x00, 0x00, 0x00, 0x00, 0x05]);
        request.extend([0x80, 0x01, 0x12, 0x34]);
        request.extend([0; 28]);
        request.extend([0x80, 1, 0, 2, 0xaa, 0xbb]);
        request.extend([0x80, 7, 0, 16]);
        request.extend([0x55; 16]);
        request.extend([0x80, 9, 0, 1, 0x77]);
        request.extend([0x80, 8, 0, 16, 1]);
        let received = Wall(1_700_000_000 * Wall::SECOND + 1);
        let sent = Wall(1_700_000_001 * Wall::SECOND + 999_999_999);
        let mut expected = vec![0, 0, 0, 9];
        expected.extend([0x65, 0x53, 0xf1, 0x01, 0x3b, 0x9a, 0xc9, 0xff]);
        expected.extend([0x40, 0x01, 0x12, 0x34]);
        expected.extend([0x65, 0x53, 0xf1, 0x00, 0x00, 0x00, 0x00, 0x01]);
        expected.extend([0, 0, 0, 9]);
        expected.extend([0x65, 0x53, 0xf1, 0x00, 0x00, 0x00, 0x00, 0x05]);
        expected.extend([0x80, 0x01, 0, 0]);
        expected.extend([64, 0, 0, 0]);
        expected.extend([0x00, 1, 0, 2, 0xaa, 0xbb]);
        expected.extend([0x00, 7, 0, 16]);
        expected.extend([0; 16]);
        expected.extend([0x80, 9, 0, 1, 0x77]);
        expected.extend([0xc0, 8, 0, 16, 1]);
        assert_eq!(answer(&request, 64, received, sent), Some(expected));
    }

    #[test]
    fn plain_padding_comes_back() {
        let mut request = vec![7; BASE];
        request.extend([0; 100]);
        let reply = answer(&request, 0, Wall(0), Wall(0)).unwrap();
        assert_eq!(reply[BASE..], request[BASE..]);
    }

    #[test]
    fn what_is_too_short_or_too_long_gets_nothing() {
        for length in [0, 1, 43, LONGEST + 1, 9000] {
            assert_eq!(answer(&vec![0; length], 0, Wall(0), Wall(0)), None, "{length}");
        }
    }

    #[test]
    fn one_source_can_not_use_up_what_others_get() {
        let mut open = OpenReflector::default();
        let now = Reading {
            after: Duration::from_secs(9),
            ..Reading::default()
        };
        let greedy = IpAddr::from([192, 0, 2, 1]);
        assert_eq!((0..1000).filter(|_| open.allows(greedy, &now)).count(), 20);
        let others = (0..250_u8).filter(|n| open.allows(IpAddr::from([192, 0, 3, *n]), &now));
        assert_eq!(others.count(), 80, "100 in all");
        for n in 0..=255 {
            for m in 0..8 {
                open.allows(IpAddr::from([10, 0, m, n]), &now);
            }
        }
        assert_eq!(open.sources.left(greedy, now.after), 0, "it is not forgotten");
    }

    proptest! {
        #[test]
        fn no_reply_is_longer_than_its_request(request in prop::collection::vec(any::<u8>(), 0..300), ttl: u8) {
            if let Some(reply) = answer(&request, ttl, Wall(1), Wall(2)) {
                prop_assert_eq!(reply.len(), request.len());
            }
        }

        #[test]
        fn tlvs_of_any_shape_keep_their_length(
            tlvs in prop::collection::vec((any::<u8>(), 0..10_u8, prop::collection::vec(any::<u8>(), 0..20), 0..4_u16), 0..5),
        ) {
            let mut request = vec![0; BASE];
            for (flags, kind, value, wrong) in tlvs {
                let length = (u16::try_from(value.len()).unwrap() + wrong).to_be_bytes();
                request.extend([flags, kind, length[0], length[1]]);
                request.extend(value);
            }
            let reply = answer(&request, 1, Wall(1), Wall(2)).unwrap();
            prop_assert_eq!(reply.len(), request.len());
        }
    }
}
