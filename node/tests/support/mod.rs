//! What the tests with real agents share. All traffic stays on loopback, and nothing waits for a fixed time: tests wait
//! for what they expect, with a deadline far beyond it.

#![allow(dead_code, reason = "each test program uses its own part of this")]

pub(crate) mod echo;
pub(crate) mod lab;
pub(crate) mod netns;
pub(crate) mod program;
pub(crate) mod stamp;
pub(crate) mod swarms;

use std::{future::Future, net::SocketAddr, time::Duration};

use libp2p::PeerId;
use peernet_api::{
    envelope,
    identity::NetworkSecret,
    report::{PATH, PeerReport, Report, StampClock},
    transport::Transport,
};
use peernet_node::{
    agent::Agent,
    config::{Config, Probe},
    discovery::Address,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

/// Far beyond what anything here takes, also on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

pub(crate) fn secret(byte: u8) -> NetworkSecret {
    NetworkSecret::new(&[byte; 32]).unwrap()
}

/// An agent on loopback, which knows nobody but `seeds`.
pub(crate) fn config(secret_byte: u8, name: &str, seeds: &[SocketAddr]) -> Config {
    Config {
        network: "demo/mesh".to_owned(),
        name: name.to_owned(),
        secret: secret(secret_byte),
        listen: Some([127, 0, 0, 1].into()),
        transports: vec![Transport::Tcp],
        p2p_port: 0,
        websocket_port: 0,
        http: Some(([127, 0, 0, 1], 0).into()),
        http_port: 0,
        api_port: 0,
        api_open: false,
        services: Vec::new(),
        probe: Probe {
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            window: Duration::from_secs(300),
            burst: 5,
        },
        stamp: true,
        stamp_port: 0,
        stamp_open: false,
        stamp_clock: StampClock::Kernel,
        peers_per_node: 64,
        seed_dns: Vec::new(),
        seeds: seeds.iter().copied().map(Address::tcp).collect(),
        mdns: false,
        kademlia: false,
        kademlia_protocol: None,
        bootstrap: Vec::new(),
        private: None,
        guests: 0,
        relay: None,
    }
}

/// Two agents that have met, each with the same change to its configuration.
pub(crate) async fn agents(secret: u8, change: impl Fn(&mut Config)) -> [Agent; 2] {
    let mut first = config(secret, "mesh-0", &[]);
    change(&mut first);
    let first = Agent::start(first).await.unwrap();
    let mut second = config(secret, "mesh-1", &[]);
    change(&mut second);
    second.seeds = first.p2p_addresses().first().copied().into_iter().collect();
    let second = Agent::start(second).await.unwrap();
    meshed(&[&first, &second]).await;
    [first, second]
}

/// Asks until the answer is good enough.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let mut last = String::new();
    let answer = timeout(DEADLINE, async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(why) => last = why,
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    match answer.await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: not within {DEADLINE:?}; last seen: {last}"),
    }
}

/// One HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends raw bytes and reads until the other side closes.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    answer(address, request.as_bytes()).await
}

/// Asks an agent's API.
pub(crate) async fn api(agent: &Agent, method: &str, path: &str, body: &[u8]) -> Answer {
    request(agent, method, path, &[], body).await
}

/// Asks an agent's API with further headers.
pub(crate) async fn request(
    agent: &Agent,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    // It listens on all addresses if it is open.
    let address = SocketAddr::from(([127, 0, 0, 1], agent.api_address().port()));
    answer(address, &[head.as_bytes(), body].concat()).await
}

async fn answer(address: SocketAddr, request: &[u8]) -> Answer {
    let answer = timeout(DEADLINE, exchange(address, request))
        .await
        .unwrap()
        .unwrap();
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("an HTTP head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head,
        body: answer[end + 4..].to_vec(),
    }
}

/// The agent's report, with its signer checked.
pub(crate) async fn report(agent: &Agent) -> Report {
    let nonce = "0123456789abcdef";
    let answer = get(agent.http_address(), &format!("{PATH}?nonce={nonce}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (report, signer) = envelope::open(&answer.body).unwrap();
    assert_eq!((signer, report.nonce.as_str()), (agent.peer_id(), nonce));
    report
}

pub(crate) fn row<'a>(report: &'a Report, peer: &PeerId) -> Option<&'a PeerReport> {
    report.peers.iter().find(|row| row.peer_id == peer.to_string())
}

/// Waits until `agent`'s row about `peer` is as asked for.
pub(crate) async fn row_when(
    agent: &Agent,
    peer: &PeerId,
    what: &str,
    good: impl Fn(&PeerReport) -> bool,
) -> PeerReport {
    eventually(what, || async {
        let report = report(agent).await;
        match row(&report, peer) {
            Some(row) if good(row) => Ok(row.clone()),
            _ => Err(format!("{:?}", report.peers)),
        }
    })
    .await
}

/// Waits until each agent is connected to all the others and has measured them.
pub(crate) async fn meshed(agents: &[&Agent]) {
    for agent in agents {
        for other in agents.iter().filter(|other| other.peer_id() != agent.peer_id()) {
            row_when(agent, &other.peer_id(), "the mesh", |row| {
                row.connected && row.answered >= 3
            })
            .await;
        }
    }
}

/// The value of a metric, by its name with labels.
pub(crate) async fn metric(agent: &Agent, name: &str) -> f64 {
    let text = get(agent.http_address(), "/metrics").await.text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .unwrap()
}

/// Waits until a metric is at least that.
pub(crate) async fn metric_reaches(agent: &Agent, name: &str, least: f64) {
    eventually(name, || async {
        let value = metric(agent, name).await;
        if value >= least {
            Ok(())
        } else {
            Err(value.to_string())
        }
    })
    .await;
}

/// Forwards TCP connections, until it is told to swallow everything that is sent through it.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    frozen: watch::Sender<bool>,
}

impl Forwarder {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, state) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if *state.borrow() {
                        // Neither an answer nor an end, as when a node has lost its power.
                        let _ = state.wait_for(|frozen| !frozen).await;
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => return,
                        _ = state.wait_for(|frozen| *frozen) => {}
                    }
                    let _ = state.wait_for(|frozen| !frozen).await;
                });
            }
        });
        Self { address, frozen }
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}
