//! Forged announcements on the local network: 50,000 of them, in two network namespaces that the test makes itself. Needs root
//! and `ip`; without them the test says so and ends.
//!
//! What they may cost an agent at most, whoever sends them: see `docs/limits.md`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that can't go on fails, and one that can't start says so"
)]

mod support;

use std::{
    net::UdpSocket,
    thread::sleep,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::support::{netns::Pair, program::Agent};

/// Announced peers.
const FORGED: usize = 50_000;
/// As many as fit into a packet that is not cut into pieces.
const IN_A_PACKET: usize = 8;
/// So many come first, few enough to be held: they are dialed. The rest is a flood.
const BELIEVED: usize = 800;
/// What an agent may take more for it.
const MEMORY: u64 = 8 << 20;
/// Dials a second to peers that somebody announced.
const DIALS_A_SECOND: f64 = 4.0;
/// Announced peers that are dialed in all: those that are held at a time, and no more.
const PEERS: f64 = 256.0;

/// DNS names are labels, each with its length before it.
fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend(kind.to_be_bytes());
    // The Internet's class, and ten hours to live.
    bytes.extend([0, 1, 0, 0, 0x8c, 0xa0]);
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A packet that announces some peers nobody ever heard of, at ports of the sender.
fn announcement(number: usize) -> Vec<u8> {
    const PTR: u16 = 12;
    const TXT: u16 = 16;
    let service = name(&["_p2p", "_udp", "local"]);
    let (mut answers, mut additional) = (Vec::new(), Vec::new());
    for n in 0..IN_A_PACKET {
        let peer = format!("f{number}-{n}");
        let peer = name(&[&peer, "_p2p", "_udp", "local"]);
        answers.extend(record(&service, PTR, &peer));
        let port = 1024 + (number * IN_A_PACKET + n) % 60_000;
        let text = format!(
            "dnsaddr=/ip4/{}/tcp/{port}/p2p/{}",
            Pair::ADDRESSES[1],
            PeerId::random()
        );
        let mut data = vec![u8::try_from(text.len()).unwrap()];
        data.extend(text.as_bytes());
        additional.extend(record(&peer, TXT, &data));
    }
    let count = u16::try_from(IN_A_PACKET).unwrap().to_be_bytes();
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, count[0], count[1], 0, 0, count[0], count[1]];
    packet.extend(answers);
    packet.extend(additional);
    assert!(packet.len() <= 1472, "{} bytes", packet.len());
    packet
}

#[tokio::test]
async fn fifty_thousand_forged_announcements_leave_memory_dials_and_peers_within_their_limits() {
    let pair = match Pair::new("mdns") {
        Ok(pair) => pair,
        Err(reason) => {
            println!("skipped: no namespaces here ({reason})");
            return;
        }
    };
    let agents = [0, 1].map(|host| {
        let address = Pair::ADDRESSES[host].to_string();
        let settings = [
            ("PEERNET_POD_IP", address.as_str()),
            ("PEERNET_MDNS", "true"),
            ("PEERNET_PROBE_INTERVAL", "100ms"),
        ];
        Agent::start(&pair.namespace(host), &format!("mesh-{host}"), &settings)
    });
    for (agent, other) in [(&agents[0], "mesh-1"), (&agents[1], "mesh-0")] {
        agent
            .row_when(other, "they find each other by mDNS", |row| {
                row.connected && row.answered >= 10
            })
            .await;
    }

    let victim = &agents[0];
    let memory = victim.peak_memory();
    let dials = victim.dials();
    let answered = victim.row("mesh-1").unwrap().answered;
    let begun = Instant::now();
    pair.run(1, "ip", &["route", "add", "224.0.0.0/4", "dev", &pair.link(1)])
        .unwrap();
    let packets = pair.on(1, || async {
        let socket = UdpSocket::bind((Pair::ADDRESSES[1], 0)).unwrap();
        let mut packets = 0;
        for number in 0..FORGED / IN_A_PACKET {
            socket.send_to(&announcement(number), "224.0.0.251:5353").unwrap();
            packets += 1;
            if number == BELIEVED / IN_A_PACKET {
                sleep(Duration::from_secs(5));
            }
            // No faster than the agent can read: what its socket drops would be no test of it.
            if number % 16 == 0 {
                sleep(Duration::from_millis(10));
            }
        }
        packets
    });
    assert_eq!(packets * IN_A_PACKET, FORGED);
    // All that was read has come to something by then: a dial takes no longer than this to fail.
    sleep(Duration::from_secs(6));

    let passed = begun.elapsed();
    let (grown, dialed) = (victim.peak_memory() - memory, victim.dials() - dials);
    let report = victim.report().unwrap();
    println!(
        "{FORGED} forged announcements in {passed:?}: {} KiB more, {dialed} dials, {} peers",
        grown >> 10,
        report.peers.len()
    );
    assert!(grown <= MEMORY, "{grown} bytes more");
    assert!(dialed > 0.0, "it never believed any of them: that is no flood");
    let most = (passed.as_secs_f64() + 1.0) * DIALS_A_SECOND;
    assert!(dialed <= most.min(PEERS), "{dialed} dials in {passed:?}");
    assert_eq!(report.peers.len(), 1, "{:?}", report.peers);
    assert!(victim.metric("peernet_connections").unwrap() <= 2.0);
    let row = victim
        .row_when("mesh-1", "it still measures its true peer", |row| {
            row.connected && row.answered > answered
        })
        .await;
    assert_eq!(row.failed, 0, "{row:?}");
}
