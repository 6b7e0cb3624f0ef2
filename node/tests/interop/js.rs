//! js-libp2p: as a guest, which holds no secret, and as a member in another language, which does.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use peernet_api::transport::Transport;
use peernet_node::agent::Agent;
use serde_json::{Value, json};

use crate::{
    foreign::{installed, lines, run},
    support::{agents, api, config, metric_reaches, report, row_when, secret},
};

const NETWORK: &str = "demo/mesh";

fn address(agent: &Agent) -> String {
    format!("/ip4/127.0.0.1/tcp/{}", agent.p2p_address().port())
}

fn guest(agent: &Agent, commands: &[&str]) -> Command {
    guest_at(&address(agent), commands)
}

fn guest_at(address: &str, commands: &[&str]) -> Command {
    let mut command = Command::new("node");
    command
        // Node 20 has it behind this flag.
        .arg("--experimental-websocket")
        .arg(installed("js/guest.mjs"))
        .args([NETWORK, address])
        .args(commands);
    command
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn a_guest_finds_what_libp2p_hosts_expect_of_each_other() {
    let [first, second] = agents(1, |config| {
        config.kademlia = true;
        config.guests = 1;
    })
    .await;
    let wanted = second.peer_id().to_string();
    let told = lines(guest(&first, &["ping", "find", &wanted])).await;
    let [introduction, pings, found] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(introduction["peer"], first.peer_id().to_string());
    let version = introduction["agentVersion"].as_str().unwrap();
    let expected = format!("peernet/{} (mesh-0; ", peernet_api::VERSION);
    assert!(version.starts_with(&expected), "{version}");
    assert_eq!(introduction["protocolVersion"], "/peernet/1.0.0");
    let protocols = introduction["protocols"].as_array().unwrap();
    for protocol in [
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
        "/ipfs/ping/1.0.0",
        "/peernet/demo/mesh/kad/1.0.0",
    ] {
        assert!(
            protocols.contains(&json!(protocol)),
            "{protocol} is not in {protocols:?}"
        );
    }
    assert_eq!(introduction["listenAddrs"], json!([address(&first)]));
    // Where the agent sees the guest: where that has dialed from.
    let observed = introduction["observedAddr"].as_str().unwrap();
    let port = observed.strip_prefix("/ip4/127.0.0.1/tcp/").expect(observed);
    let port: u16 = port.split('/').next().unwrap().parse().unwrap();
    assert_ne!(port, first.p2p_address().port());
    assert_eq!(pings["millis"].as_array().map(Vec::len), Some(3));
    assert_eq!(found["found"], wanted);
    assert_eq!(
        found["addresses"],
        json!([format!("{}/p2p/{wanted}", address(&second))])
    );
    for agent in [&first, &second] {
        let report = report(agent).await;
        assert_eq!(report.peers.len(), 1, "{:?}", report.peers);
    }
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn a_guest_that_speaks_websocket_alone_pings_and_finds_the_others_there() {
    let [first, second] = agents(7, |config| {
        config.transports = vec![Transport::Tcp, Transport::WebSocket];
        config.kademlia = true;
        config.guests = 1;
    })
    .await;
    let at = |agent: &Agent| {
        format!(
            "/ip4/127.0.0.1/tcp/{}/ws",
            agent.p2p_addresses()[1].socket().port()
        )
    };
    let wanted = second.peer_id().to_string();
    let told = lines(guest_at(&at(&first), &["ping", "find", &wanted])).await;
    let [introduction, pings, found] = &told[..] else {
        panic!("{told:?}")
    };
    let listens = introduction["listenAddrs"].as_array().unwrap();
    assert!(listens.contains(&json!(at(&first))), "{introduction}");
    let observed = introduction["observedAddr"].as_str().unwrap();
    assert!(observed.ends_with("/ws"), "{observed}");
    assert_eq!(pings["millis"].as_array().map(Vec::len), Some(3));
    let addresses = found["addresses"].as_array().unwrap();
    let expected = format!("{}/p2p/{wanted}", at(&second));
    assert!(addresses.contains(&json!(expected)), "{found}");
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn a_guest_reads_what_a_member_has_put_and_can_not_put_itself() {
    let [first, second] = agents(6, |config| {
        config.kademlia = true;
        config.guests = 1;
    })
    .await;
    let stored = api(
        &second,
        "PUT",
        "/v1/records/%2Fapp%2Fgreeting?quorum=all",
        b"hello",
    )
    .await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    let told = lines(guest(&first, &["get", "/app/greeting"])).await;
    assert_eq!(told[1], json!({"key": "/app/greeting", "value": "hello"}));
    let output = run(guest(&first, &["put", "/app/greeting", "overwritten"])).await;
    assert!(!output.status.success(), "{output:?}");
    metric_reaches(&first, "peernet_dht_records_refused_total", 1.0).await;
    let told = lines(guest(&first, &["get", "/app/greeting"])).await;
    assert_eq!(told[1]["value"], "hello");
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn where_guests_are_not_received_it_is_turned_away() {
    let agent = Agent::start(config(2, "mesh-0", &[])).await.unwrap();
    let told = lines(guest(&agent, &["ended"])).await;
    assert_eq!(
        told[0]["peer"],
        agent.peer_id().to_string(),
        "it is told who turns it away"
    );
    assert_eq!(told[1], json!({"ended": true}));
    metric_reaches(&agent, "peernet_strangers_rejected_total", 1.0).await;
    assert_eq!(report(&agent).await.guests, None);
}

struct SecretFile(PathBuf);

impl SecretFile {
    fn new(byte: u8) -> Self {
        let path = std::env::temp_dir().join(format!("peernet-interop-{}-{byte}", std::process::id()));
        std::fs::write(&path, [byte; 32]).unwrap();
        Self(path)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// A member written in JavaScript. Ends with this.
struct Member(Child);

impl Member {
    async fn start(secret: &Path, name: &str, contact: &Agent) -> (Self, Value) {
        let mut command = Command::new("node");
        command
            .arg(installed("js/member.mjs"))
            .arg(secret)
            .args([name, NETWORK, &address(contact)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let start = move || {
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            // It gives up by itself if nobody answers.
            let read = BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line);
            read.unwrap();
            (Self(child), line)
        };
        let (member, line) = tokio::task::spawn_blocking(start).await.unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        (member, told)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn who_holds_the_secret_is_a_member_in_whatever_language() {
    let [first, second] = agents(3, |config| config.kademlia = true).await;
    let file = SecretFile::new(3);
    let (member, told) = Member::start(&file.0, "js-0", &first).await;
    let peer = secret(3).peer_id("js-0");
    assert_eq!(told["member"], peer.to_string());
    // The first one was dialed by it; the second one has heard of it from the first, and dialed it.
    for agent in [&first, &second] {
        let row = row_when(agent, &peer, "samples", |row| row.connected && row.answered >= 20).await;
        assert_eq!(row.name, "js-0");
        assert_eq!(row.rtt.count(), row.answered);
        assert_eq!(row.network, None, "it speaks no STAMP");
    }
    drop(member);
    for agent in [&first, &second] {
        row_when(agent, &peer, "its end", |row| !row.connected).await;
    }
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn a_member_of_another_network_is_none_of_this_one() {
    let mut config = config(4, "mesh-0", &[]);
    config.guests = 1;
    let agent = Agent::start(config).await.unwrap();
    let file = SecretFile::new(5);
    let (_member, told) = Member::start(&file.0, "js-0", &agent).await;
    assert_eq!(told["member"], secret(5).peer_id("js-0").to_string());
    metric_reaches(&agent, "peernet_strangers_rejected_total", 1.0).await;
    let report = report(&agent).await;
    assert_eq!((report.peers.len(), report.guests), (0, Some(0)));
}
