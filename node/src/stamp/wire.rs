//! STAMP's packets: octets in, fields out, and back. Pure.
//!
//! Members speak the authenticated mode ([RFC 8762](https://www.rfc-editor.org/rfc/rfc8762), sections 4.2.2 and 4.3.2)
//! with a session identifier (SSID) and two TLVs ([RFC 8972](https://www.rfc-editor.org/rfc/rfc8972), sections 3, 4.7
//! and 4.8). A reply is exactly as long as its request, so that nobody gains by a forged source address:
//!
//! ```text
//! octets    request                        reply
//!   0- 3    sequence number                the reflector's own sequence number
//!   4-15    zero                           zero
//!  16-23    timestamp                      timestamp (t3, as the program knows it)
//!  24-25    error estimate                 error estimate
//!  26-27    SSID                           SSID
//!  28-31    zero                           zero
//!  32-39    zero                           receive timestamp (t2)
//!  40-47    zero                           zero
//!  48-51    zero                           the request's sequence number
//!  52-63    zero                           zero
//!  64-73    zero                           the request's timestamp and error estimate
//!  74-79    zero                           zero
//!  80       zero                           TTL or hop limit that the request came with
//!  81-95    zero                           zero
//!  96-111   HMAC of octets 0-95            HMAC of octets 0-95
//! 112-131   Follow-Up Telemetry TLV, zero  Follow-Up Telemetry TLV: when the reply before left the host
//! 132-151   HMAC TLV                       HMAC TLV
//! ```
//!
//! The HMAC TLV covers the sequence number and the TLV before it. Its own header, which no HMAC covers, must be exactly
//! what we would write. All HMACs are HMAC-SHA-256 cut to 128 bits (RFC 8762, section 4.4). Timestamps are truncated PTPv2
//! (Z is set in the error estimate): 32 bits of seconds, 32 bits of nanoseconds.

use hmac::{Hmac, KeyInit, Mac};
use peernet_api::report::StampClock;
use sha2::Sha256;

use super::clock::Wall;

/// Length of an authenticated packet without TLVs, in octets.
pub const BASE: usize = 112;
/// Length of every packet between members, in octets: requests and replies are equally long.
pub const PROBE: usize = BASE + TELEMETRY_TLV + HMAC_TLV;
/// Length of a session's keys, in octets.
pub const KEY: usize = 32;

/// What the base's HMAC covers.
const COVERED: usize = 96;
const TAG: usize = 16;
const TLV_HEADER: usize = 4;
const TELEMETRY_TLV: usize = TLV_HEADER + 16;
const HMAC_TLV: usize = TLV_HEADER + TAG;

/// "Unrecognized": requests have it set, and whoever knows the TLV clears it in the reply (RFC 8972, section 4).
pub(super) const FLAG_U: u8 = 0x80;
pub(super) const TYPE_TELEMETRY: u8 = 7;
pub(super) const TYPE_HMAC: u8 = 8;

/// Not synchronized (S = 0), truncated PTPv2 (Z = 1), and the least error that can be said: 2^-32 s. Nobody compares
/// the clocks of two hosts here, so that there is no better one to state; zero would mean that the stamps are void.
pub(super) const ERROR_ESTIMATE: [u8; 2] = [0x40, 0x01];

/// Timestamp modes of the Follow-Up Telemetry TLV (RFC 8972, section 4.7): by software where packets leave and enter, or
/// by whatever runs above.
const MODE_SW_LOCAL: u8 = 2;
const MODE_CONTROL_PLANE: u8 = 3;

/// A session's key for one direction. Never printed.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// A key of random or derived octets.
    #[must_use]
    pub fn new(bytes: &[u8; KEY]) -> Self {
        match Hmac::new_from_slice(bytes) {
            Ok(hmac) => Self(hmac),
            // RFC 2104 allows every length.
            Err(_) => unreachable!("HMAC takes keys of any length"),
        }
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; TAG] {
        let whole: [u8; 32] = self.over(parts).finalize().into_bytes().into();
        let mut tag = [0; TAG];
        tag.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        tag
    }

    /// Compares in constant time.
    fn verifies(&self, parts: &[&[u8]], tag: &[u8; TAG]) -> bool {
        self.over(parts).verify_truncated_left(tag).is_ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// A session-sender's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Counts the sender's packets.
    pub seq: u32,
    /// The session.
    pub ssid: u16,
    /// When it was sent, as the program knows it. The reply repeats it.
    pub sent: Wall,
}

/// A session-reflector's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Counts the reflector's packets in this session: gaps tell what was lost on the way back.
    pub seq: u32,
    /// The session.
    pub ssid: u16,
    /// t3 as the program knows it.
    pub sent: Wall,
    /// t2.
    pub received: Wall,
    /// The request that this answers.
    pub request: u32,
    /// The request's timestamp.
    pub request_sent: Wall,
    /// TTL or hop limit that the request came with. 0: not known.
    pub ttl: u8,
    /// When an earlier reply left the host.
    pub follow_up: Option<FollowUp>,
}

/// When a reply left the host, told by the next one: the kernel knows only after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// The reply's own sequence number.
    pub seq: u32,
    /// t3.
    pub sent: Wall,
    /// The worse clock of t2 and t3.
    pub clock: StampClock,
}

/// Writes a request.
#[must_use]
pub fn request(key: &Key, request: &Request) -> [u8; PROBE] {
    let mut out = Writer::default();
    out.put(&request.seq.to_be_bytes());
    out.skip(12);
    out.put(&timestamp(request.sent));
    out.put(&ERROR_ESTIMATE);
    out.put(&request.ssid.to_be_bytes());
    out.skip(68);
    out.seal_base(key);
    out.put(&tlv_header(FLAG_U, TYPE_TELEMETRY, TELEMETRY_TLV));
    out.skip(TELEMETRY_TLV - TLV_HEADER);
    out.seal_tlvs(key, FLAG_U);
    out.packet
}

/// Reads a request. `None` unless it is exactly what a member that has the key writes.
#[must_use]
pub fn parse_request(key: &Key, packet: &[u8]) -> Option<Request> {
    let mut packet = Reader::verified(key, packet, FLAG_U)?;
    let seq = u32::from_be_bytes(packet.take()?);
    packet.skip::<12>()?;
    let sent = wall(packet.take()?)?;
    packet.error_estimate()?;
    let ssid = u16::from_be_bytes(packet.take()?);
    Some(Request { seq, ssid, sent })
}

/// The session that a packet between members claims to be of. Nothing of it is proven yet.
#[must_use]
pub fn claimed_ssid(packet: &[u8]) -> Option<u16> {
    let packet: &[u8; PROBE] = packet.try_into().ok()?;
    let (_, rest) = packet.split_first_chunk::<26>()?;
    rest.first_chunk().map(|ssid| u16::from_be_bytes(*ssid))
}

/// Writes a reply.
#[must_use]
pub fn reply(key: &Key, reply: &Reply) -> [u8; PROBE] {
    let mut out = Writer::default();
    out.put(&reply.seq.to_be_bytes());
    out.skip(12);
    out.put(&timestamp(reply.sent));
    out.put(&ERROR_ESTIMATE);
    out.put(&reply.ssid.to_be_bytes());
    out.skip(4);
    out.put(&timestamp(reply.received));
    out.skip(8);
    out.put(&reply.request.to_be_bytes());
    out.skip(12);
    out.put(&timestamp(reply.request_sent));
    out.put(&ERROR_ESTIMATE);
    out.skip(6);
    out.put(&[reply.ttl]);
    out.skip(15);
    out.seal_base(key);
    out.put(&tlv_header(0, TYPE_TELEMETRY, TELEMETRY_TLV));
    match reply.follow_up {
        Some(follow_up) => {
            let mode = match follow_up.clock {
                StampClock::Kernel => MODE_SW_LOCAL,
                StampClock::UserSpace => MODE_CONTROL_PLANE,
            };
            out.put(&follow_up.seq.to_be_bytes());
            out.put(&timestamp(follow_up.sent));
            out.put(&[mode]);
            out.skip(3);
        }
        None => out.skip(TELEMETRY_TLV - TLV_HEADER),
    }
    out.seal_tlvs(key, 0);
    out.packet
}

/// Reads a reply. `None` unless it is exactly what a member that has the key writes.
#[must_use]
pub fn parse_reply(key: &Key, packet: &[u8]) -> Option<Reply> {
    let mut packet = Reader::verified(key, packet, 0)?;
    let seq = u32::from_be_bytes(packet.take()?);
    packet.skip::<12>()?;
    let sent = wall(packet.take()?)?;
    packet.error_estimate()?;
    let ssid = u16::from_be_bytes(packet.take()?);
    packet.skip::<4>()?;
    let received = wall(packet.take()?)?;
    packet.skip::<8>()?;
    let request = u32::from_be_bytes(packet.take()?);
    packet.skip::<12>()?;
    let request_sent = wall(packet.take()?)?;
    packet.error_estimate()?;
    packet.skip::<6>()?;
    let [ttl] = packet.take()?;
    packet.skip::<15>()?;
    packet.skip::<TAG>()?;
    packet.skip::<TLV_HEADER>()?;
    let of = u32::from_be_bytes(packet.take()?);
    let left = wall(packet.take()?)?;
    let [mode, _, _, _] = packet.take()?;
    let clock = match mode {
        MODE_SW_LOCAL => Some(StampClock::Kernel),
        MODE_CONTROL_PLANE => Some(StampClock::UserSpace),
        _ => None,
    };
    let follow_up = clock.map(|clock| FollowUp {
        seq: of,
        sent: left,
        clock,
    });
    Some(Reply {
        seq,
        ssid,
        sent,
        received,
        request,
        request_sent,
        ttl,
        follow_up,
    })
}

/// A TLV's header: flags, type, and the length of what follows (RFC 8972, section 4).
fn tlv_header(flags: u8, kind: u8, whole: usize) -> [u8; TLV_HEADER] {
    let [high, low] = u16::try_from(whole - TLV_HEADER)
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    [flags, kind, high, low]
}

/// Truncated PTPv2. The seconds wrap in 2106, which voids the samples on their way at that moment.
#[expect(clippy::cast_possible_truncation, reason = "the format is truncated")]
pub(super) fn timestamp(wall: Wall) -> [u8; 8] {
    let seconds = wall.0.div_euclid(Wall::SECOND) as u32;
    let nanos = wall.0.rem_euclid(Wall::SECOND) as u32;
    ((u64::from(seconds) << 32) | u64::from(nanos)).to_be_bytes()
}

/// `None` if there are more nanoseconds than a second has.
fn wall(bytes: [u8; 8]) -> Option<Wall> {
    let bits = u64::from_be_bytes(bytes);
    let nanos = i64::try_from(bits & u64::from(u32::MAX)).ok()?;
    let seconds = i64::try_from(bits >> 32).ok()?;
    (nanos < Wall::SECOND).then_some(Wall(seconds * Wall::SECOND + nanos))
}

/// Fills a packet from its front.
struct Writer {
    packet: [u8; PROBE],
    at: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            packet: [0; PROBE],
            at: 0,
        }
    }
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if let Some(to) = self.packet.get_mut(self.at..end) {
            to.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn skip(&mut self, octets: usize) {
        self.at += octets;
    }

    fn seal_base(&mut self, key: &Key) {
        let covered = self.packet.first_chunk::<COVERED>().map_or(&[][..], |c| c);
        let tag = key.tag(&[covered]);
        self.put(&tag);
    }

    fn seal_tlvs(&mut self, key: &Key, flags: u8) {
        let seq = self.packet.first_chunk::<4>().map_or(&[][..], |c| c);
        let tlvs = self.packet.get(BASE..self.at).unwrap_or_default();
        let tag = key.tag(&[seq, tlvs]);
        self.put(&tlv_header(flags, TYPE_HMAC, HMAC_TLV));
        self.put(&tag);
    }
}

/// Takes a verified packet apart from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The packet, if both HMACs hold and all that they don't cover is as it must be.
    fn verified(key: &Key, packet: &'a [u8], flags: u8) -> Option<Self> {
        let whole: &[u8; PROBE] = packet.try_into().ok()?;
        let (covered, rest) = whole.split_first_chunk::<COVERED>()?;
        let (tag, tlvs) = rest.split_first_chunk::<TAG>()?;
        let (telemetry, rest) = tlvs.split_first_chunk::<TELEMETRY_TLV>()?;
        let (hmac_header, tlv_tag) = rest.split_first_chunk::<TLV_HEADER>()?;
        let seq = covered.first_chunk::<4>()?;
        let headers_hold = telemetry.starts_with(&tlv_header(flags, TYPE_TELEMETRY, TELEMETRY_TLV))
            && *hmac_header == tlv_header(flags, TYPE_HMAC, HMAC_TLV);
        let holds = key.verifies(&[covered], tag)
            && key.verifies(&[seq, telemetry], tlv_tag.first_chunk::<TAG>()?)
            && headers_hold;
        holds.then_some(Self(packet))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn skip<const N: usize>(&mut self) -> Option<()> {
        self.take::<N>().map(|_| ())
    }

    /// Members write truncated PTPv2; the format can't be told from the timestamp itself.
    fn error_estimate(&mut self) -> Option<()> {
        (self.take()? == ERROR_ESTIMATE).then_some(())
    }
}

#[cfg(test)]
mod tests;
