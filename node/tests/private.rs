//! Private networks over loopback: who has the key is in, who has none or another is out and counted, other
//! implementations understand it, and a key is replaced without anybody noticing.

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
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, Transport,
    core::upgrade::Version,
    identity::Keypair,
    noise, ping,
    pnet::{self, PnetConfig},
    swarm::SwarmEvent,
    tcp, yamux,
};
use peernet_api::{
    private_key::PreSharedKey,
    report::{Report, StrangerReason},
};
use peernet_node::{
    agent::Agent,
    config::{Config, Private},
    discovery::Address,
    private::Keys,
    probation::Probation,
    transport,
};
use tokio::time::{sleep, timeout};

use crate::support::{
    DEADLINE, config, eventually, meshed, metric, metric_reaches, report, row, row_when, swarms::listen,
};

const GRACE: Duration = Duration::from_secs(600);

fn key(byte: u8) -> PreSharedKey {
    PreSharedKey::new([byte; 32])
}

/// An agent with a key that does not follow from its secret.
fn keyed(mut config: Config, key: PreSharedKey) -> Config {
    config.private = Some(Private {
        keys: vec![key],
        file: None,
        reread: Duration::from_millis(20),
        grace: GRACE,
    });
    config
}

/// What the kubelet would mount for one agent.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(test: &str, agent: usize, keys: &[PreSharedKey]) -> Self {
        let name = format!("peernet-private-{}-{test}-{agent}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.hold(keys);
        file
    }

    fn hold(&self, keys: &[PreSharedKey]) {
        self.write(&keys.iter().map(PreSharedKey::to_file).collect::<String>());
    }

    /// Whole or not at all, as the kubelet does it.
    fn write(&self, text: &str) {
        let next = self.0.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.0).unwrap();
    }

    fn agent(&self, mut config: Config, grace: Duration) -> Config {
        config.private = Some(Private {
            keys: peernet_node::config::swarm_keys(&self.0).unwrap(),
            file: Some(self.0.clone()),
            reread: Duration::from_millis(20),
            grace,
        });
        config
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[tokio::test]
async fn who_has_none_or_another_key_is_counted_by_its_address_and_in_no_number() {
    let a = Agent::start(keyed(config(1, "mesh-0", &[]), key(1)))
        .await
        .unwrap();
    let b = Agent::start(keyed(config(1, "mesh-1", &[a.p2p_address()]), key(1)))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;
    // They hold the network's secret, and bear the names of members.
    let seeds = [a.p2p_address(), b.p2p_address()];
    let without = Agent::start(config(1, "mesh-2", &seeds)).await.unwrap();
    let another = Agent::start(keyed(config(1, "mesh-3", &seeds), key(2)))
        .await
        .unwrap();
    for agent in [&a, &b] {
        let known = report(agent).await;
        for reason in ["without_key", "another_key"] {
            let name = format!("peernet_private_network_refused_total{{reason=\"{reason}\"}}");
            metric_reaches(agent, &name, 2.0).await;
        }
        // Once it has measured on, so that whatever the strangers did would show.
        let peer = if agent.peer_id() == a.peer_id() { &b } else { &a };
        let answered = row(&known, &peer.peer_id()).unwrap().answered;
        row_when(agent, &peer.peer_id(), "more round trips", |row| {
            row.answered > answered + 20
        })
        .await;
        let report = report(agent).await;
        assert_eq!(report.peers.len(), 1, "{:?}", report.peers);
        assert_eq!((report.peers[0].timed_out, report.peers[0].failed), (0, 0));
        assert_eq!(metric(agent, "peernet_connections").await, 1.0);
        let strangers = report.strangers;
        assert!(
            strangers.without_key >= 2 && strangers.another_key >= 2,
            "{strangers:?}"
        );
        assert_eq!(strangers.no_member, 0, "none of them came that far");
        let mut named: Vec<_> = strangers
            .recent
            .iter()
            .map(|stranger| (stranger.reason, stranger.address.as_str()))
            .collect();
        named.sort();
        assert_eq!(
            named,
            [
                (StrangerReason::WithoutKey, "127.0.0.1"),
                (StrangerReason::AnotherKey, "127.0.0.1")
            ]
        );
        let keys = report.private_network.unwrap();
        assert_eq!((keys.key, keys.accepted), (key(1).fingerprint(), Vec::new()));
    }
    for outsider in [&without, &another] {
        let report = report(outsider).await;
        assert!(report.peers.is_empty(), "{:?}", report.peers);
        assert!(metric(outsider, "peernet_dials_total{result=\"connected\"}").await == 0.0);
    }
}

#[tokio::test]
async fn without_a_file_the_key_follows_from_the_secret() {
    let derived = |secret, name, seeds: &[SocketAddr]| {
        let config = config(secret, name, seeds);
        let key = config.secret.pre_shared_key();
        keyed(config, key)
    };
    let a = Agent::start(derived(2, "mesh-0", &[])).await.unwrap();
    let seeds = [a.p2p_address()];
    let b = Agent::start(derived(2, "mesh-1", &seeds)).await.unwrap();
    let stranger = Agent::start(derived(3, "mesh-1", &seeds)).await.unwrap();
    meshed(&[&a, &b]).await;
    let name = "peernet_private_network_refused_total{reason=\"another_key\"}";
    metric_reaches(&a, name, 1.0).await;
    assert!(report(&stranger).await.peers.is_empty());
}

/// A swarm with libp2p's own private network, or with ours.
fn swarm(stock: Option<&PreSharedKey>, ours: &[PreSharedKey]) -> Swarm<ping::Behaviour> {
    let identity = Keypair::generate_ed25519();
    let transport = match stock {
        Some(key) => {
            let pnet = PnetConfig::new(pnet::PreSharedKey::new(*key.bytes()));
            tcp::tokio::Transport::new(tcp::Config::default())
                .and_then(move |socket, _| pnet.handshake(socket))
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(&identity).unwrap())
                .multiplex(yamux::Config::default())
                .boxed()
        }
        None => transport::build(
            &identity,
            &[peernet_api::transport::Transport::Tcp],
            Some(&Keys::new(ours.to_vec(), GRACE)),
            &Probation::off(),
            None,
            tokio::runtime::Handle::current(),
        )
        .unwrap(),
    };
    let pings = ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(10)));
    let config =
        libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
    Swarm::new(transport, pings, identity.public().to_peer_id(), config)
}

/// Whether the dialer gets answers to its pings from the listener.
async fn understand(mut dialer: Swarm<ping::Behaviour>, mut listener: Swarm<ping::Behaviour>) -> bool {
    let address: Multiaddr = listen(&mut listener).await;
    tokio::spawn(async move {
        loop {
            listener.select_next_some().await;
        }
    });
    dialer.dial(address).unwrap();
    let mut answered = 0;
    let met = async {
        loop {
            match dialer.select_next_some().await {
                SwarmEvent::Behaviour(ping::Event { result, .. }) => {
                    result.unwrap();
                    answered += 1;
                    if answered == 20 {
                        return true;
                    }
                }
                SwarmEvent::OutgoingConnectionError { .. } => return false,
                _ => {}
            }
        }
    };
    timeout(DEADLINE, met).await.expect("an answer or an end")
}

/// Whether the dialer comes as far as to say who it is.
async fn gets_in(mut dialer: Swarm<ping::Behaviour>, address: SocketAddr) -> bool {
    dialer.dial(Multiaddr::from(Address::tcp(address))).unwrap();
    let met = async {
        loop {
            match dialer.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return true,
                SwarmEvent::OutgoingConnectionError { .. } => return false,
                _ => {}
            }
        }
    };
    timeout(DEADLINE, met).await.expect("a connection or an end")
}

#[tokio::test]
async fn libp2p_s_own_private_network_understands_ours_in_both_directions() {
    let stock = |byte| swarm(Some(&key(byte)), &[]);
    let ours = |bytes: &[u8]| swarm(None, &bytes.iter().map(|byte| key(*byte)).collect::<Vec<_>>());
    assert!(understand(stock(1), ours(&[1])).await, "it dials us");
    assert!(understand(ours(&[1]), stock(1)).await, "we dial it");
    assert!(
        understand(stock(1), ours(&[2, 1])).await,
        "by a key that we accept"
    );
    assert!(
        understand(ours(&[2, 1]), ours(&[1])).await,
        "by the key of the one that is dialed"
    );
    assert!(!understand(stock(1), ours(&[2])).await);
    assert!(!understand(ours(&[1]), ours(&[2])).await);
}

#[test]
fn libp2p_s_own_private_network_reads_our_file_and_we_read_its() {
    let theirs: pnet::PreSharedKey = key(7).to_file().parse().unwrap();
    assert_eq!(theirs.to_key_file(), key(7).to_file());
    let read = peernet_api::private_key::parse(theirs.to_key_file().as_bytes());
    assert_eq!(read, Ok(vec![key(7)]));
}

#[tokio::test]
async fn a_former_key_is_accepted_for_a_while_and_a_file_that_is_damaged_changes_nothing() {
    let grace = Duration::from_secs(3);
    let file = KeyFile::new("former", 0, &[key(1)]);
    let a = Agent::start(file.agent(config(5, "mesh-0", &[]), grace))
        .await
        .unwrap();
    let seeds = [a.p2p_address()];
    let b = Agent::start(keyed(config(5, "mesh-1", &seeds), key(1)))
        .await
        .unwrap();
    meshed(&[&a, &b]).await;

    file.write("/key/swarm/psk/1.0.0/\n/base16/\nsecret that is no key\n");
    sleep(Duration::from_millis(200)).await;
    let c = Agent::start(keyed(config(5, "mesh-2", &seeds), key(1)))
        .await
        .unwrap();
    meshed(&[&a, &c]).await;
    fs::remove_file(&file.0).unwrap();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(
        report(&a).await.private_network.unwrap().key,
        key(1).fingerprint()
    );

    file.hold(&[key(2)]);
    let changed = Instant::now();
    let with_both = eventually("the new key", || async {
        let keys = report(&a).await.private_network.unwrap();
        if keys.key == key(2).fingerprint() {
            Ok(keys)
        } else {
            Err(format!("{keys:?}"))
        }
    })
    .await;
    let d = Agent::start(keyed(config(5, "mesh-3", &seeds), key(1)))
        .await
        .unwrap();
    let e = Agent::start(keyed(config(5, "mesh-4", &seeds), key(2)))
        .await
        .unwrap();
    meshed(&[&a, &e]).await;
    if changed.elapsed() < grace {
        assert_eq!(with_both.accepted, [key(1).fingerprint()]);
    }
    // On a machine that is busy enough, the grace is over before it could start.
    let failed = eventually("the former key to be accepted, or to come too late", || async {
        let failed = metric(&d, "peernet_dials_total{result=\"failed\"}").await;
        if failed > 0.0 || metric(&d, "peernet_peers").await > 0.0 {
            Ok(failed)
        } else {
            Err("neither".to_owned())
        }
    })
    .await;
    if failed == 0.0 {
        meshed(&[&a, &d]).await;
    }

    sleep(grace.saturating_sub(changed.elapsed()) + Duration::from_millis(500)).await;
    assert!(report(&a).await.private_network.unwrap().accepted.is_empty());
    let late = Agent::start(keyed(config(5, "mesh-5", &seeds), key(1)))
        .await
        .unwrap();
    let name = "peernet_private_network_refused_total{reason=\"another_key\"}";
    metric_reaches(&a, name, 1.0).await;
    assert!(report(&late).await.peers.is_empty());
    // What stood stands.
    let row = row_when(&a, &b.peer_id(), "the first one", |row| row.connected).await;
    assert_eq!((row.timed_out, row.failed), (0, 0), "{row:?}");
}

/// Probes that were lost, by pair.
fn lost(reports: &[Report]) -> Vec<(String, String, u64)> {
    let rows = reports.iter().flat_map(|report| {
        report.peers.iter().map(|row| {
            let from = report.name.clone();
            (from, row.name.clone(), row.timed_out + row.failed)
        })
    });
    rows.filter(|(.., lost)| *lost > 0).collect()
}

/// 100 rotations at some 600 times the pace at which a cluster could do them, while everybody measures everybody and one
/// member after the other starts anew in the middle of it.
#[tokio::test]
async fn a_hundred_rotations_lose_no_sample_of_any_pair() {
    const ROTATIONS: u8 = 100;
    const STABLE: usize = 4;
    let held = |n: u8| {
        if n == 0 {
            vec![key(0)]
        } else {
            vec![key(n), key(n - 1)]
        }
    };
    let files: Vec<KeyFile> = (0..=STABLE)
        .map(|n| KeyFile::new("rotation", n, &held(0)))
        .collect();
    let mut stable: Vec<Agent> = Vec::new();
    for (n, file) in files.iter().enumerate().take(STABLE) {
        let seeds: Vec<SocketAddr> = stable.iter().map(Agent::p2p_address).collect();
        let config = file.agent(config(6, &format!("mesh-{n}"), &seeds), Duration::from_secs(2));
        stable.push(Agent::start(config).await.unwrap());
    }
    meshed(&stable.iter().collect::<Vec<_>>()).await;
    let seeds: Vec<SocketAddr> = stable.iter().map(Agent::p2p_address).collect();
    let newcomer = &files[STABLE];
    let (mut joins, mut slowest, begun) = (0, Duration::ZERO, Instant::now());
    for n in 1..=ROTATIONS {
        // Each node's kubelet is at another time: the order turns with every rotation.
        for at in 0..=STABLE {
            files[(at + usize::from(n)) % (STABLE + 1)].hold(&held(n));
            sleep(Duration::from_millis(15)).await;
            // Some have the new key by now, and the others don't.
            if n % 25 == 0 && at == usize::from(n / 25) % STABLE {
                let starts = Instant::now();
                let config = newcomer.agent(config(6, "mesh-9", &seeds), Duration::from_secs(2));
                let joined = Agent::start(config).await.unwrap();
                for agent in &stable {
                    row_when(agent, &joined.peer_id(), "who joins in the middle", |row| {
                        row.connected && row.answered > 0
                    })
                    .await;
                }
                slowest = slowest.max(starts.elapsed());
                joins += 1;
                joined.stop().await.unwrap();
            }
        }
    }
    let newest = key(ROTATIONS).fingerprint();
    let mut reports = Vec::new();
    for agent in &stable {
        eventually("the last key", || async {
            let keys = report(agent).await.private_network.unwrap();
            if keys.key == newest {
                Ok(())
            } else {
                Err(format!("{keys:?}"))
            }
        })
        .await;
        let mut report = report(agent).await;
        assert_eq!(
            report.strangers.total(),
            0,
            "no member was taken for a stranger: {report:?}"
        );
        report.peers.retain(|row| row.name != "mesh-9");
        assert_eq!(report.peers.len(), STABLE - 1);
        assert!(report.peers.iter().all(|row| row.connected), "{:?}", report.peers);
        reports.push(report);
    }
    let answered: u64 = reports
        .iter()
        .flat_map(|report| &report.peers)
        .map(|row| row.answered)
        .sum();
    let lost = lost(&reports);
    eprintln!(
        "{ROTATIONS} rotations in {:.0?}, {} pairs, {answered} probes answered, pairs that lost one: {}; \
         {joins} joined in between, the slowest within {slowest:.1?}",
        begun.elapsed(),
        STABLE * (STABLE - 1),
        lost.len()
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert!(answered > 1_000 && joins == 4);
}

/// The same way with one key a file, as somebody does who just puts a new one there.
#[tokio::test]
async fn a_key_that_is_simply_replaced_splits_nothing_either() {
    let files: Vec<KeyFile> = (0..3).map(|n| KeyFile::new("replaced", n, &[key(0)])).collect();
    let mut agents: Vec<Agent> = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let seeds: Vec<SocketAddr> = agents.iter().map(Agent::p2p_address).collect();
        let config = file.agent(config(7, &format!("mesh-{n}"), &seeds), GRACE);
        agents.push(Agent::start(config).await.unwrap());
    }
    meshed(&agents.iter().collect::<Vec<_>>()).await;
    for n in 1..=10 {
        // One after the other, and whoever connects meanwhile has the key before: both know it. Each agent is tried once a rotation: who
        // comes more often and is no member has to wait.
        for (file, agent) in files.iter().zip(agents.iter().cycle().skip(usize::from(n))) {
            file.hold(&[key(n)]);
            let guest = swarm(None, &[key(n - 1)]);
            assert!(
                gets_in(guest, agent.p2p_address()).await,
                "by key {} at rotation {n}",
                n - 1
            );
        }
        for agent in &agents {
            eventually("the new key", || async {
                let keys = report(agent).await.private_network.unwrap();
                if keys.key == key(n).fingerprint() {
                    Ok(())
                } else {
                    Err(format!("{keys:?}"))
                }
            })
            .await;
        }
    }
    for agent in &agents {
        let report = report(agent).await;
        assert_eq!(lost(std::slice::from_ref(&report)), [], "{:?}", report.peers);
        assert!(report.peers.len() == 2 && report.peers.iter().all(|row| row.connected));
        let strangers = report.strangers;
        assert_eq!(
            (strangers.without_key, strangers.another_key),
            (0, 0),
            "{strangers:?}"
        );
    }
}
