//! STAMP between real agents, and against whoever is none, over real UDP with the kernel's stamps.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use peernet_api::report::{NetworkReport, PeerReport, StampClock};
use peernet_node::{
    agent::Agent,
    config::Config,
    stamp::{
        agreement::Keys,
        clock::Wall,
        wire::{self, PROBE, Reply, Request},
    },
    telemetry::StampNews,
};

use crate::support::{
    DEADLINE, config, metric_reaches, row_when,
    stamp::{LOCAL, Thread, keys},
};

async fn pair(change: impl Fn(&mut Config, usize)) -> [Agent; 2] {
    let mut first = config(1, "mesh-0", &[]);
    change(&mut first, 0);
    let first = Agent::start(first).await.unwrap();
    let mut second = config(1, "mesh-1", &[first.p2p_address()]);
    change(&mut second, 1);
    let second = Agent::start(second).await.unwrap();
    [first, second]
}

fn measured(row: &PeerReport) -> Option<&NetworkReport> {
    row.network.as_ref().filter(|network| network.rtt.count() >= 5)
}

#[tokio::test]
async fn two_agents_learn_the_network_s_own_time_in_both_directions_from_the_kernel() {
    let [first, second] = pair(|_, _| {}).await;
    for (agent, other) in [(&first, &second), (&second, &first)] {
        let row = row_when(agent, &other.peer_id(), "samples of STAMP", |row| {
            measured(row).is_some()
        })
        .await;
        let network = row.network.unwrap();
        assert_eq!(network.clock, StampClock::Kernel);
        assert!(network.answered >= network.rtt.count());
        assert!(network.rtt.quantile(500).unwrap() > 0);
        assert!(network.newest_sample_age_millis.is_some());
        // Each sample has its hosts' part.
        assert_eq!(network.hosts.count(), network.rtt.count());
        assert_eq!(network.peer_host.count(), network.rtt.count());
    }
    metric_reaches(&first, "peernet_stamp_requests_total{result=\"answered\"}", 5.0).await;
}

#[tokio::test]
async fn if_one_end_s_kernel_gives_no_stamps_both_say_so() {
    let [first, second] = pair(|config, n| {
        if n == 1 {
            config.stamp_clock = StampClock::UserSpace;
        }
    })
    .await;
    for (agent, other) in [(&first, &second), (&second, &first)] {
        let answered = |row: &PeerReport| row.network.as_ref().is_some_and(|network| network.answered >= 10);
        let row = row_when(agent, &other.peer_id(), "samples of STAMP", answered).await;
        assert_eq!(row.network.unwrap().clock, StampClock::UserSpace);
    }
}

#[tokio::test]
async fn without_stamp_at_the_peer_there_is_no_number_and_the_rest_goes_on() {
    let [first, second] = pair(|config, n| config.stamp = n == 0).await;
    assert!(first.stamp_address().is_some() && second.stamp_address().is_none());
    let row = row_when(&first, &second.peer_id(), "pings", |row| row.answered >= 20).await;
    assert_eq!(row.network, None);
}

#[tokio::test]
async fn a_restarted_member_is_measured_again() {
    let [first, second] = pair(|_, _| {}).await;
    let peer = second.peer_id();
    row_when(&first, &peer, "samples of STAMP", |row| measured(row).is_some()).await;
    second.stop().await.unwrap();
    row_when(&first, &peer, "the end of the connection", |row| !row.connected).await;
    let again = Agent::start(config(1, "mesh-1", &[first.p2p_address()]))
        .await
        .unwrap();
    assert_eq!(again.peer_id(), peer);
    for (agent, other) in [(&first, &again), (&again, &first)] {
        row_when(agent, &other.peer_id(), "samples of STAMP", |row| {
            measured(row).is_some()
        })
        .await;
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = UdpSocket::bind((LOCAL, 0)).unwrap();
    let mut config = config(1, "mesh-0", &[]);
    config.stamp_port = taken.local_addr().unwrap().port();
    let error = Agent::start(config).await.unwrap_err().to_string();
    let port = taken.local_addr().unwrap().port();
    assert!(
        error.starts_with(&format!("failed to open the STAMP port {port}/udp: ")),
        "{error}"
    );
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn request(keys: &Keys, ssid: u16, seq: u32) -> [u8; PROBE] {
    let sent = Wall(1_700_000_000 * Wall::SECOND);
    wire::request(&keys.requests, &Request { seq, ssid, sent })
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn answer(socket: &UdpSocket, keys: &Keys) -> Reply {
    wire::parse_reply(&keys.replies, &receive(socket)).expect("an authentic reply")
}

/// Packets of one socket to another don't overtake each other on loopback: if the answer to the last one is the first to
/// come, the others got none.
#[tokio::test]
async fn strangers_get_silence_whatever_they_send() {
    let thread = Thread::start(false);
    let keys = keys(1);
    thread.reflect(7, &keys);
    let stranger = client();
    let good = request(&keys, 7, 0);
    let mut flipped = good;
    flipped[3] ^= 1;
    let bad: [&[u8]; 9] = [
        b"",
        b"x",
        &[0; 44],
        &[0; PROBE],
        &[0xff; 1472],
        &good[..PROBE - 1],
        &[&good[..], b"x"].concat(),
        &flipped,
        &request(&support::stamp::keys(9), 7, 0),
    ];
    for packet in bad {
        stranger.send_to(packet, thread.address()).unwrap();
    }
    stranger.send_to(&request(&keys, 8, 0), thread.address()).unwrap();
    stranger.send_to(&good, thread.address()).unwrap();
    assert_eq!(answer(&stranger, &keys).request, 0);
    let counts = thread.counts(|counts| counts.reflected == 1).await;
    assert_eq!((counts.refused, counts.replayed, counts.limited), (10, 0, 0));
}

#[tokio::test]
async fn a_packet_that_was_answered_is_not_answered_again() {
    let thread = Thread::start(false);
    let keys = keys(1);
    thread.reflect(7, &keys);
    let (member, thief) = (client(), client());
    let packet = request(&keys, 7, 3);
    member.send_to(&packet, thread.address()).unwrap();
    assert_eq!(answer(&member, &keys).request, 3);
    for _ in 0..5 {
        thief.send_to(&packet, thread.address()).unwrap();
    }
    thief.send_to(&request(&keys, 7, 4), thread.address()).unwrap();
    let reply = answer(&thief, &keys);
    // The reflector's own number shows that nothing was sent in between.
    assert_eq!((reply.request, reply.seq), (4, 1));
    let counts = thread.counts(|counts| counts.reflected == 2).await;
    assert_eq!(counts.replayed, 5);
}

#[tokio::test]
async fn a_flood_is_answered_at_the_agreed_pace_and_no_faster() {
    let thread = Thread::start(false);
    let keys = keys(1);
    thread.reflect(7, &keys);
    let member = client();
    let flood = 3_000;
    let start = Instant::now();
    for seq in 0..flood {
        member.send_to(&request(&keys, 7, seq), thread.address()).unwrap();
        if seq % 50 == 0 {
            // What does not fit into the socket's buffer is not what is tested here.
            thread
                .counts(|counts| counts.reflected + counts.limited > u64::from(seq))
                .await;
        }
    }
    let counts = thread
        .counts(|counts| counts.reflected + counts.limited == u64::from(flood))
        .await;
    // Four times the agreed pace of one in 10 ms, and 16 at once.
    let earned = 16 + start.elapsed().as_millis() * 4 / 10 + 1;
    assert!(
        u128::from(counts.reflected) <= earned,
        "{counts:?}, earned {earned}"
    );
    assert!(counts.reflected >= 16);
}

#[tokio::test]
async fn replies_tell_when_the_one_before_them_left() {
    let thread = Thread::start(false);
    let keys = keys(1);
    thread.reflect(7, &keys);
    let member = client();
    let mut before: Option<Reply> = None;
    let mut told = 0;
    // No more than are answered at once.
    for seq in 0..16 {
        member.send_to(&request(&keys, 7, seq), thread.address()).unwrap();
        let reply = answer(&member, &keys);
        assert_eq!((reply.seq, reply.request, reply.ttl), (seq, seq, 64));
        if let (Some(before), Some(follow_up)) = (before, reply.follow_up) {
            told += 1;
            assert_eq!((follow_up.seq, follow_up.clock), (before.seq, StampClock::Kernel));
            // t3 by the kernel comes after t2 and after what the program took for t3.
            assert!(follow_up.sent >= before.received && follow_up.sent >= before.sent);
            assert!(follow_up.sent <= reply.received);
        }
        before = Some(reply);
    }
    // The kernel may not stamp the first packets of a socket.
    assert!(told >= 8, "{told}");
}

#[tokio::test]
async fn an_open_reflector_answers_anybody_in_the_unauthenticated_mode_and_members_as_before() {
    let thread = Thread::start(true);
    let keys = keys(1);
    thread.reflect(7, &keys);
    let anybody = client();
    let mut packet = vec![0, 0, 0, 77];
    packet.extend([0x65, 0x53, 0xf1, 0, 0, 0, 0, 9, 0x80, 0x01, 0x12, 0x34]);
    packet.extend([0; 28]);
    anybody.send_to(&packet, thread.address()).unwrap();
    let reply = receive(&anybody);
    assert_eq!(reply.len(), packet.len());
    assert_eq!(reply[..4], [0, 0, 0, 77]);
    assert_eq!(reply[14..16], [0x12, 0x34]);
    assert_eq!(reply[24..38], packet[..14]);
    assert_eq!(reply[40], 64, "the TTL that it came with");
    anybody.send_to(&request(&keys, 7, 0), thread.address()).unwrap();
    assert_eq!(answer(&anybody, &keys).request, 0);
    // Whoever claims a session must prove it, also here.
    anybody
        .send_to(&request(&support::stamp::keys(9), 7, 1), thread.address())
        .unwrap();
    let counts = thread.counts(|counts| counts.refused == 1).await;
    assert_eq!(counts.reflected, 2);
    // 20 at once for one source, one of which is used up.
    let start = Instant::now();
    for _ in 0..200 {
        anybody.send_to(&packet, thread.address()).unwrap();
    }
    let counts = thread
        .counts(|counts| counts.reflected + counts.limited == 202)
        .await;
    let earned = 2 + 20 + start.elapsed().as_millis() / 50 + 1;
    assert!(u128::from(counts.reflected) <= earned, "{counts:?}");
}

#[tokio::test]
async fn two_threads_measure_each_other_and_the_parts_add_up() {
    let mut sender = Thread::start(false);
    let reflector = Thread::start(false);
    let keys = keys(3);
    reflector.reflect(9, &keys);
    sender.send(reflector.address().port(), 9, &keys);
    let mut samples = 0;
    while samples < 50 {
        if let StampNews::Sample(sample) = sender.news().await {
            assert_eq!(sample.clock, StampClock::Kernel);
            assert!(sample.network > Duration::ZERO && sample.own_host > Duration::ZERO);
            assert!(sample.peer_host > Duration::ZERO);
            samples += 1;
        }
    }
}

#[tokio::test]
async fn forged_answers_are_ignored_and_a_silent_session_is_reported() {
    let mut sender = Thread::start(false);
    let reflector = client();
    let keys = keys(3);
    let peer = sender.send(reflector.local_addr().unwrap().port(), 9, &keys);
    let mut buffer = [0; 2048];
    for n in 0..10 {
        let (length, from) = reflector.recv_from(&mut buffer).unwrap();
        let request = wire::parse_request(&keys.requests, &buffer[..length]).unwrap();
        let forged = Reply {
            seq: n,
            ssid: 9,
            sent: Wall(0),
            received: Wall(0),
            request: request.seq,
            request_sent: request.sent,
            ttl: 1,
            follow_up: None,
        };
        // Another key, the sender's own packet, noise; from another port: a good reply.
        reflector
            .send_to(&wire::reply(&keys.requests, &forged), from)
            .unwrap();
        reflector.send_to(&buffer[..length], from).unwrap();
        reflector.send_to(b"noise", from).unwrap();
        client()
            .send_to(&wire::reply(&keys.replies, &forged), from)
            .unwrap();
    }
    for _ in 0..10 {
        assert_eq!(sender.news().await, StampNews::LostUndirected);
    }
    sender.counts(|counts| counts.unexpected >= 40).await;
    let stale = tokio::time::timeout(DEADLINE, sender.stale.recv()).await;
    assert_eq!(stale.unwrap(), Some(peer));
}

#[tokio::test]
async fn the_thread_ends_with_its_handle() {
    let Thread {
        handle, mut events, ..
    } = Thread::start(false);
    drop(handle);
    let end = tokio::time::timeout(DEADLINE, events.recv()).await;
    assert!(end.expect("an end in time").is_none());
}
