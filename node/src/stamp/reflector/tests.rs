use super::*;
use crate::stamp::{agreement::Keys, wire::Request};

const SECOND: Duration = Duration::from_secs(1);

fn reading(at: Duration) -> Reading {
    stepped(at, 0)
}

fn stepped(at: Duration, step: i64) -> Reading {
    Reading {
        before: at,
        wall: Wall(1_700_000_000 * Wall::SECOND + i64::try_from(at.as_nanos()).unwrap() + step),
        after: at,
    }
}

fn keys(byte: u8) -> Keys {
    Keys {
        requests: Key::new(&[byte; wire::KEY]),
        replies: Key::new(&[byte + 1; wire::KEY]),
    }
}

fn agreed(peer: PeerId, ssid: u16, byte: u8) -> Reflecting {
    Reflecting {
        peer,
        ssid,
        keys: keys(byte),
        interval: SECOND,
    }
}

struct World {
    reflector: Reflector,
    counters: Counters,
}

impl World {
    fn new(sessions: impl IntoIterator<Item = Reflecting>) -> Self {
        let mut reflector = Reflector::default();
        sessions.into_iter().for_each(|agreed| reflector.begin(agreed));
        Self {
            reflector,
            counters: Counters::default(),
        }
    }

    fn ask(&mut self, packet: &[u8], at: Duration) -> Option<Answer> {
        let arrival = Arrival {
            t2: Some((reading(at).wall, StampClock::Kernel)),
            ttl: 64,
            quiet: reading(at - Duration::from_millis(1)),
            taken: reading(at + Duration::from_micros(30)),
        };
        let answer = self.reflector.answer(packet, &arrival, &self.counters, || {
            reading(at + Duration::from_micros(50))
        });
        answer.map(|(answer, _)| answer)
    }

    fn counts(&self) -> [u64; 3] {
        [
            &self.counters.refused,
            &self.counters.replayed,
            &self.counters.limited,
        ]
        .map(|counter| counter.load(Ordering::Relaxed))
    }
}

fn request(keys: &Keys, ssid: u16, seq: u32) -> [u8; PROBE] {
    let sent = Wall(1_600_000_000 * Wall::SECOND + i64::from(seq));
    wire::request(&keys.requests, &Request { seq, ssid, sent })
}

#[test]
fn a_member_is_answered_with_what_the_rfcs_ask_for() {
    let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
    let answer = world.ask(&request(&keys(1), 5, 40), SECOND).unwrap();
    let reply = wire::parse_reply(&keys(1).replies, &answer.packet).unwrap();
    assert_eq!((reply.seq, reply.request, reply.ssid, reply.ttl), (0, 40, 5, 64));
    assert_eq!(reply.received, reading(SECOND).wall);
    assert_eq!(reply.sent, reading(SECOND + Duration::from_micros(50)).wall);
    assert_eq!(reply.request_sent, Wall(1_600_000_000 * Wall::SECOND + 40));
    assert_eq!(reply.follow_up, None);
    // The next one says when this one left, and has the reflector's next number, whatever the request's is.
    let t3 = reading(SECOND + Duration::from_micros(60)).wall;
    world.reflector.left(
        answer.mark,
        (t3, StampClock::Kernel),
        &reading(SECOND + Duration::from_micros(70)),
    );
    let answer = world.ask(&request(&keys(1), 5, 47), SECOND * 2).unwrap();
    let reply = wire::parse_reply(&keys(1).replies, &answer.packet).unwrap();
    assert_eq!((reply.seq, reply.request), (1, 47));
    let expected = FollowUp {
        seq: 0,
        sent: t3,
        clock: StampClock::Kernel,
    };
    assert_eq!(reply.follow_up, Some(expected));
}

#[test]
fn strangers_and_damaged_packets_get_silence_and_are_counted() {
    let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
    let good = request(&keys(1), 5, 1);
    let mut damaged = good;
    damaged[20] ^= 1;
    for packet in [
        &damaged[..],
        &request(&keys(3), 5, 1),
        &request(&keys(1), 6, 1),
        &good[..100],
        &[good, good].concat(),
        &[],
    ] {
        assert!(world.ask(packet, SECOND).is_none());
    }
    assert_eq!(world.counts(), [6, 0, 0]);
    assert!(world.ask(&good, SECOND).is_some());
}

#[test]
fn nothing_is_answered_twice() {
    let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
    let packets: Vec<_> = (0..5).map(|seq| request(&keys(1), 5, seq)).collect();
    for (n, packet) in packets.iter().enumerate() {
        let at = SECOND * u32::try_from(n + 1).unwrap();
        assert!(world.ask(packet, at).is_some());
        assert!(world.ask(packet, at).is_none());
    }
    for packet in &packets {
        assert!(world.ask(packet, SECOND * 100).is_none());
    }
    assert_eq!(world.counts(), [0, 10, 0]);
}

#[test]
fn who_asks_too_often_gets_silence_until_it_has_waited() {
    let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
    let mut answered = 0;
    for seq in 0..1000 {
        answered += u32::from(world.ask(&request(&keys(1), 5, seq), SECOND * 10).is_some());
    }
    assert_eq!(answered, SESSION_BURST);
    assert_eq!(world.counts(), [0, 0, u64::from(1000 - SESSION_BURST)]);
    let after = (1000..2000).filter(|seq| {
        let at = SECOND * 11;
        world.ask(&request(&keys(1), 5, *seq), at).is_some()
    });
    assert_eq!(after.count(), SESSION_RATE as usize);
}

#[test]
fn all_sessions_together_are_bounded_too() {
    let mut world = World::new((1..=200).map(|ssid| agreed(PeerId::random(), ssid, 1)));
    let mut answered = 0;
    for ssid in 1..=200 {
        for seq in 0..SESSION_BURST {
            answered += u32::from(world.ask(&request(&keys(1), ssid, seq), SECOND * 10).is_some());
        }
    }
    assert_eq!(answered, TOTAL.burst);
}

#[test]
fn a_clock_stepped_between_a_request_and_its_reply_gives_no_t3() {
    for step in [3_600_000_000_000, -3_600_000_000_000, 5_000_000, -5_000_000_i64] {
        let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
        let answer = world.ask(&request(&keys(1), 5, 0), SECOND).unwrap();
        let now = stepped(SECOND + Duration::from_micros(70), step);
        world
            .reflector
            .left(answer.mark, (now.wall, StampClock::Kernel), &now);
        let answer = world.ask(&request(&keys(1), 5, 1), SECOND * 2).unwrap();
        let reply = wire::parse_reply(&keys(1).replies, &answer.packet).unwrap();
        assert_eq!(reply.follow_up, None, "{step}");
    }
}

#[test]
fn stamps_that_come_late_or_never_are_not_another_reply_s() {
    let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
    let first = world.ask(&request(&keys(1), 5, 0), SECOND).unwrap();
    let second = world.ask(&request(&keys(1), 5, 1), SECOND * 2).unwrap();
    let now = reading(SECOND * 2);
    world
        .reflector
        .left(first.mark, (now.wall, StampClock::Kernel), &now);
    let third = world.ask(&request(&keys(1), 5, 2), SECOND * 3).unwrap();
    for answer in [second, third] {
        let reply = wire::parse_reply(&keys(1).replies, &answer.packet).unwrap();
        assert_eq!(reply.follow_up, None);
    }
}

#[test]
fn a_request_that_the_kernel_did_not_stamp_gives_no_t3() {
    let mut world = World::new([agreed(PeerId::random(), 5, 1)]);
    let arrival = Arrival {
        t2: None,
        ttl: 0,
        quiet: reading(SECOND),
        taken: reading(SECOND),
    };
    let packet = request(&keys(1), 5, 0);
    let answer = world
        .reflector
        .answer(&packet, &arrival, &world.counters, || reading(SECOND));
    let mark = answer.unwrap().0.mark;
    world
        .reflector
        .left(mark, (reading(SECOND).wall, StampClock::Kernel), &reading(SECOND));
    let next = world.ask(&request(&keys(1), 5, 1), SECOND * 2).unwrap();
    assert_eq!(
        wire::parse_reply(&keys(1).replies, &next.packet)
            .unwrap()
            .follow_up,
        None
    );
}

#[test]
fn a_new_session_leaves_the_one_before_until_the_next() {
    let peer = PeerId::random();
    let mut world = World::new([agreed(peer, 1, 1), agreed(peer, 2, 3)]);
    assert!(world.ask(&request(&keys(1), 1, 0), SECOND).is_some());
    assert!(world.ask(&request(&keys(3), 2, 0), SECOND).is_some());
    world.reflector.begin(agreed(peer, 3, 5));
    assert!(world.ask(&request(&keys(1), 1, 1), SECOND).is_none());
    assert!(world.ask(&request(&keys(3), 2, 1), SECOND).is_some());
    assert!(world.ask(&request(&keys(5), 3, 0), SECOND).is_some());
    world.reflector.end(&peer);
    assert!(world.ask(&request(&keys(3), 2, 2), SECOND).is_none());
    assert!(world.ask(&request(&keys(5), 3, 1), SECOND).is_none());
    assert!(world.reflector.sessions.is_empty() && world.reflector.peers.is_empty());
}

#[test]
fn there_are_no_more_sessions_than_allowed() {
    let many = (0..2 * MAX_SESSIONS).map(|n| agreed(PeerId::random(), u16::try_from(n + 1).unwrap(), 1));
    let world = World::new(many);
    assert_eq!(world.reflector.sessions.len(), MAX_SESSIONS);
}
