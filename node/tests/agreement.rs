//! How sessions of STAMP are agreed, over real TCP: with whom, when, and what ends them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, identify,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use peernet_node::stamp::{
    agreement::{Behaviour, Config, Event, Reflecting, Sending},
    clock::Wall,
    wire::{self, Request},
};
use tokio::time::{interval, timeout};

use crate::support::swarms::{listen, swarm};

const DEADLINE: Duration = Duration::from_secs(60);

fn ours(port: u16, address: Option<IpAddr>) -> Swarm<Behaviour> {
    swarm(|key| {
        Behaviour::new(Config {
            own_id: key.public().to_peer_id(),
            interval: Duration::from_millis(250),
            address,
            port,
        })
    })
}

/// Two of ours. What happens to both comes one after the other.
struct Pair {
    swarms: [Swarm<Behaviour>; 2],
    address: Multiaddr,
    tick: tokio::time::Interval,
    connections: Vec<ConnectionId>,
}

impl Pair {
    async fn new() -> Self {
        let mut swarms = [ours(1111, None), ours(2222, Some([127, 0, 0, 9].into()))];
        let address = listen(&mut swarms[1]).await;
        let mut pair = Self {
            swarms,
            address,
            tick: interval(Duration::from_millis(50)),
            connections: Vec::new(),
        };
        pair.connect().await;
        pair
    }

    fn id(&self, n: usize) -> PeerId {
        *self.swarms[n].local_peer_id()
    }

    fn accept(&mut self, n: usize) {
        let other = self.id(1 - n);
        self.swarms[n].behaviour_mut().accept(other);
    }

    /// One more connection, known to both ends.
    async fn connect(&mut self) {
        let dial = DialOpts::peer_id(self.id(1))
            .condition(PeerCondition::Always)
            .addresses(vec![self.address.clone()])
            .build();
        self.swarms[0].dial(dial).unwrap();
        let mut established = 0;
        while established < 2 {
            match self.event().await {
                (n, SwarmEvent::ConnectionEstablished { connection_id, .. }) => {
                    established += 1;
                    if n == 0 {
                        self.connections.push(connection_id);
                    }
                }
                (_, SwarmEvent::OutgoingConnectionError { error, .. }) => panic!("{error}"),
                _ => {}
            }
        }
    }

    async fn event(&mut self) -> (usize, SwarmEvent<Event>) {
        let next = async {
            loop {
                let [first, second] = &mut self.swarms;
                tokio::select! {
                    event = first.select_next_some() => return (0, event),
                    event = second.select_next_some() => return (1, event),
                    _ = self.tick.tick() => {
                        for swarm in &mut self.swarms {
                            swarm.behaviour_mut().tend(Instant::now());
                        }
                    }
                }
            }
        };
        timeout(DEADLINE, next).await.expect("an event in time")
    }

    async fn agreed(&mut self) -> (usize, Event) {
        loop {
            if let (n, SwarmEvent::Behaviour(event)) = self.event().await {
                return (n, event);
            }
        }
    }

    /// The next session in which `sender` sends: what both ends were told. The reflector hears of it first.
    async fn session(&mut self, sender: usize) -> (Sending, Reflecting) {
        let mut reflecting = None;
        loop {
            match self.agreed().await {
                (n, Event::Reflecting(agreed)) if n != sender => reflecting = Some(agreed),
                (n, Event::Sending(agreed)) if n == sender => {
                    return (agreed, reflecting.expect("a reflector that knows"));
                }
                _ => {}
            }
        }
    }
}

/// Whether a request of the one is one for the other.
fn fit(sending: &Sending, reflecting: &Reflecting) -> bool {
    let request = Request {
        seq: 1,
        ssid: sending.ssid,
        sent: Wall(1),
    };
    let packet = wire::request(&sending.keys.requests, &request);
    wire::parse_request(&reflecting.keys.requests, &packet) == Some(request)
}

#[tokio::test]
async fn both_ends_agree_on_one_session_in_each_direction() {
    let mut pair = Pair::new().await;
    pair.accept(0);
    pair.accept(1);
    let (mut sending, mut reflecting) = (Vec::new(), Vec::new());
    while sending.len() < 2 || reflecting.len() < 2 {
        match pair.agreed().await {
            (n, Event::Sending(agreed)) => sending.push((n, agreed)),
            (n, Event::Reflecting(agreed)) => reflecting.push((n, agreed)),
            other => panic!("{other:?}"),
        }
    }
    for (n, sending) in &sending {
        let (_, reflecting) = reflecting.iter().find(|(m, _)| m != n).unwrap();
        assert_eq!(sending.peer, pair.id(1 - n));
        assert_eq!(reflecting.peer, pair.id(*n));
        assert_eq!(
            (sending.ssid, reflecting.interval),
            (reflecting.ssid, Duration::from_millis(250))
        );
        assert!(fit(sending, reflecting));
        // One of them knows how it is reached; to the other one, the connection leads.
        let expected: (IpAddr, u16) = match n {
            0 => ([127, 0, 0, 9].into(), 2222),
            _ => ([127, 0, 0, 1].into(), 1111),
        };
        assert_eq!((sending.ip, sending.port), expected);
    }
    assert!(!fit(
        &sending[0].1,
        &reflecting.iter().find(|(m, _)| *m == sending[0].0).unwrap().1
    ));
}

#[tokio::test]
async fn who_asks_before_being_accepted_is_answered_then() {
    let mut pair = Pair::new().await;
    pair.accept(0);
    let wait = async {
        loop {
            pair.agreed().await;
        }
    };
    // The question has come long before; there is nothing to wait for but silence.
    assert!(timeout(Duration::from_millis(500), wait).await.is_err());
    pair.accept(1);
    let (sending, reflecting) = pair.session(0).await;
    assert!(fit(&sending, &reflecting));
}

#[tokio::test]
async fn a_session_is_agreed_anew_when_it_is_dead_or_its_peer_is_another_process() {
    let mut pair = Pair::new().await;
    pair.accept(0);
    pair.accept(1);
    let (old, _) = pair.session(0).await;
    let other = pair.id(1);
    pair.swarms[0].behaviour_mut().renew(&other);
    let (renewed, reflecting) = pair.session(0).await;
    assert_ne!(renewed.ssid, old.ssid);
    assert!(
        fit(&renewed, &reflecting)
            && !fit(
                &Sending {
                    ssid: renewed.ssid,
                    ..old
                },
                &reflecting
            )
    );
    pair.swarms[0].behaviour_mut().restarted(&other);
    pair.accept(0);
    let (again, reflecting) = pair.session(0).await;
    assert!(again.ssid != renewed.ssid && fit(&again, &reflecting));
}

#[tokio::test]
async fn sessions_move_to_the_connection_that_is_left_and_end_with_the_last() {
    let mut pair = Pair::new().await;
    pair.accept(0);
    pair.accept(1);
    let (old, _) = pair.session(0).await;
    pair.connect().await;
    let first = pair.connections.remove(0);
    assert!(pair.swarms[0].close_connection(first));
    let (moved, reflecting) = pair.session(0).await;
    assert!(moved.ssid != old.ssid && fit(&moved, &reflecting));
    let last = pair.connections.remove(0);
    assert!(pair.swarms[0].close_connection(last));
    let mut ended = Vec::new();
    while ended.len() < 2 {
        if let (n, Event::Ended(peer)) = pair.agreed().await {
            assert_eq!(peer, pair.id(1 - n));
            ended.push(n);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [0, 1]);
    // A peer that nobody knows any more has no session, whoever still thinks so.
    let other = pair.id(1);
    pair.swarms[0].behaviour_mut().renew(&other);
    assert!(matches!(pair.agreed().await, (0, Event::Ended(peer)) if peer == other));
}

#[tokio::test]
async fn a_peer_without_stamp_is_asked_once_and_left_alone() {
    let mut mute = swarm(|key| {
        let config = identify::Config::new("/test/1.0.0".to_owned(), key.public());
        identify::Behaviour::new(config)
    });
    let address = listen(&mut mute).await;
    let peer = *mute.local_peer_id();
    tokio::spawn(async move {
        loop {
            mute.select_next_some().await;
        }
    });
    let mut swarm = ours(1, None);
    swarm
        .dial(DialOpts::peer_id(peer).addresses(vec![address]).build())
        .unwrap();
    loop {
        if let SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await {
            break;
        }
    }
    swarm.behaviour_mut().accept(peer);
    // Longer than the pause after which it would be asked again.
    let silence = timeout(Duration::from_millis(1500), async {
        loop {
            tokio::select! {
                event = swarm.select_next_some() => match event {
                    SwarmEvent::Behaviour(event) => panic!("{event:?}"),
                    SwarmEvent::ConnectionClosed { cause, .. } => panic!("{cause:?}"),
                    _ => {}
                },
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    swarm.behaviour_mut().tend(Instant::now());
                }
            }
        }
    });
    assert!(silence.await.is_err());
}
