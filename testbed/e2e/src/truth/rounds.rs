//! STAMP round trips from the captures of both ends.
//!
//! Four stamps of one probe: the request leaves one end (t1) and reaches the other (t2), the reply leaves it (t3) and
//! comes back (t4). The network's own round trip is (t4 - t1) - (t3 - t2). Offsets of the fields are those of
//! [RFC 8762](https://www.rfc-editor.org/rfc/rfc8762) section 4: nothing of PeerNet's is used to find them.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use super::pcap::{Packet, Transport};

/// Length of an authenticated packet, at least (RFC 8762, figures 3 and 6); shorter ones are unauthenticated.
const AUTHENTICATED: usize = 112;

/// One probe on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Where the request came from.
    pub from: SocketAddrV4,
    /// Where it went to.
    pub to: SocketAddrV4,
    /// The sender's sequence number.
    pub seq: u32,
    /// When the request left the sender's interface, as all stamps in nanoseconds of the kernel's wall clock.
    pub t1: i64,
    /// When it came to the reflector's.
    pub t2: i64,
    /// When the reply left the reflector's.
    pub t3: i64,
    /// When it came to the sender's.
    pub t4: i64,
    /// Bytes of both frames together.
    pub bytes: usize,
}

impl Round {
    /// The network's own time.
    #[must_use]
    pub fn network(&self) -> i64 {
        (self.t4 - self.t1) - (self.t3 - self.t2)
    }

    /// Time at the reflector, from its interface and back to it.
    #[must_use]
    pub fn residence(&self) -> i64 {
        self.t3 - self.t2
    }
}

/// Sender, reflector, session and sequence number.
type Key = (SocketAddrV4, SocketAddrV4, u16, u32);

/// The probes from `sender` to `port` at another address, by the captures of the sender's interface and of the other one.
/// Only whole ones: all four stamps are there. Of a packet that passed twice, the first one counts.
#[must_use]
pub fn pair(sender: Ipv4Addr, here: &[Packet], there: &[Packet], port: u16) -> Vec<Round> {
    let asked_there = first_of(there, |packet| request(packet, port));
    let answered_there = first_of(there, |packet| reply(packet, port));
    let answered_here = first_of(here, |packet| reply(packet, port));
    let mut rounds: Vec<Round> = first_of(here, |packet| request(packet, port))
        .into_iter()
        .filter(|(key, _)| *key.0.ip() == sender)
        .filter_map(|(key, asked)| {
            let answer = answered_here.get(&key)?;
            Some(Round {
                from: key.0,
                to: key.1,
                seq: key.3,
                t1: asked.nanos,
                t2: asked_there.get(&key)?.nanos,
                t3: answered_there.get(&key)?.nanos,
                t4: answer.nanos,
                bytes: asked.frame_len + answer.frame_len,
            })
        })
        .collect();
    rounds.sort_unstable_by_key(|round| round.t1);
    rounds
}

fn first_of(packets: &[Packet], key: impl Fn(&Packet) -> Option<Key>) -> HashMap<Key, &Packet> {
    let mut found = HashMap::new();
    for packet in packets {
        if let Some(key) = key(packet) {
            found.entry(key).or_insert(packet);
        }
    }
    found
}

/// A request's sender, reflector and sequence number, which is its first field.
fn request(packet: &Packet, port: u16) -> Option<Key> {
    let is = packet.transport == Transport::Udp && packet.to.port() == port;
    let seq = u32_at(&packet.payload, 0);
    is.then(|| Some((packet.from, packet.to, session(&packet.payload)?, seq?)))?
}

/// The same of the request that a reply answers: the reply tells the sender's sequence number after its own stamps.
fn reply(packet: &Packet, port: u16) -> Option<Key> {
    let is = packet.transport == Transport::Udp && packet.from.port() == port;
    let at = if packet.payload.len() >= AUTHENTICATED {
        48
    } else {
        24
    };
    let seq = u32_at(&packet.payload, at);
    is.then(|| Some((packet.to, packet.from, session(&packet.payload)?, seq?)))?
}

/// The session's identifier (RFC 8972 section 3), after the stamp and its error estimate.
fn session(payload: &[u8]) -> Option<u16> {
    let at = if payload.len() >= AUTHENTICATED { 26 } else { 14 };
    Some(u16::from_be_bytes(payload.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 8620;
    const A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 40_000);
    const B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), PORT);

    fn packet(nanos: i64, from: SocketAddrV4, to: SocketAddrV4, payload: Vec<u8>) -> Packet {
        Packet {
            nanos,
            transport: Transport::Udp,
            from,
            to,
            frame_len: 42 + payload.len(),
            payload,
        }
    }

    fn request(nanos: i64, seq: u8) -> Packet {
        let mut payload = vec![0; 112];
        payload[3] = seq;
        packet(nanos, A, B, payload)
    }

    fn reply(nanos: i64, seq: u8, own: u8) -> Packet {
        let mut payload = vec![0; 112];
        payload[3] = own;
        payload[51] = seq;
        packet(nanos, B, A, payload)
    }

    #[test]
    fn probes_are_paired_by_the_senders_sequence_number() {
        // The reflector counts its own replies: the first request was lost before them.
        let here = [
            request(100, 1),
            request(200, 2),
            reply(290, 2, 1),
            request(300, 3),
            reply(400, 3, 2),
        ];
        let there = [
            request(210, 2),
            reply(270, 2, 1),
            request(310, 3),
            reply(380, 3, 2),
        ];
        let rounds = pair(*A.ip(), &here, &there, PORT);
        let found: Vec<_> = rounds
            .iter()
            .map(|round| (round.seq, round.network(), round.residence()))
            .collect();
        assert_eq!(found, [(2, 30, 60), (3, 30, 70)]);
        assert_eq!(rounds[0].bytes, 2 * (42 + 112));
    }

    #[test]
    fn unauthenticated_replies_have_their_field_elsewhere() {
        let mut answer = vec![0; 44];
        answer[27] = 9;
        let mut ask = vec![0; 44];
        ask[3] = 9;
        let here = [packet(1, A, B, ask.clone()), packet(9, B, A, answer.clone())];
        let there = [packet(3, A, B, ask), packet(5, B, A, answer)];
        assert_eq!(pair(*A.ip(), &here, &there, PORT)[0].network(), 6);
    }

    #[test]
    fn another_session_counts_anew() {
        let of_session = |mut packet: Packet, session: u8| {
            packet.payload[27] = session;
            packet
        };
        let one = |session, at| {
            let here = [
                of_session(request(at, 1), session),
                of_session(reply(at + 9, 1, 1), session),
            ];
            let there = [
                of_session(request(at + 3, 1), session),
                of_session(reply(at + 5, 1, 1), session),
            ];
            (here, there)
        };
        let (first, second) = (one(1, 100), one(2, 200));
        let rounds = pair(
            *A.ip(),
            &[first.0, second.0].concat(),
            &[first.1, second.1].concat(),
            PORT,
        );
        assert_eq!(
            rounds.iter().map(|round| round.t1).collect::<Vec<_>>(),
            [100, 200]
        );
    }

    #[test]
    fn a_lost_reply_makes_no_round_trip() {
        assert_eq!(
            pair(*A.ip(), &[request(1, 1)], &[request(2, 1), reply(3, 1, 1)], PORT),
            []
        );
        assert_eq!(pair(*A.ip(), &[], &[], PORT), []);
    }

    #[test]
    fn of_a_packet_that_passed_twice_the_first_counts() {
        let here = [request(1, 1), reply(9, 1, 1), reply(50, 1, 1)];
        let there = [request(3, 1), reply(5, 1, 1), reply(6, 1, 1)];
        assert_eq!(pair(*A.ip(), &here, &there, PORT)[0].t4, 9);
    }

    #[test]
    fn the_other_ends_probes_are_not_taken_for_ones_own() {
        let (here, there) = ([request(1, 1), reply(9, 1, 1)], [request(3, 1), reply(5, 1, 1)]);
        assert_eq!(pair(*B.ip(), &there, &here, PORT), []);
    }
}
