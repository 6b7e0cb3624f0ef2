//! Guests: hosts of the stock rust-libp2p, which hold no secret, at agents that receive them, and at those that don't.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, kad,
    kad::store::MemoryStore,
    multiaddr::Protocol,
    noise, ping,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use peernet_node::agent::Agent;
use tokio::{task::JoinHandle, time::timeout};

use crate::support::{DEADLINE, agents, config, eventually, meshed, metric, metric_reaches, report};

const KAD: StreamProtocol = StreamProtocol::new("/peernet/demo/mesh/kad/1.0.0");

/// What a libp2p host has that is not made for PeerNet.
#[derive(NetworkBehaviour)]
struct Stock {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

struct Host(Swarm<Stock>);

impl Host {
    fn new(says: &str) -> Self {
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| {
                let id = key.public().to_peer_id();
                let introduction = identify::Config::new("/test/1.0.0".to_owned(), key.public());
                let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), kad::Config::new(KAD));
                // As one that would have others ask it.
                kad.set_mode(Some(kad::Mode::Server));
                Stock {
                    ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(100))),
                    identify: identify::Behaviour::new(introduction.with_agent_version(says.to_owned())),
                    kad,
                }
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
            .build();
        Self(swarm)
    }

    fn id(&self) -> PeerId {
        *self.0.local_peer_id()
    }

    async fn listen(&mut self) {
        self.0.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        self.when(|event| matches!(event, SwarmEvent::NewListenAddr { .. }))
            .await;
    }

    /// Waits for the first event that is good.
    async fn when(&mut self, good: impl Fn(&SwarmEvent<StockEvent>) -> bool) -> SwarmEvent<StockEvent> {
        let found = async {
            loop {
                let event = self.0.select_next_some().await;
                if good(&event) {
                    return event;
                }
            }
        };
        timeout(DEADLINE, found).await.expect("what was waited for")
    }

    /// Connects to an agent, and waits until each knows who the other is.
    async fn meet(&mut self, agent: &Agent) -> identify::Info {
        self.dial(agent);
        let event = self.when(|event| {
            matches!(
                event,
                SwarmEvent::Behaviour(StockEvent::Identify(identify::Event::Received { .. }))
            )
        });
        let SwarmEvent::Behaviour(StockEvent::Identify(identify::Event::Received { info, .. })) = event.await
        else {
            unreachable!("just looked at")
        };
        info
    }

    fn dial(&mut self, agent: &Agent) {
        let to = DialOpts::peer_id(agent.peer_id())
            .condition(PeerCondition::Always)
            .addresses(vec![address(agent)])
            .build();
        self.0.dial(to).unwrap();
    }

    /// Waits until the agent ends the connection.
    async fn turned_away(&mut self) {
        self.when(|event| {
            matches!(
                event,
                SwarmEvent::ConnectionClosed {
                    num_established: 0,
                    ..
                }
            )
        })
        .await;
    }

    /// Those who are closest to a peer id, as far as those know who know this host's contacts.
    async fn closest(&mut self, to: PeerId) -> Vec<kad::PeerInfo> {
        let query = self.0.behaviour_mut().kad.get_closest_peers(to);
        let is_result = |event: &SwarmEvent<StockEvent>| {
            matches!(event,
            SwarmEvent::Behaviour(StockEvent::Kad(kad::Event::OutboundQueryProgressed { id, .. })) if *id == query)
        };
        match self.when(is_result).await {
            SwarmEvent::Behaviour(StockEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(result),
                ..
            })) => result.unwrap().peers,
            other => panic!("{other:?}"),
        }
    }

    /// Keeps its connections, and answers, until the handle is aborted.
    fn stay(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.0.select_next_some().await;
            }
        })
    }
}

fn address(agent: &Agent) -> Multiaddr {
    let at = agent.p2p_address();
    Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()))
}

async fn guests_are(agent: &Agent, wanted: u32) {
    eventually("the number of guests", || async {
        match report(agent).await.guests {
            Some(guests) if guests == wanted => Ok(()),
            guests => Err(format!("{guests:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_word_about_guests_all_of_them_are_turned_away() {
    let agent = Agent::start(config(1, "mesh-0", &[])).await.unwrap();
    let mut host = Host::new("stock/1.0.0");
    host.dial(&agent);
    host.turned_away().await;
    metric_reaches(&agent, "peernet_strangers_rejected_total", 1.0).await;
    assert_eq!(report(&agent).await.guests, None);
}

#[tokio::test]
async fn a_guest_is_identified_pings_and_asks_the_dht_and_is_in_no_number() {
    let [first, second] = agents(2, |config| {
        config.kademlia = true;
        config.guests = 4;
    })
    .await;
    let mut guest = Host::new("stock/1.0.0");
    guest.listen().await;
    let info = guest.meet(&first).await;
    assert!(
        info.agent_version.starts_with("peernet/"),
        "{}",
        info.agent_version
    );
    assert!(info.protocols.contains(&KAD), "{:?}", info.protocols);
    assert_eq!(info.listen_addrs, [address(&first)]);
    for _ in 0..3 {
        let event = guest
            .when(|event| matches!(event, SwarmEvent::Behaviour(StockEvent::Ping(_))))
            .await;
        assert!(
            matches!(
                event,
                SwarmEvent::Behaviour(StockEvent::Ping(ping::Event { result: Ok(_), .. }))
            ),
            "{event:?}"
        );
    }
    guest
        .0
        .behaviour_mut()
        .kad
        .add_address(&first.peer_id(), address(&first));
    let found = guest.closest(second.peer_id()).await;
    let second_found = found.iter().find(|found| found.peer_id == second.peer_id());
    assert_eq!(
        second_found.expect("the agent that it never heard of").addrs,
        [address(&second).with_p2p(second.peer_id()).unwrap()]
    );

    // To ask the second agent, it has connected to it, too.
    let id = guest.id();
    let guest = guest.stay();
    for agent in [&first, &second] {
        guests_are(agent, 1).await;
        let report = report(agent).await;
        assert_eq!(report.peers.len(), 1, "{:?}", report.peers);
        assert_eq!(metric(agent, "peernet_peers").await, 1.0);
        assert_eq!(metric(agent, "peernet_guests").await, 1.0);
        // Unknown hosts are nobody's business to dial.
        assert_eq!(metric(agent, "peernet_dials_total{result=\"failed\"}").await, 0.0);
    }
    // It listens and would answer, but is in nobody's routing table.
    let mut other = Host::new("stock/1.0.0");
    other.meet(&first).await;
    other
        .0
        .behaviour_mut()
        .kad
        .add_address(&first.peer_id(), address(&first));
    let found = other.closest(id).await;
    assert!(found.iter().all(|found| found.peer_id != id), "{found:?}");
    assert!(
        found.iter().any(|found| found.peer_id == second.peer_id()),
        "{found:?}"
    );
    drop(other);
    guest.abort();
    for agent in [&first, &second] {
        guests_are(agent, 0).await;
    }
}

#[tokio::test]
async fn guests_are_no_more_than_may_be_and_members_have_room_all_the_same() {
    let [first, second] = agents(3, |config| config.guests = 2).await;
    let mut staying = Vec::new();
    for _ in 0..2 {
        let mut guest = Host::new("stock/1.0.0");
        guest.meet(&first).await;
        staying.push(guest.stay());
    }
    guests_are(&first, 2).await;
    let mut late = Host::new("stock/1.0.0");
    late.dial(&first);
    late.turned_away().await;
    metric_reaches(&first, "peernet_guests_refused_total", 1.0).await;
    guests_are(&first, 2).await;
    let third = Agent::start(config(3, "mesh-2", &[first.p2p_address(), second.p2p_address()]))
        .await
        .unwrap();
    meshed(&[&first, &second, &third]).await;
    staying.pop().unwrap().abort();
    guests_are(&first, 1).await;
    // The one that was turned away waits ten seconds; another one need not.
    let mut next = Host::new("stock/1.0.0");
    next.meet(&first).await;
    staying.push(next.stay());
    guests_are(&first, 2).await;
    for guest in staying {
        guest.abort();
    }
}

#[tokio::test]
async fn a_guest_has_two_connections_at_most() {
    let mut config = config(4, "mesh-0", &[]);
    config.guests = 1;
    let agent = Agent::start(config).await.unwrap();
    let mut guest = Host::new("stock/1.0.0");
    guest.meet(&agent).await;
    for _ in 0..3 {
        guest.dial(&agent);
    }
    let guest = guest.stay();
    eventually("the connections", || async {
        let connections = metric(&agent, "peernet_connections").await;
        if connections == 2.0 {
            Ok(())
        } else {
            Err(connections.to_string())
        }
    })
    .await;
    guests_are(&agent, 1).await;
    guest.abort();
}

#[tokio::test]
async fn who_claims_to_be_a_member_is_no_guest() {
    let mut config = config(5, "mesh-0", &[]);
    config.guests = 4;
    let agent = Agent::start(config).await.unwrap();
    let mut liar = Host::new("peernet/0.1.0 (mesh-1; 0123456789abcdef)");
    liar.dial(&agent);
    liar.turned_away().await;
    metric_reaches(&agent, "peernet_strangers_rejected_total", 1.0).await;
    guests_are(&agent, 0).await;
}
