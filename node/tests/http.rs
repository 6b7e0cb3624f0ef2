//! A real agent's HTTP: what it says, what it refuses, and that slow clients do it no harm.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use peernet_api::report::{MAX_NONCE, PATH, Report, VERSION};
use peernet_node::agent::Agent;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::support::{DEADLINE, config, eventually, exchange, get, report};

async fn agent(secret: u8) -> Agent {
    Agent::start(config(secret, "mesh-0", &[])).await.unwrap()
}

#[tokio::test]
async fn a_report_is_signed_and_answers_its_nonce() {
    let agent = agent(20).await;
    let Report {
        version,
        network,
        name,
        peers,
        window_millis,
        heartbeat_age_millis,
        ..
    } = report(&agent).await;
    assert_eq!(
        (version, network.as_str(), name.as_str()),
        (VERSION, "demo/mesh", "mesh-0")
    );
    assert_eq!((window_millis, peers.len()), (300_000, 0));
    assert!(heartbeat_age_millis < 10_000);
}

#[tokio::test]
async fn a_nonce_that_is_none_is_refused_in_a_sentence_that_names_it() {
    let agent = agent(21).await;
    let long = "a".repeat(MAX_NONCE + 1);
    for query in [
        String::new(),
        "?".to_owned(),
        "?nonce".to_owned(),
        "?nonce=".to_owned(),
        "?nonce=xyz".to_owned(),
        "?nonce=00%20".to_owned(),
        format!("?nonce={long}"),
        "?nonce=00&nonce=01".to_owned(),
        "?Nonce=00".to_owned(),
    ] {
        let answer = get(agent.http_address(), &format!("{PATH}{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(
            answer.text().contains("nonce must be 1 to 64 hexadecimal digits"),
            "{query}: {}",
            answer.text()
        );
    }
    let longest = format!("{PATH}?nonce={}", "Ff".repeat(MAX_NONCE / 2));
    assert_eq!(get(agent.http_address(), &longest).await.status, 200);
}

#[tokio::test]
async fn health_and_metrics_are_served_and_nothing_else_is() {
    let agent = agent(22).await;
    let address = agent.http_address();
    eventually("readiness", || async {
        let answer = get(address, "/readyz").await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    assert_eq!(get(address, "/livez").await.status, 200);
    let metrics = get(address, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .head
            .to_lowercase()
            .contains("content-type: application/openmetrics-text"),
        "{}",
        metrics.head
    );
    assert!(metrics.text().ends_with("# EOF\n"));
    assert_eq!(get(address, "/").await.status, 404);
    let post = exchange(
        address,
        b"POST /v1/report?nonce=00 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert!(post.await.unwrap().starts_with(b"HTTP/1.1 405"));
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out() {
    let agent = agent(23).await;
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(agent.http_address()).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        }
        silent.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(get(agent.http_address(), "/livez").await.status, 200);
        report(&agent).await;
    }
    drop(silent);
}

#[tokio::test]
async fn a_request_that_never_ends_does() {
    let agent = agent(24).await;
    let unfinished = exchange(agent.http_address(), b"GET /metrics HTTP/1.1\r\nHost: a\r\n");
    let answer = timeout(DEADLINE, unfinished)
        .await
        .expect("the agent closes the connection");
    assert!(answer.is_err() || answer.is_ok_and(|answer| !answer.starts_with(b"HTTP/1.1 200")));

    let mut endless = b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    endless.resize(1 << 20, b'x');
    let answer = timeout(DEADLINE, exchange(agent.http_address(), &endless))
        .await
        .expect("the agent closes it");
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 431")));
    assert_eq!(get(agent.http_address(), "/livez").await.status, 200);
}
