//! STAMP: scapy asks and reads our packets octet by octet; stamp-suite, another implementation, measures towards our
//! reflectors, and ours towards its own.

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Child, Command, Stdio},
};

use peernet_node::{
    agent::Agent,
    stamp::{agreement::Keys, wire::Key},
    telemetry::StampNews,
};
use serde_json::{Value, json};

use crate::{
    foreign::{installed, lines},
    support::{
        config, metric, metric_reaches,
        stamp::{LOCAL, Thread},
    },
};

const ANSWERED: &str = "peernet_stamp_requests_total{result=\"answered\"}";
/// Of both directions: other implementations have one key a session.
const KEY: [u8; 32] = [7; 32];
const SSID: u16 = 9;

/// An agent whose reflector answers anybody.
async fn open_agent() -> Agent {
    let mut config = config(1, "mesh-0", &[]);
    config.stamp_open = true;
    Agent::start(config).await.unwrap()
}

/// Asks the agent with scapy's packets, in one of the two formats of time.
async fn scapy(agent: &Agent, format: &str, extensions: &str) -> Vec<Value> {
    let reflector = agent.stamp_address().unwrap();
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", installed("scapy"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(installed("stamp/ask.py"))
        .args([
            &reflector.ip().to_string(),
            &reflector.port().to_string(),
            format,
            extensions,
        ]);
    lines(command).await
}

/// Nanoseconds since 1970, of truncated PTPv2.
fn ptp_nanos(value: &Value) -> u64 {
    let bits = value.as_u64().unwrap();
    (bits >> 32) * 1_000_000_000 + (bits & 0xffff_ffff)
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn scapy_reads_what_the_open_reflector_answers() {
    let agent = open_agent().await;
    for (format, z) in [("ptp", 1), ("ntp", 0)] {
        let answers = scapy(&agent, format, "").await;
        assert_eq!(answers.len(), 5);
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer["length"], 44);
            // Stateless (RFC 8762, section 4.3): the sender's number is repeated.
            assert_eq!(answer["seq"], number);
            assert_eq!(answer["senderSeq"], number);
            assert_eq!(answer["ssid"], 0x1234);
            assert_eq!(answer["senderTimestamp"], answer["sent"]);
            let theirs = json!({"s": 0, "z": z, "scale": 3, "multiplier": 7});
            assert_eq!(answer["senderErrorEstimate"], theirs);
            let ours = json!({"s": 0, "z": 1, "scale": 0, "multiplier": 1});
            assert_eq!(
                answer["errorEstimate"], ours,
                "PTP's format, also to those who use NTP's"
            );
            assert_eq!(answer["mustBeZero"], json!([0, 0]));
            assert_eq!(answer["senderTtl"], 64);
            // One host, so one clock: the agent's two stamps lie in this order between the script's.
            let times = [
                answer["begun"].as_u64().unwrap(),
                ptp_nanos(&answer["received"]),
                ptp_nanos(&answer["timestamp"]),
                answer["ended"].as_u64().unwrap(),
            ];
            assert!(times.is_sorted(), "{times:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn scapy_finds_its_tlvs_in_the_answer_with_a_reflector_s_flags() {
    let agent = open_agent().await;
    let telemetry = "55".repeat(16);
    // Extra Padding, Location, Follow-Up Telemetry, and a type for experiments that no RFC gives a meaning.
    let extensions = format!("1:aabbcc,2:00000000,7:{telemetry},250:01");
    let expected = json!([
        {"flags": 0, "type": 1, "length": 3, "value": "aabbcc"},
        {"flags": 0x80, "type": 2, "length": 4, "value": "00000000"},
        {"flags": 0, "type": 7, "length": 16, "value": "00".repeat(16)},
        {"flags": 0x80, "type": 250, "length": 1, "value": "01"},
    ]);
    for answer in scapy(&agent, "ptp", &extensions).await {
        assert_eq!(answer["tlvs"], expected);
        assert_eq!(answer["length"], 44 + 7 + 8 + 20 + 5);
    }
}

/// stamp-suite's program, as a sender or as a reflector.
fn stamp_suite() -> Command {
    let mut command = Command::new(installed("stamp-suite/bin/stamp-suite"));
    command.args(["--local-addr", "127.0.0.1", "--output-format", "json"]);
    command
}

/// Twenty probes of stamp-suite to a reflector at that port, and what it says of them.
async fn measured_by_stamp_suite(port: u16, options: &[&str]) -> Value {
    let mut command = stamp_suite();
    command
        .args(["--remote-addr", "127.0.0.1", "--remote-port", &port.to_string()])
        .args(["--count", "20", "--send-delay", "20ms", "--timeout", "5"])
        .args(options);
    let summary = lines(command).await.pop().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["packets_sent"], 20, "{summary}");
    assert_eq!(summary["packets_received"], 20, "{summary}");
    assert_eq!(summary["packets_lost"], 0, "{summary}");
    summary
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn another_implementation_measures_to_the_open_reflector() {
    let agent = open_agent().await;
    let port = agent.stamp_address().unwrap().port();
    let mut answered = 0.0;
    let plain: &[&str] = &["--clock-source", "NTP"];
    for options in [
        plain,
        &["--clock-source", "PTP", "--ssid", "7"],
        // TLVs: padding, which is known, and two that a stateless reflector says nothing to.
        &[
            "--ssid",
            "7",
            "--extra-padding",
            "100",
            "--follow-up-telemetry",
            "--timestamp-info",
        ],
    ] {
        let summary = measured_by_stamp_suite(port, options).await;
        let rtt = summary["median_rtt_ms"].as_f64().unwrap();
        assert!(rtt > 0.0 && rtt < 1000.0, "{summary}");
        // One host, so one clock: it finds both ways to be parts of the round trip only if it reads our stamps right.
        let owd = &summary["owd"];
        let [there, back] = ["forward_avg_ms", "reverse_avg_ms"].map(|way| owd[way].as_f64().unwrap());
        let mean = summary["avg_rtt_ms"].as_f64().unwrap();
        assert!(
            there >= 0.0 && back >= 0.0 && there + back <= mean + 0.001,
            "{summary}"
        );
        answered += 20.0;
        // Told every second.
        metric_reaches(&agent, ANSWERED, answered).await;
        assert_eq!(metric(&agent, ANSWERED).await, answered);
    }
}

/// What a session-sender of another make must be told to speak to a member's reflector as members do.
const AS_MEMBERS_DO: [&str; 11] = [
    "--auth-mode",
    "A",
    "--ssid",
    "9",
    "--clock-source",
    "PTP",
    "--error-scale",
    "0",
    "--error-multiplier",
    "1",
    "--follow-up-telemetry",
];

fn key_as_text() -> String {
    KEY.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keys() -> Keys {
    Keys {
        requests: Key::new(&KEY),
        replies: Key::new(&KEY),
    }
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn another_implementation_with_a_key_measures_to_a_member_s_reflector() {
    let thread = Thread::start(false);
    thread.reflect(SSID, &keys());
    let key = key_as_text();
    let options = [&AS_MEMBERS_DO[..], &["--hmac-key", &key]].concat();
    let summary = measured_by_stamp_suite(thread.address().port(), &options).await;
    let counts = thread.counts(|counts| counts.reflected == 20).await;
    assert_eq!(counts.refused, 0);
    // It has verified our HMACs, or it would tell nothing of the TLVs; each reply but the first tells when the one before left.
    let follow_up = &summary["measurements"]["follow_up"];
    assert_eq!(follow_up["observations"], 20, "{summary}");
    let matched = follow_up["matched"].as_u64().unwrap();
    // The kernel may not stamp the first packets of a socket.
    assert!(matched >= 10, "{summary}");
    // With another key it gets silence.
    let wrong = "11".repeat(32);
    let mut command = stamp_suite();
    command
        .args([
            "--remote-addr",
            "127.0.0.1",
            "--remote-port",
            &thread.address().port().to_string(),
        ])
        .args([
            "--count",
            "3",
            "--send-delay",
            "20ms",
            "--timeout",
            "1",
            "--hmac-key",
            &wrong,
        ])
        .args(&AS_MEMBERS_DO[..]);
    let summary = lines(command).await.pop().unwrap();
    assert_eq!(summary["packets_received"], 0, "{summary}");
    assert_eq!(thread.handle.counts().refused, 3);
}

/// A reflector of another make. Killed at the end.
struct Reflector(Child);

impl Reflector {
    /// Starts it, and waits until it says that it listens.
    fn start(port: u16) -> Self {
        let mut command = stamp_suite();
        command
            .args([
                "--is-reflector",
                "--local-port",
                &port.to_string(),
                "--stateful-reflector",
            ])
            .args(AS_MEMBERS_DO)
            .args(["--hmac-key", &key_as_text()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut reflector = Self(command.spawn().unwrap());
        let mut said = String::new();
        let mut log = BufReader::new(reflector.0.stderr.as_mut().unwrap());
        while !said.contains("listening") {
            // At the end there is no more to read.
            assert!(log.read_line(&mut said).unwrap() > 0, "{said}");
        }
        reflector
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        // It may have ended by itself: then the test has failed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "needs what testbed/interop installs"]
async fn our_sender_measures_to_another_implementation_s_reflector() {
    // It takes no "any free port".
    let port = UdpSocket::bind((LOCAL, 0)).unwrap().local_addr().unwrap().port();
    let _reflector = Reflector::start(port);
    let mut sender = Thread::start(false);
    sender.send(port, SSID, &keys());
    for _ in 0..20 {
        match sender.news().await {
            StampNews::Sample(sample) => {
                assert!(
                    !sample.network.is_zero() && !sample.peer_host.is_zero(),
                    "{sample:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
