//! STAMP over a real link with real loss: two network namespaces that the test makes itself, joined by a veth pair, with an
//! agent in each. Needs root, `ip` and `iptables`; without them the tests say so and end.

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
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use peernet_api::{
    envelope,
    report::{NetworkReport, PATH, Report, StampClock},
};

use crate::support::{eventually, lab::run};

/// Two namespaces, a and b, with a link between them.
struct Link {
    names: [String; 2],
    secret: PathBuf,
}

impl Link {
    /// `None`, and the reason in the test's output, where that can't be made.
    fn new(test: &str) -> Option<Self> {
        let id = std::process::id();
        let secret = std::env::temp_dir().join(format!("peernet-namespaces-{id}-{test}"));
        fs::write(&secret, [7; 32]).unwrap();
        let link = Self {
            names: [format!("peernet-{id}-{test}-a"), format!("peernet-{id}-{test}-b")],
            secret,
        };
        let [a, b] = &link.names;
        let made = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add eth0 netns {a} type veth peer name eth0 netns {b}"),
            format!("-n {a} addr add 192.0.2.1/24 dev eth0"),
            format!("-n {b} addr add 192.0.2.2/24 dev eth0"),
            format!("-n {a} link set lo up"),
            format!("-n {b} link set lo up"),
            format!("-n {a} link set eth0 up"),
            format!("-n {b} link set eth0 up"),
        ]
        .iter()
        .try_for_each(|arguments| run("ip", arguments));
        match made.and_then(|()| link.iptables(0, "-L")) {
            Ok(()) => Some(link),
            Err(reason) => {
                println!("skipped: no namespaces here ({reason})");
                None
            }
        }
    }

    /// IPv6 is not everywhere.
    fn add_ipv6(&self) -> bool {
        let [a, b] = &self.names;
        let added = run("ip", &format!("-n {a} addr add 2001:db8::1/64 dev eth0 nodad"))
            .and_then(|()| run("ip", &format!("-n {b} addr add 2001:db8::2/64 dev eth0 nodad")));
        if let Err(reason) = &added {
            println!("skipped: no IPv6 here ({reason})");
        }
        added.is_ok()
    }

    fn iptables(&self, n: usize, arguments: &str) -> Result<(), String> {
        run(
            "ip",
            &format!("netns exec {} iptables -w {arguments}", self.names[n]),
        )
    }

    /// An agent in one of the namespaces.
    fn agent(&self, n: usize, address: &str, seeds: &str) -> Agent {
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.names[n],
                env!("CARGO_BIN_EXE_peernet-node"),
            ])
            .env("PEERNET_NETWORK", "demo/mesh")
            .env("PEERNET_NAME", format!("mesh-{n}"))
            .env("PEERNET_POD_IP", address)
            .env("PEERNET_SECRET_FILE", &self.secret)
            .env("PEERNET_SEEDS", seeds)
            .env("PEERNET_MDNS", "false")
            .env("PEERNET_PROBE_INTERVAL", "20ms")
            .env("RUST_LOG", "warn")
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Agent {
            child,
            namespace: self.names[n].clone(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in &self.names {
            // An error says that it was never made.
            let _ = run("ip", &format!("netns del {name}"));
        }
        fs::remove_file(&self.secret).unwrap();
    }
}

struct Agent {
    child: Child,
    namespace: String,
}

impl Agent {
    /// Asks from within the namespace: nothing leads there from outside.
    fn report(&self) -> Result<Report, String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET {PATH}?nonce=00 HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        );
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "bash", "-c", &script])
            .output()
            .map_err(|error| error.to_string())?;
        let head = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
        let head = head.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let (report, _) = envelope::open(&output.stdout[head + 4..]).map_err(|error| error.to_string())?;
        Ok(report)
    }

    /// What it says of the network to the other one, once that is good enough.
    async fn network_when(&self, what: &str, good: impl Fn(&NetworkReport) -> bool) -> NetworkReport {
        eventually(what, || async {
            let report = self.report()?;
            let network = report.peers.first().and_then(|peer| peer.network.clone());
            network.filter(&good).ok_or_else(|| format!("{:?}", report.peers))
        })
        .await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn loss_is_told_with_its_direction() {
    let Some(link) = Link::new("loss") else {
        return;
    };
    // Every third request to b is lost before it reaches b, and every fourth answer to b before it reaches b: the former on
    // the way there for a, the latter on the way back for b.
    let drop_nth = |what: &str, every: u32| {
        let rule =
            format!("-A INPUT -p udp {what} 8620 -m statistic --mode nth --every {every} --packet 0 -j DROP");
        link.iptables(1, &rule).unwrap();
    };
    drop_nth("--dport", 3);
    drop_nth("--sport", 4);
    let a = link.agent(0, "192.0.2.1", "");
    let b = link.agent(1, "192.0.2.2", "192.0.2.1:4001");

    // What is lost is counted two seconds after it was sent, which is 100 probes: 33 lost ones, or 25.
    let network = a
        .network_when("answers to a", |network| network.answered >= 400)
        .await;
    assert_eq!(network.clock, StampClock::Kernel);
    let (forward, expected) = (network.lost_forward, network.answered / 2);
    assert!(
        forward + 60 >= expected && forward <= expected + 60,
        "{network:?}"
    );
    assert_eq!(network.lost_backward, 0, "{network:?}");

    let network = b
        .network_when("answers to b", |network| network.answered >= 400)
        .await;
    let (backward, expected) = (network.lost_backward, network.answered / 3);
    assert!(
        backward + 50 >= expected && backward <= expected + 50,
        "{network:?}"
    );
    assert_eq!(network.lost_forward, 0, "{network:?}");
    // Whose answer is lost has no round trip, nor has the one before: its t3 was in the lost answer.
    assert!(
        network.rtt.count() + network.voided >= network.answered * 9 / 10,
        "{network:?}"
    );
}

#[tokio::test]
async fn the_kernel_stamps_ipv6_too() {
    let Some(link) = Link::new("six") else {
        return;
    };
    if !link.add_ipv6() {
        return;
    }
    let a = link.agent(0, "2001:db8::1", "");
    let b = link.agent(1, "2001:db8::2", "[2001:db8::1]:4001");
    for agent in [&a, &b] {
        let network = agent
            .network_when("samples", |network| network.rtt.count() >= 20)
            .await;
        assert_eq!(network.clock, StampClock::Kernel);
        assert!(network.rtt.quantile(500).unwrap() > 0);
    }
}

/// The kernel numbers what it stamps. A send that fails half-way uses up a number or does not: the stamps after it must
/// still be those of their own packets.
#[tokio::test]
async fn sends_that_the_kernel_refuses_leave_the_stamps_of_the_others_in_order() {
    let Some(link) = Link::new("refused") else {
        return;
    };
    let rule = "-A OUTPUT -p udp --dport 8620 -m statistic --mode nth --every 3 --packet 0 -j DROP";
    link.iptables(0, rule).unwrap();
    let a = link.agent(0, "192.0.2.1", "");
    let _b = link.agent(1, "192.0.2.2", "192.0.2.1:4001");
    let network = a
        .network_when("answers to a", |network| network.answered >= 200)
        .await;
    assert_eq!(network.clock, StampClock::Kernel);
    // It is known at once, and nothing is on the way for long.
    let (forward, expected) = (network.lost_forward, network.answered / 2);
    assert!(forward + 5 >= expected && forward <= expected + 5, "{network:?}");
    assert!(network.rtt.count() + 40 >= network.answered, "{network:?}");
}
