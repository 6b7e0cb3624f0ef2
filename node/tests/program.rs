//! The program itself: exit codes, and what it says when a setting can't be used.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use peernet_api::{
    envelope,
    report::{PATH, Report},
};

use crate::support::{eventually, get};

struct SecretFile(PathBuf);

impl SecretFile {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("peernet-program-{}-{test}", std::process::id()));
        fs::write(&path, [7; 32]).unwrap();
        Self(path)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// The program with no other environment than a configuration that works.
fn program(secret: &SecretFile) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_peernet-node"));
    program
        .env_clear()
        .env("PEERNET_NETWORK", "demo/mesh")
        .env("PEERNET_NAME", "mesh-0")
        .env("PEERNET_POD_IP", "127.0.0.1")
        .env("PEERNET_SECRET_FILE", &secret.0)
        .env("PEERNET_STAMP_PORT", "0")
        .env("PEERNET_API_PORT", "0")
        .env("PEERNET_MDNS", "false");
    program
}

/// A port that nobody listens on now.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn started(program: &mut Command) -> (Child, Vec<String>) {
    let mut child = program
        .env("PEERNET_P2P_PORT", free_port())
        .env("PEERNET_HTTP_PORT", free_port())
        .env("LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().is_some_and(|line| line.contains("\"started\"")) {
            return (child, lines);
        }
    }
    let status = child.wait().unwrap();
    panic!("it did not start ({status}): {lines:#?}");
}

/// A program that runs, until this goes.
struct Running {
    child: Child,
    http: SocketAddr,
}

impl Running {
    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    async fn report(&self) -> Report {
        let answer = get(self.http, &format!("{PATH}?nonce=00")).await;
        envelope::open(&answer.body).unwrap().0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Also ends one that is stopped.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_setting_that_can_t_be_used_ends_it_with_code_2_and_one_sentence() {
    let secret = SecretFile::new("settings");
    for (variable, value) in [
        ("PEERNET_NETWORK", "mesh"),
        ("PEERNET_NAME", ""),
        ("PEERNET_SECRET_FILE", "/nonexistent"),
        ("PEERNET_PROBE_INTERVAL", "often"),
        ("PEERNET_BOOTSTRAP_PEERS", "somewhere"),
        ("PEERNET_MDNS", "maybe"),
        ("PEERNET_PRIVATE_NETWORK", "maybe"),
        ("PEERNET_SWARM_KEY_FILE", "/nonexistent"),
        ("LOG_FORMAT", "xml"),
    ] {
        let mut program = program(&secret);
        let output = program
            .env("PEERNET_PRIVATE_NETWORK", "true")
            .env(variable, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}");
        let said = said(&output);
        assert!(
            said.starts_with(variable) && said.trim_end().lines().count() == 1,
            "{variable}: {said}"
        );
    }
}

#[test]
fn an_order_to_stop_ends_it_with_code_0() {
    let secret = SecretFile::new("stop");
    for signal in ["TERM", "INT"] {
        let (mut child, lines) = started(&mut program(&secret));
        assert!(
            lines.iter().all(|line| line.starts_with('{')),
            "not JSON: {lines:#?}"
        );
        let sent = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_port_that_is_taken_ends_it_with_code_3_and_is_named() {
    let secret = SecretFile::new("port");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = program(&secret)
        .env("PEERNET_P2P_PORT", &port)
        .env("PEERNET_HTTP_PORT", free_port())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains(&port), "{}", said(&output));

    // The same for the HTTP port, with a word left for the kubelet.
    let word = SecretFile::new("word");
    let output = program(&secret)
        .env("PEERNET_P2P_PORT", free_port())
        .env("PEERNET_HTTP_PORT", &port)
        .env("PEERNET_TERMINATION_LOG", &word.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let left = fs::read_to_string(&word.0).unwrap();
    assert!(
        left.starts_with(&format!("failed to open the HTTP port {port}: ")),
        "{left}"
    );
}

#[test]
fn a_running_agent_is_asked_for_its_health_at_the_port_of_its_ordinal() {
    let secret = SecretFile::new("check");
    // Their own ports are two steps further on.
    let step = 7;
    let first = free_port().parse::<u16>().unwrap() - 2 * step;
    let with_ordinal = |program: &mut Command| {
        program
            .env("PEERNET_HTTP_PORT", first.to_string())
            .env("PEERNET_PORT_STEP", step.to_string())
            .env("PEERNET_ORDINAL", "2");
    };
    let mut agent = program(&secret);
    agent.env("PEERNET_P2P_PORT", free_port()).stderr(Stdio::null());
    with_ordinal(&mut agent);
    let check = |path: &str| {
        let mut asking = Command::new(env!("CARGO_BIN_EXE_peernet-node"));
        with_ordinal(asking.env_clear().args(["--check", path]));
        asking.output().unwrap().status.code()
    };
    assert_eq!(check("/readyz"), Some(1), "nobody is there yet");
    let running = Running {
        child: agent.spawn().unwrap(),
        http: SocketAddr::from(([127, 0, 0, 1], first + 2 * step)),
    };
    let begun = std::time::Instant::now();
    while check("/readyz") != Some(0) {
        assert!(begun.elapsed() < support::DEADLINE, "it does not become ready");
    }
    assert_eq!(check("/livez"), Some(0));
    assert_eq!(check("/nowhere"), Some(1));
    drop(running);
}

#[tokio::test]
async fn what_came_while_the_program_was_stopped_is_no_loss_and_no_latency() {
    let secret = SecretFile::new("stopped");
    let timeout = Duration::from_secs(2);
    let (ports, names) = ([free_port(), free_port()], ["mesh-0", "mesh-1"]);
    let agents = [0, 1].map(|n| {
        let http = free_port();
        let child = program(&secret)
            .env("PEERNET_NAME", names[n])
            .env("PEERNET_P2P_PORT", &ports[n])
            .env("PEERNET_HTTP_PORT", &http)
            .env("PEERNET_SEEDS", format!("127.0.0.1:{}", ports[0]))
            .env("PEERNET_PROBE_INTERVAL", "100ms")
            .env("PEERNET_PROBE_TIMEOUT", "2s")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let http = format!("127.0.0.1:{http}").parse().unwrap();
        Running { child, http }
    });
    let listening = |agent: &Running| {
        let http = agent.http;
        async move {
            match tokio::net::TcpStream::connect(http).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        }
    };
    let measured = |agent: usize, more_than: u64| {
        let agent = &agents[agent];
        eventually("round trips", move || async move {
            listening(agent).await?;
            let report = agent.report().await;
            match report.peers.first() {
                Some(row) if row.connected && row.answered > more_than => Ok(report),
                _ => Err(format!("{:?}", report.peers)),
            }
        })
    };
    measured(0, 10).await;
    measured(1, 10).await;

    agents[0].signal("STOP");
    tokio::time::sleep(timeout * 2).await;
    agents[0].signal("CONT");

    let before = agents[0]
        .report()
        .await
        .peers
        .first()
        .map_or(0, |row| row.answered);
    let report = measured(0, before + 10).await;
    let row = &report.peers[0];
    assert!(row.host_limited > 0, "{row:?}");
    assert_eq!((row.timed_out, row.failed), (0, 0), "{row:?}");
    assert!(row.rtt.max().unwrap() < 2_000_000_000, "{row:?}");
    // Its event loop has noticed, and the other agent had no answer meanwhile.
    let stopped = u64::try_from(timeout.as_nanos()).unwrap();
    assert!(report.host.loop_lag.max().unwrap() > stopped, "{:?}", report.host);
    assert!(report.host.cpu_micros.is_some(), "{:?}", report.host);
    let row = &measured(1, 10).await.peers[0];
    assert!(row.timed_out > 0, "{row:?}");
}
