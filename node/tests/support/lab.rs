//! Hosts in network namespaces of the test's own, joined as the test says, with agents as processes in them. Needs root, `ip`
//! and `iptables`; without them the tests say so and end.

use std::process::Command;

use super::program::Agent;

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
        let lab = Self {
            name,
            hosts: hosts.len(),
            networks,
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
    pub(crate) fn agent(&self, host: usize, settings: &[(&str, &str)]) -> Agent {
        let common = [("PEERNET_MDNS", "false"), ("PEERNET_PROBE_INTERVAL", "50ms")];
        let settings = [&common, settings].concat();
        Agent::start(&self.namespace(host), &format!("mesh-{host}"), &settings)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hosts = (0..self.hosts).map(|host| self.namespace(host));
        for name in hosts.chain((0..self.networks).map(|network| self.bridge(network))) {
            // An error says that it was never made.
            let _ = run("ip", &format!("netns del {name}"));
        }
    }
}
