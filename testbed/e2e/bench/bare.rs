//! Agents as bare processes on this machine's loopback.

#![expect(clippy::indexing_slicing, reason = "a field that JSON does not have is null")]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use peernet_e2e::{
    Outcome, processes,
    waiting::{ensure, eventually_within},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Ports of each agent: libp2p, HTTP, the API, STAMP, WebSocket.
const PORTS: usize = 5;
const FIRST_PORT: usize = 24_000;
const ANSWER: Duration = Duration::from_secs(30);
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A network of agents that run this program.
#[derive(Debug)]
pub(crate) struct Bare<'a> {
    pub(crate) program: &'a Path,
    pub(crate) network: String,
    /// Beside those that every agent here has.
    pub(crate) variables: Vec<(&'static str, String)>,
    folder: PathBuf,
}

/// An agent, until this goes.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    api: SocketAddr,
}

impl<'a> Bare<'a> {
    pub(crate) fn new(program: &'a Path, network: &str) -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("peernet-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("secret"), [7; 32])?;
        Ok(Self {
            program,
            network: network.to_owned(),
            variables: Vec::new(),
            folder,
        })
    }

    /// Starts the agent of this number. It knows up to three that came before it, others than its neighbours do, so that none
    /// has more callers than it takes. It learns of the rest from them.
    pub(crate) fn start(&self, number: usize) -> Outcome<Agent> {
        let port = |number: usize, which: usize| (FIRST_PORT + number * PORTS + which).to_string();
        let seeds: BTreeSet<String> = [1, 2, number / 2]
            .into_iter()
            .filter_map(|before| number.checked_sub(before))
            .filter(|seed| *seed < number)
            .map(|seed| format!("127.0.0.1:{}", port(seed, 0)))
            .collect();
        let seeds: Vec<String> = seeds.into_iter().collect();
        let child = Command::new(self.program)
            .env_clear()
            .env("PEERNET_NETWORK", &self.network)
            .env("PEERNET_NAME", format!("agent-{number}"))
            .env("PEERNET_POD_IP", "127.0.0.1")
            .env("PEERNET_SECRET_FILE", self.folder.join("secret"))
            .env("PEERNET_P2P_PORT", port(number, 0))
            .env("PEERNET_HTTP_PORT", port(number, 1))
            .env("PEERNET_API_PORT", port(number, 2))
            .env("PEERNET_STAMP_PORT", port(number, 3))
            .env("PEERNET_WEBSOCKET_PORT", port(number, 4))
            .env("PEERNET_SEEDS", seeds.join(","))
            .env("PEERNET_MDNS", "false")
            .env("RUST_LOG", "warn")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let api = SocketAddr::from(([127, 0, 0, 1], port(number, 2).parse()?));
        Ok(Agent { child, api })
    }

    /// Starts so many agents, and waits until each has met so many peers.
    pub(crate) async fn start_all(&self, agents: usize, peers: usize) -> Outcome<Vec<Agent>> {
        let agents = (0..agents)
            .map(|number| self.start(number))
            .collect::<Outcome<Vec<_>>>()?;
        for agent in &agents {
            eventually_within(PATIENCE, "the agents to meet", async || {
                let answer = agent.ask("GET", "/v1/peers", b"").await?.1;
                let met = answer["peers"].as_array().map_or(0, Vec::len);
                ensure(met >= peers, || format!("{met} of {peers} peers"))
            })
            .await?;
        }
        Ok(agents)
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        // Nothing but a key of no value is left if this fails.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Agent {
    /// Resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> Outcome<f64> {
        Ok(processes::resident_kib(self.child.id())? as f64 / 1024.0)
    }

    /// Asks its API, and returns the status and the answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Outcome<(u16, Value)> {
        let answer = timeout(ANSWER, async {
            let mut stream = TcpStream::connect(self.api).await?;
            stream.set_nodelay(true)?;
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), body].concat()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        });
        let answer = String::from_utf8(answer.await??)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let code = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok((code, serde_json::from_str(body)?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
