//! The program's own commands, against agents that run in this process.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{net::SocketAddr, process::Stdio};

use peernet_node::{agent::Agent, config::Config};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::{config, meshed};

async fn two_agents(secret: u8) -> [Agent; 2] {
    let with_dht = |name: &str, seeds: &[SocketAddr]| Config {
        kademlia: true,
        ..config(secret, name, seeds)
    };
    let a = Agent::start(with_dht("mesh-0", &[])).await.unwrap();
    let b = Agent::start(with_dht("mesh-1", &[a.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;
    [a, b]
}

/// What a command printed, what it complained of, and its exit code.
#[derive(Debug)]
struct Said {
    out: Vec<u8>,
    err: String,
    code: i32,
}

impl Said {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

async fn run(address: SocketAddr, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_peernet-node"))
        .env_clear()
        .args(arguments)
        .args(["--api", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may be done by now.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    Said {
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

#[tokio::test]
async fn records_are_put_and_got_as_text_as_json_and_as_bytes() {
    let [a, b] = two_agents(90).await;
    let (a, b) = (a.api_address(), b.api_address());
    let put = run(a, &["put", "k", "v"], b"").await;
    assert_eq!(put.code, 0, "{put:?}");
    assert_eq!(
        put.text(),
        "stored: 1 of 1 other agents have it, 1 must; it lives 24h\n"
    );
    assert_eq!(run(b, &["get", "k"], b"").await.text(), "v\n");
    let json = run(b, &["get", "k", "--quorum", "all", "--output", "json"], b"")
        .await
        .json();
    assert_eq!((&json["value"], &json["copies"]), (&"v".into(), &2.into()));
    // From standard input, and byte for byte.
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(run(a, &["put", "raw", "-"], &bytes).await.code, 0);
    assert_eq!(run(b, &["get", "raw", "--raw"], b"").await.out, bytes);
    let shown = run(b, &["get", "raw"], b"").await;
    assert!(shown.text().starts_with("base64:AAEC"), "{shown:?}");
    let put = run(
        a,
        &["put", "_wA", "dmFsdWU=", "--key-base64", "--value-base64"],
        b"",
    )
    .await;
    assert_eq!(put.code, 0, "{put:?}");
    let got = run(b, &["get", "/wA=", "--key-base64"], b"").await;
    assert_eq!(got.text(), "value\n");
}

#[tokio::test]
async fn exit_codes_tell_what_is_not_there_from_what_is_wrong() {
    let [a, b] = two_agents(91).await;
    let address = a.api_address();
    for (arguments, code, says) in [
        ("get nothing", 3, "not found: 1 agents"),
        ("get k --quorum most", 2, "majority"),
        ("get _* --key-base64", 2, "base64"),
        ("put k v --quorum 5", 1, "1 of 1 agents have it, 5 are needed"),
        ("find-peer nobody", 3, "connected agent's name"),
        ("ping mesh-1 --count 11", 2, "11"),
        ("provide never --stop", 3, "not found"),
        ("fetch", 2, "fetch"),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let said = run(address, &words, b"").await;
        assert_eq!(said.code, code, "{arguments}: {said:?}");
        assert!(
            said.err.contains(says) && said.out.is_empty(),
            "{arguments}: {said:?}"
        );
    }
    drop(b);
    // Nobody listens there.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let said = run(free, &["peers"], b"").await;
    assert!(
        said.code == 1 && said.err.contains("failed to ask the agent"),
        "{said:?}"
    );
}

#[tokio::test]
async fn services_and_peers_are_shown() {
    let [a, b] = two_agents(92).await;
    let (address, id) = (a.api_address(), b.peer_id().to_string());
    let at = format!("/ip4/127.0.0.1/tcp/{}", b.p2p_address().port());
    let provided = run(b.api_address(), &["provide", "web"], b"").await;
    assert_eq!(provided.text(), "advertised: web\n");
    let found = run(address, &["providers", "web"], b"").await;
    assert_eq!(found.text(), format!("{id}  mesh-1  {at}\n1 providers\n"));
    let peers = run(address, &["peers"], b"").await;
    assert_eq!(peers.text(), format!("{id}  mesh-1  {at}\n1 peers\n"));
    for peer in ["mesh-1", &id] {
        let found = run(address, &["find-peer", peer], b"").await;
        assert_eq!(
            found.text(),
            format!("{id}  mesh-1  {at}\nconnected: nobody was asked\n")
        );
        let pinged = run(address, &["ping", peer], b"").await;
        assert!(pinged.text().starts_with("mesh-1: rtt "), "{pinged:?}");
    }
    let stopped = run(b.api_address(), &["provide", "web", "--stop"], b"").await;
    assert_eq!(stopped.text(), "advertised no more: web\n");
}

#[tokio::test]
async fn lines_are_done_one_by_one_in_the_words_of_the_tutorials() {
    let [a, b] = two_agents(93).await;
    let said = run(
        a.api_address(),
        &["lines"],
        b"PUT k hello world\n\nput_provider web\n",
    )
    .await;
    assert_eq!(said.code, 0, "{said:?}");
    let script = b"GET k\nGET_PROVIDERS web\nGET nothing\nNONSENSE\nPEERS";
    let said = run(b.api_address(), &["lines"], script).await;
    // Two of them failed, and all were tried.
    assert_eq!(said.code, 1, "{said:?}");
    let lines: Vec<&str> = said.text().lines().collect();
    assert_eq!(lines[0], "hello world");
    assert_eq!(lines[2], "1 providers");
    assert!(lines[3].starts_with("error: not found"), "{lines:?}");
    assert!(
        lines[4].starts_with("error: \"NONSENSE\" is no command"),
        "{lines:?}"
    );
    assert_eq!(lines[6], "1 peers");
    let said = run(b.api_address(), &["lines", "--output", "json"], script).await;
    let answers: Vec<Value> = said
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[0]["value"], "hello world");
    assert_eq!(answers[1]["providers"][0]["name"], "mesh-0");
    assert_eq!(answers[2]["error"]["code"], "NotFound");
    assert_eq!(answers[3]["error"]["code"], "InvalidParameter");
    assert_eq!(answers[4]["peers"][0]["name"], "mesh-0");
}
