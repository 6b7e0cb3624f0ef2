//! Two network namespaces of this test's own, with a link between them. Needs root and the programs `ip` and `iptables`.

use std::{fs::File, future::Future, net::Ipv4Addr, process::Command, thread};

use nix::sched::{CloneFlags, setns};

/// Two hosts and the link between them, until this goes.
pub(crate) struct Pair {
    name: String,
}

impl Pair {
    /// The hosts' addresses: nobody else is on this link.
    pub(crate) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

    /// Makes the two, or says why that can't be done here.
    pub(crate) fn new(test: &str) -> Result<Self, String> {
        // Interface names have at most 15 characters.
        let name = format!("{test}{}", std::process::id());
        let pair = Self { name };
        let (a, b) = (pair.namespace(0), pair.namespace(1));
        run("ip", &["netns", "add", &a])?;
        run("ip", &["netns", "add", &b])?;
        let (end_a, end_b) = (pair.link(0), pair.link(1));
        let link = [
            "link", "add", &end_a, "netns", &a, "type", "veth", "peer", "name", &end_b, "netns", &b,
        ];
        run("ip", &link)?;
        for (host, end) in [(0, &end_a), (1, &end_b)] {
            let address = format!("{}/24", Self::ADDRESSES[host]);
            pair.run(host, "ip", &["address", "add", &address, "dev", end])?;
            pair.run(host, "ip", &["link", "set", end, "up"])?;
            pair.run(host, "ip", &["link", "set", "lo", "up"])?;
        }
        Ok(pair)
    }

    /// The name of a host's end of the link.
    pub(crate) fn link(&self, host: usize) -> String {
        format!("{}{}", self.name, ["a", "b"][host])
    }

    /// The name of a host's namespace.
    pub(crate) fn namespace(&self, host: usize) -> String {
        format!("{}{}", self.name, ["a", "b"][host])
    }

    /// Runs a program on a host.
    pub(crate) fn run(&self, host: usize, program: &str, arguments: &[&str]) -> Result<(), String> {
        let namespace = self.namespace(host);
        run(
            "ip",
            &[&["netns", "exec", &namespace, program], arguments].concat(),
        )
    }

    /// Loses packets on their way to a host: so many thousandths of those that the rule's match is true for. Not where
    /// they are sent: TCP would be told of that at once.
    pub(crate) fn lose(&self, host: usize, permille: u32, of: &[&str]) -> Result<(), String> {
        let probability = format!("{}", f64::from(permille) / 1000.0);
        let random = [
            "-m",
            "statistic",
            "--mode",
            "random",
            "--probability",
            &probability,
            "-j",
            "DROP",
        ];
        self.run(host, "iptables", &[&["-A", "INPUT"], of, &random].concat())
    }

    /// Does something on a host: sockets and threads that are made there belong to it.
    pub(crate) fn on<F: Future>(&self, host: usize, work: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        let path = format!("/run/netns/{}", self.namespace(host));
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(work())
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for host in [0, 1] {
            // It may be that it could not be made.
            let _ = run("ip", &["netns", "delete", &self.namespace(host)]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()))
}
