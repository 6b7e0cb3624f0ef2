//! Hosts in network namespaces of the test's own, joined as the test says, with agents as processes in them. Needs root, `ip`
//! and `iptables`; without them the tests say so and end.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use peernet_api::{
    envelope,
    report::{PATH, PeerReport, Report},
};

use super::eventually;

/// One host, and its addresses on the networks that it is on.
pub(crate) struct Host {
    /// Networks, by number, and the address there with its prefix.
    pub(crate) networks: &'static [(usize, &'static str)],
}

/// The hosts of a test, until this goes. Each network is a bridge in a namespace of its own: it has no address, and forwards
/// to no other.
pub(crate) struct Lab {
    name: String,
    hosts: usize,
    networks: usize,
    secret: PathBuf,
}

pub(crate) fn run(program: &str, arguments: &str) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

impl Lab {
    /// `None`, and the reason in the test's output, where that can't be made.
    pub(crate) fn new(test: &str, networks: usize, hosts: &[Host]) -> Option<Self> {
        let name = format!("peernet-{}-{test}", std::process::id());
        let secret = std::env::temp_dir().join(&name);
        fs::write(&secret, [7; 32]).unwrap();
        let lab = Self {
            name,
            hosts: hosts.len(),
            networks,
            secret,
        };
        match lab.build(hosts) {
            Ok(()) => Some(lab),
            Err(reason) => {
                eprintln!("skipped: no namespaces here ({reason})");
                None
            }
        }
    }

    fn build(&self, hosts: &[Host]) -> Result<(), String> {
        for network in 0..self.networks {
            let bridge = self.bridge(network);
            run("ip", &format!("netns add {bridge}"))?;
            run("ip", &format!("-n {bridge} link add br0 type bridge"))?;
            run("ip", &format!("-n {bridge} link set br0 up"))?;
        }
        for (n, host) in hosts.iter().enumerate() {
            let namespace = self.namespace(n);
            run("ip", &format!("netns add {namespace}"))?;
            run("ip", &format!("-n {namespace} link set lo up"))?;
            for (network, address) in host.networks {
                let bridge = self.bridge(*network);
                let (inner, outer) = (format!("eth{network}"), format!("host{n}"));
                run(
                    "ip",
                    &format!("link add {inner} netns {namespace} type veth peer name {outer} netns {bridge}"),
                )?;
                run("ip", &format!("-n {bridge} link set {outer} master br0"))?;
                run("ip", &format!("-n {bridge} link set {outer} up"))?;
                run("ip", &format!("-n {namespace} addr add {address} dev {inner}"))?;
                run("ip", &format!("-n {namespace} link set {inner} up"))?;
            }
        }
        self.iptables(0, "-L")
    }

    fn bridge(&self, network: usize) -> String {
        format!("{}-net{network}", self.name)
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    pub(crate) fn iptables(&self, host: usize, arguments: &str) -> Result<(), String> {
        let namespace = self.namespace(host);
        run("ip", &format!("netns exec {namespace} iptables -w {arguments}"))
    }

    /// An agent on a host, with these settings beyond those that all have.
    pub(crate) fn agent(&self, host: usize, settings: &[(&str, &str)]) -> LabAgent {
        let namespace = self.namespace(host);
        let child = Command::new("ip")
            .args(["netns", "exec", &namespace, env!("CARGO_BIN_EXE_peernet-node")])
            .env("PEERNET_NETWORK", "demo/mesh")
            .env("PEERNET_NAME", format!("mesh-{host}"))
            .env("PEERNET_SECRET_FILE", &self.secret)
            .env("PEERNET_MDNS", "false")
            .env("PEERNET_PROBE_INTERVAL", "50ms")
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()),
            )
            .envs(settings.iter().copied())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        LabAgent { child, namespace }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hosts = (0..self.hosts).map(|host| self.namespace(host));
        for name in hosts.chain((0..self.networks).map(|network| self.bridge(network))) {
            // An error says that it was never made.
            let _ = run("ip", &format!("netns del {name}"));
        }
        fs::remove_file(&self.secret).unwrap();
    }
}

/// An agent of a lab.
pub(crate) struct LabAgent {
    child: Child,
    namespace: String,
}

impl LabAgent {
    /// Asks from within the namespace: nothing leads there from outside.
    fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        );
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "bash", "-c", &script])
            .output()
            .map_err(|error| error.to_string())?;
        let head = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
        let head = head.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(output.stdout[head + 4..].to_vec())
    }

    pub(crate) fn report(&self) -> Result<Report, String> {
        let (report, _) =
            envelope::open(&self.get(&format!("{PATH}?nonce=00"))?).map_err(|error| error.to_string())?;
        Ok(report)
    }

    /// Its row about a member, once that is as asked for.
    pub(crate) async fn row_when(
        &self,
        name: &str,
        what: &str,
        good: impl Fn(&PeerReport) -> bool,
    ) -> PeerReport {
        eventually(what, || async {
            let report = self.report()?;
            let row = report.peers.iter().find(|row| row.name == name);
            match row {
                Some(row) if good(row) => Ok(row.clone()),
                _ => Err(format!("{:?}", report.peers)),
            }
        })
        .await
    }

    /// The value of a metric, by its name with labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, String> {
        let text = String::from_utf8_lossy(&self.get("/metrics")?).into_owned();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .ok_or_else(|| format!("no {name} in\n{text}"))?
            .parse()
            .map_err(|error| format!("{name}: {error}"))
    }

    /// Waits until a metric is as asked for.
    pub(crate) async fn metric_when(&self, name: &str, good: impl Fn(f64) -> bool) -> f64 {
        eventually(name, || async {
            let value = self.metric(name)?;
            if good(value) {
                Ok(value)
            } else {
                Err(value.to_string())
            }
        })
        .await
    }
}

impl Drop for LabAgent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
