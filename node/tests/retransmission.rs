//! What TCP hides: lost segments, which it sends again. Counted between two real agents on a link that loses packets.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{net::SocketAddr, time::Duration};

use peernet_node::{agent::Agent, config::Config};

use crate::support::{config, netns::Pair, row_when};

fn config_on(host: usize, seeds: &[SocketAddr]) -> Config {
    let address = Pair::ADDRESSES[host].into();
    let mut config = config(90, &format!("mesh-{host}"), seeds);
    config.listen = Some(address);
    config.http = Some((address, 0).into());
    config.probe.interval = Duration::from_millis(20);
    config
}

/// Segments that the whole host has sent again, by the kernel's own count.
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "RetransSegs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn what_tcp_sends_again_is_told_of_the_connection_that_it_was_lost_on() {
    let pair = match Pair::new("pntcp") {
        Ok(pair) => pair,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    if let Err(why) = pair.lose(1, 50, &["-p", "tcp", "-m", "length", "--length", "60:"]) {
        return eprintln!("skipped: {why}");
    }
    let a = pair.on(0, || async { Agent::start(config_on(0, &[])).await.unwrap() });
    let seed = a.p2p_address();
    let b = pair.on(1, || async { Agent::start(config_on(1, &[seed])).await.unwrap() });
    let peer = b.peer_id();
    let row = pair.on(0, || {
        row_when(&a, &peer, "retransmissions", |row| row.retransmitted >= Some(10))
    });
    // The kernel also counts the connections before this one, and what turned out to be needless.
    let truth = pair.on(0, || async { sent_again() });
    let told = row.retransmitted.unwrap();
    eprintln!(
        "told {told} of {truth} segments sent again, with {} probes answered",
        row.answered
    );
    assert!(told <= truth, "{told} of {truth}");
    pair.on(0, || async { a.stop().await.unwrap() });
    pair.on(1, || async { b.stop().await.unwrap() });
}
