//! The program itself: exit codes, and what it says when a setting can't be used.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

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
        ("LOG_FORMAT", "xml"),
    ] {
        let output = program(&secret).env(variable, value).output().unwrap();
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
fn a_port_that_is_taken_ends_it_with_code_1_and_is_named() {
    let secret = SecretFile::new("port");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = program(&secret)
        .env("PEERNET_P2P_PORT", &port)
        .env("PEERNET_HTTP_PORT", free_port())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&port), "{}", said(&output));
}
