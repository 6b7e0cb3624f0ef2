//! Two bare network namespaces with a router between them, and the agents' program run in them directly.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use peernet_api::{
    envelope,
    report::{HTTP_PORT, P2P_PORT, PATH, Report},
};
use peernet_e2e::{
    Outcome,
    command::run,
    network::row_about,
    settings::SETTINGS,
    truth::traces::{self, Trace},
    waiting::{ensure, eventually},
};
use tokio::process::Child;

use crate::{place::Place, programs};

/// `testbed/cluster down` clears namespaces with this beginning, should a killed run have left them.
const PREFIX: &str = "pn-truth-";
const ROUTER: &str = "pn-truth-router";
/// As in the agents' image.
const USER: &str = "65532";
/// Any will do.
const SECRET: [u8; 32] = *b"the truth bench's network secret";
const NONCE: &str = "0123456789abcdef";

/// The namespaces: `a` and `b`, each with a leg to the router.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) a: Place,
    pub(crate) b: Place,
    pub(crate) router: Place,
    /// Everything that a run writes.
    pub(crate) folder: PathBuf,
}

impl Lab {
    pub(crate) async fn build() -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("peernet-truth-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        // The agents are another user.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        fs::write(folder.join("secret"), SECRET)?;
        fs::copy(programs::agent()?, folder.join("peernet-node"))?;
        remove_namespaces();
        let lab = Self {
            a: place("a", Ipv4Addr::new(10, 79, 1, 2)),
            b: place("b", Ipv4Addr::new(10, 79, 2, 2)),
            router: place("router", Ipv4Addr::new(10, 79, 1, 1)),
            folder,
        };
        ip(&["netns", "add", ROUTER]).await?;
        for (name, place) in [("a", &lab.a), ("b", &lab.b)] {
            let (space, leg) = (format!("{PREFIX}{name}"), format!("to-{name}"));
            let gateway = Ipv4Addr::from(u32::from(place.ip) - 1).to_string();
            let (own, other) = (format!("{}/24", place.ip), format!("{gateway}/24"));
            ip(&["netns", "add", &space]).await?;
            ip(&[
                "link", "add", "eth0", "netns", &space, "type", "veth", "peer", "name", &leg, "netns", ROUTER,
            ])
            .await?;
            ip(&["-n", &space, "link", "set", "lo", "up"]).await?;
            ip(&["-n", &space, "addr", "add", &own, "dev", "eth0"]).await?;
            ip(&["-n", &space, "link", "set", "eth0", "up"]).await?;
            ip(&["-n", ROUTER, "addr", "add", &other, "dev", &leg]).await?;
            ip(&["-n", ROUTER, "link", "set", &leg, "up"]).await?;
            ip(&["-n", &space, "route", "add", "default", "via", &gateway]).await?;
        }
        lab.router
            .output("sh", &["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
            .await?;
        Ok(lab)
    }

    /// Starts an agent in each namespace and waits until both know the network between them.
    pub(crate) async fn agents(&self, pace: Duration, further: &[(&str, &str)]) -> Outcome<[Agent; 2]> {
        let agents = [
            self.agent(&self.a, "a", &[self.b.ip], pace, further)?,
            self.agent(&self.b, "b", &[self.a.ip], pace, further)?,
        ];
        for (agent, peer) in [(&agents[0], "b"), (&agents[1], "a")] {
            eventually(format!("agent {} to measure", agent.name), async || {
                let report = agent.report().await?;
                let row = row_about(&report, peer).ok();
                let pinged = row.map_or(0, |row| row.answered);
                let stamped = row.and_then(|row| Some(row.network.as_ref()?.answered));
                let wanted = !further.contains(&("PEERNET_STAMP", "false"));
                ensure(
                    pinged > 0 && (stamped.is_some_and(|number| number > 0) || !wanted),
                    || format!("{pinged} pings answered, {stamped:?} of STAMP's probes"),
                )
            })
            .await?;
        }
        Ok(agents)
    }

    /// Starts an agent.
    pub(crate) fn agent(
        &self,
        place: &Place,
        name: &str,
        seeds: &[Ipv4Addr],
        pace: Duration,
        further: &[(&str, &str)],
    ) -> Outcome<Agent> {
        let log = self.folder.join(format!("{name}.log"));
        let program = self.folder.join("peernet-node");
        let program = program.to_string_lossy();
        let seeds: Vec<String> = seeds.iter().map(|ip| format!("{ip}:{P2P_PORT}")).collect();
        // As a pod would run it.
        let arguments = [
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
            "--",
            &program,
        ];
        let mut command = place.command(Path::new("setpriv"), &arguments);
        let output = fs::File::create(&log)?;
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PEERNET_NETWORK", "truth/bare")
            .env("PEERNET_NAME", name)
            .env("PEERNET_POD_IP", place.ip.to_string())
            .env("PEERNET_API_PORT", "0")
            .env("PEERNET_SECRET_FILE", self.folder.join("secret"))
            .env("PEERNET_PROBE_INTERVAL", format!("{}ms", pace.as_millis()))
            .env("PEERNET_PROBE_WINDOW", "1h")
            .env("PEERNET_SEEDS", seeds.join(","))
            .env("PEERNET_MDNS", "false")
            .env("PEERNET_KADEMLIA", "false")
            .env("LOG_FORMAT", "json")
            .env("RUST_LOG", "info,peernet_node::stamp=trace")
            .envs(further.iter().copied())
            .stdout(output.try_clone()?)
            .stderr(output);
        let http_port = further.iter().find(|(name, _)| *name == "PEERNET_HTTP_PORT");
        Ok(Agent {
            http_port: http_port.map_or(Ok(HTTP_PORT), |(_, port)| port.parse())?,
            name: name.to_owned(),
            place: place.clone(),
            log,
            program: command.spawn()?,
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_namespaces();
        if std::env::var_os("PEERNET_TRUTH_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn place(name: &str, ip: Ipv4Addr) -> Place {
    Place {
        net: format!("/run/netns/{PREFIX}{name}").into(),
        groups: Vec::new(),
        ip,
    }
}

fn remove_namespaces() {
    for name in ["a", "b", "router"] {
        // Most often there is none.
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &format!("{PREFIX}{name}")])
            .output();
    }
}

async fn ip(arguments: &[&str]) -> Outcome {
    run("ip", arguments).await.map(drop)
}

/// An agent at work.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) place: Place,
    http_port: u16,
    log: PathBuf,
    program: Child,
}

impl Agent {
    pub(crate) fn id(&self) -> Outcome<u32> {
        Ok(self
            .program
            .id()
            .ok_or_else(|| format!("agent {} has ended: see {}", self.name, self.log.display()))?)
    }

    pub(crate) async fn report(&self) -> Outcome<Report> {
        let (address, path) = (
            format!("{}:{}", self.place.ip, self.http_port),
            format!("{PATH}?nonce={NONCE}"),
        );
        let program = programs::yardstick()?;
        let answer = self
            .place
            .output(&program.to_string_lossy(), &["get", &address, &path])
            .await
            .map_err(|failure| format!("agent {} (log {}): {failure}", self.name, self.log.display()))?;
        Ok(envelope::open(&answer)?.0)
    }

    /// Its samples so far.
    pub(crate) fn traces(&self) -> Outcome<Vec<Trace>> {
        Ok(traces::read(&fs::read_to_string(&self.log)?)?)
    }
}

/// So many busy loops on this machine, until this is dropped.
pub(crate) struct Busy(#[expect(dead_code, reason = "ends them when dropped")] Vec<Child>);

impl Busy {
    pub(crate) fn loops(place: &Place, number: usize) -> Outcome<Self> {
        let loops = (0..number).map(|_| {
            let mut command = place.command(&programs::yardstick()?, &["burn", "600"]);
            Ok(command.spawn()?)
        });
        Ok(Self(loops.collect::<Outcome<_>>()?))
    }
}

/// Delay on the way through the router, in one direction, until this is dropped.
pub(crate) struct Delay {
    log: PathBuf,
    #[expect(dead_code, reason = "ends it when dropped")]
    program: Child,
}

impl Delay {
    pub(crate) async fn begin(
        lab: &Lab,
        from: &Place,
        to: &Place,
        millis: u32,
        jitter: u32,
    ) -> Outcome<Self> {
        let queue = if from.ip < to.ip { "1" } else { "2" };
        let log = lab.folder.join(format!("held-{queue}"));
        let path = log.to_string_lossy();
        let (from, to) = (from.ip.to_string(), to.ip.to_string());
        // Before everything else, so that it holds packets for as long as it should.
        let program = programs::delay()?;
        let program = program.to_string_lossy();
        let (millis, jitter) = (millis.to_string(), jitter.to_string());
        let arguments = ["-f", "1", &program, queue, &millis, &jitter, &path];
        let program = lab
            .router
            .start(Path::new("chrt"), &arguments, &log.with_extension("log"))?;
        eventually("the delaying program", async || Ok(fs::metadata(&log).map(drop)?)).await?;
        let rule = [
            "-w",
            "-t",
            "mangle",
            "-A",
            "FORWARD",
            "-s",
            &from,
            "-d",
            &to,
            "-j",
            "NFQUEUE",
            "--queue-num",
            queue,
            "--queue-bypass",
        ];
        lab.router.output("iptables", &rule).await?;
        Ok(Self { log, program })
    }

    pub(crate) fn held(&self) -> Outcome<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}

/// Ends every delay and loss in the router.
pub(crate) async fn clear(lab: &Lab) -> Outcome {
    lab.router
        .output("iptables", &["-w", "-t", "mangle", "-F", "FORWARD"])
        .await
        .map(drop)
}

/// Loses datagrams on the way through the router, with this probability.
pub(crate) async fn lose(lab: &Lab, from: &Place, to: &Place, percent: f64) -> Outcome {
    let (from, to, probability) = (
        from.ip.to_string(),
        to.ip.to_string(),
        (percent / 100.0).to_string(),
    );
    // The first rule counts all of them, the second one those that are lost.
    let all = [
        "-w", "-t", "mangle", "-A", "FORWARD", "-p", "udp", "-s", &from, "-d", &to,
    ];
    lab.router.output("iptables", &all).await?;
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
    lab.router
        .output("iptables", &[&all[..], &random[..]].concat())
        .await?;
    Ok(())
}

/// How many datagrams [`lose`] has seen, and how many of them it dropped.
pub(crate) async fn lost(lab: &Lab) -> Outcome<(u64, u64)> {
    let listed = lab
        .router
        .output("iptables", &["-w", "-t", "mangle", "-nvxL", "FORWARD"])
        .await?;
    let listed = String::from_utf8(listed)?;
    // Two lines of headings.
    let counts: Vec<u64> = listed
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    match counts.as_slice() {
        [all, dropped] => Ok((*all, *dropped)),
        _ => Err(format!("not the two rules: {listed}").into()),
    }
}

/// The checkout's own programs are needed, and root for the namespaces.
pub(crate) fn possible() -> Outcome {
    programs::agent()?;
    programs::yardstick()?;
    let owner = fs::metadata("/proc/self").map(|found| std::os::unix::fs::MetadataExt::uid(&found))?;
    ensure(owner == 0, || {
        format!(
            "root is missing, to make network namespaces for {}",
            SETTINGS.checkout.display()
        )
    })
}
