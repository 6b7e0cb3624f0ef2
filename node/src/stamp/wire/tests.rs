use proptest::prelude::*;

use super::*;

const KEY: [u8; super::KEY] = [0x0b; super::KEY];

fn a_reply() -> Reply {
    Reply {
        seq: 7,
        ssid: 0x1234,
        sent: Wall(1_700_000_001 * Wall::SECOND + 999_999_999),
        received: Wall(1_700_000_000 * Wall::SECOND + 1),
        request: 9,
        request_sent: Wall(1_700_000_000 * Wall::SECOND + 5),
        ttl: 64,
        follow_up: Some(FollowUp {
            seq: 6,
            sent: Wall(1_699_999_999 * Wall::SECOND + 255),
            clock: StampClock::Kernel,
        }),
    }
}

/// HMAC-SHA-256 by its definition (RFC 2104), cut to 128 bits: 64 octets of key, xored with 0x36 and 0x5c.
fn hmac(text: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let pad = |with: u8| -> Vec<u8> {
        let mut key = KEY.to_vec();
        key.resize(64, 0);
        key.iter().map(|octet| octet ^ with).collect()
    };
    let inner = Sha256::digest([pad(0x36), text.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat())[..16].to_vec()
}

/// Written by hand from the figures of RFC 8762, 4.2.2, and RFC 8972, sections 3, 4.7 and 4.8.
#[test]
fn a_request_has_the_octets_of_the_rfcs() {
    let mut expected = vec![0, 0, 0, 9];
    expected.extend([0; 12]);
    expected.extend([0x65, 0x53, 0xf1, 0x00, 0x00, 0x00, 0x00, 0x05]);
    expected.extend([0x40, 0x01]);
    expected.extend([0x12, 0x34]);
    expected.extend([0; 68]);
    assert_eq!(expected.len(), 96);
    expected.extend(hmac(&expected));
    let telemetry = [&[0x80, 7, 0, 16][..], &[0; 16]].concat();
    expected.extend(&telemetry);
    expected.extend([0x80, 8, 0, 16]);
    expected.extend(hmac(&[&[0, 0, 0, 9], &telemetry[..]].concat()));
    let request = Request {
        seq: 9,
        ssid: 0x1234,
        sent: Wall(1_700_000_000 * Wall::SECOND + 5),
    };
    assert_eq!(super::request(&Key::new(&KEY), &request).to_vec(), expected);
}

/// Written by hand from the figures of RFC 8762, 4.3.2, and RFC 8972, sections 3, 4.7 and 4.8.
#[test]
fn a_reply_has_the_octets_of_the_rfcs() {
    let mut expected = vec![0, 0, 0, 7];
    expected.extend([0; 12]);
    expected.extend([0x65, 0x53, 0xf1, 0x01, 0x3b, 0x9a, 0xc9, 0xff]);
    expected.extend([0x40, 0x01]);
    expected.extend([0x12, 0x34]);
    expected.extend([0; 4]);
    expected.extend([0x65, 0x53, 0xf1, 0x00, 0x00, 0x00, 0x00, 0x01]);
    expected.extend([0; 8]);
    expected.extend([0, 0, 0, 9]);
    expected.extend([0; 12]);
    expected.extend([0x65, 0x53, 0xf1, 0x00, 0x00, 0x00, 0x00, 0x05]);
    expected.extend([0x40, 0x01]);
    expected.extend([0; 6]);
    expected.push(64);
    expected.extend([0; 15]);
    assert_eq!(expected.len(), 96);
    expected.extend(hmac(&expected));
    let mut telemetry = vec![0, 7, 0, 16, 0, 0, 0, 6];
    telemetry.extend([0x65, 0x53, 0xf0, 0xff, 0x00, 0x00, 0x00, 0xff]);
    telemetry.extend([2, 0, 0, 0]);
    expected.extend(&telemetry);
    expected.extend([0, 8, 0, 16]);
    expected.extend(hmac(&[&[0, 0, 0, 7], &telemetry[..]].concat()));
    assert_eq!(super::reply(&Key::new(&KEY), &a_reply()).to_vec(), expected);
}

#[test]
fn a_reply_is_as_long_as_its_request() {
    let key = Key::new(&KEY);
    let request = Request {
        seq: 0,
        ssid: 1,
        sent: Wall(0),
    };
    assert_eq!(
        super::request(&key, &request).len(),
        super::reply(&key, &a_reply()).len()
    );
}

#[test]
fn every_flipped_bit_is_refused() {
    let key = Key::new(&KEY);
    let reply = super::reply(&key, &a_reply());
    let request = super::request(
        &key,
        &Request {
            seq: 9,
            ssid: 0x1234,
            sent: Wall(5),
        },
    );
    for bit in 0..PROBE * 8 {
        let flipped = |packet: &[u8; PROBE]| {
            let mut packet = *packet;
            packet[bit / 8] ^= 1 << (bit % 8);
            packet
        };
        assert_eq!(parse_reply(&key, &flipped(&reply)), None, "bit {bit}");
        assert_eq!(parse_request(&key, &flipped(&request)), None, "bit {bit}");
    }
    assert!(parse_reply(&key, &reply).is_some() && parse_request(&key, &request).is_some());
}

#[test]
fn parts_of_two_good_packets_make_no_good_one() {
    let key = Key::new(&KEY);
    let one = super::reply(&key, &a_reply());
    let other = super::reply(&key, &Reply { seq: 8, ..a_reply() });
    let mut mixed = one;
    mixed[BASE..].copy_from_slice(&other[BASE..]);
    assert_eq!(parse_reply(&key, &mixed), None);
}

#[test]
fn a_request_is_no_reply_and_a_reply_no_request() {
    let key = Key::new(&KEY);
    let request = Request {
        seq: 9,
        ssid: 1,
        sent: Wall(5),
    };
    assert_eq!(parse_reply(&key, &super::request(&key, &request)), None);
    assert_eq!(parse_request(&key, &super::reply(&key, &a_reply())), None);
}

fn a_wall() -> impl Strategy<Value = Wall> {
    (0..=u32::MAX, 0..1_000_000_000_i64)
        .prop_map(|(seconds, nanos)| Wall(i64::from(seconds) * Wall::SECOND + nanos))
}

fn a_follow_up() -> impl Strategy<Value = Option<FollowUp>> {
    let clock = prop_oneof![Just(StampClock::Kernel), Just(StampClock::UserSpace)];
    prop::option::of(
        (any::<u32>(), a_wall(), clock).prop_map(|(seq, sent, clock)| FollowUp { seq, sent, clock }),
    )
}

proptest! {
    #[test]
    fn requests_survive_the_way(key: [u8; super::KEY], other: [u8; super::KEY], seq: u32, ssid: u16, sent in a_wall()) {
        prop_assume!(key != other);
        let request = Request { seq, ssid, sent };
        let packet = super::request(&Key::new(&key), &request);
        prop_assert_eq!(parse_request(&Key::new(&key), &packet), Some(request));
        prop_assert_eq!(parse_request(&Key::new(&other), &packet), None);
        prop_assert_eq!(claimed_ssid(&packet), Some(ssid));
    }

    #[test]
    fn replies_survive_the_way(
        key: [u8; super::KEY],
        (seq, ssid, request, ttl) in any::<(u32, u16, u32, u8)>(),
        (sent, received, request_sent) in (a_wall(), a_wall(), a_wall()),
        follow_up in a_follow_up(),
    ) {
        let reply = Reply { seq, ssid, sent, received, request, request_sent, ttl, follow_up };
        let packet = super::reply(&Key::new(&key), &reply);
        prop_assert_eq!(parse_reply(&Key::new(&key), &packet), Some(reply));
        prop_assert_eq!(claimed_ssid(&packet), Some(ssid));
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let key = Key::new(&KEY);
        prop_assert_eq!(parse_request(&key, &noise), None);
        prop_assert_eq!(parse_reply(&key, &noise), None);
        prop_assert_eq!(claimed_ssid(&noise).is_some(), noise.len() == PROBE);
    }

    /// A member may send anything that is authentic.
    #[test]
    fn authentic_nonsense_does_not_panic(base in prop::collection::vec(any::<u8>(), 96), tlv in prop::collection::vec(any::<u8>(), 20)) {
        let key = Key::new(&KEY);
        let mut packet = base.clone();
        packet.extend(hmac(&base));
        packet.extend(&tlv);
        packet.extend([0, 8, 0, 16]);
        packet.extend(hmac(&[&base[..4], &tlv].concat()));
        prop_assert_eq!(packet.len(), PROBE);
        let _ = parse_reply(&key, &packet);
        let _ = parse_request(&key, &packet);
    }
}
