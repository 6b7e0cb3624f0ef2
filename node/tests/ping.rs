//! Our ping against libp2p's own, and against peers that misbehave, over real TCP.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

mod support;

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, identify,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use peernet_node::ping::{self, Failure, News};
use tokio::time::timeout;

use crate::support::{
    echo::{Echo, Manner},
    swarms::{listen, swarm},
};

const DEADLINE: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(20);

fn ours() -> ping::Behaviour {
    ping::Behaviour::new(ping::Config {
        interval: PACE,
        timeout: Duration::from_secs(5),
        burst: 5,
    })
}

fn stock(interval: Duration) -> libp2p::ping::Behaviour {
    libp2p::ping::Behaviour::new(libp2p::ping::Config::new().with_interval(interval))
}

/// Runs a swarm that listens, for as long as the test takes.
async fn listening<B: NetworkBehaviour + Send>(mut swarm: Swarm<B>) -> (PeerId, Multiaddr)
where
    B::ToSwarm: std::fmt::Debug,
{
    let address = listen(&mut swarm).await;
    let peer = *swarm.local_peer_id();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (peer, address)
}

/// Dials one more connection and accepts the peer once it stands.
async fn connect(swarm: &mut Swarm<ping::Behaviour>, peer: PeerId, address: &Multiaddr) -> ConnectionId {
    let dial = DialOpts::peer_id(peer)
        .condition(PeerCondition::Always)
        .addresses(vec![address.clone()])
        .build();
    let id = dial.connection_id();
    swarm.dial(dial).unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { connection_id, .. } if connection_id == id => return id,
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

/// How the first ping of a probe ended.
fn cold(event: &ping::Event) -> Option<Result<Duration, Failure>> {
    match event.outcome.news {
        News::Cold { result, .. } => Some(result),
        News::Warm(_) => None,
    }
}

/// A swarm that has accepted a peer of this manner, and how often that one is asked.
async fn probing(
    config: ping::Config,
    manner: Manner,
) -> (
    Swarm<ping::Behaviour>,
    std::sync::Arc<std::sync::atomic::AtomicU64>,
) {
    let (echo, asked) = Echo::new(manner);
    let (peer, address) = listening(swarm(|_| echo)).await;
    let mut swarm = swarm(|_| ping::Behaviour::new(config));
    connect(&mut swarm, peer, &address).await;
    swarm.behaviour_mut().accept(peer);
    (swarm, asked)
}

/// The next news of a probe: when it was sent, and what became of it. `None` when the connection is closed.
async fn news(swarm: &mut Swarm<ping::Behaviour>) -> Option<(Instant, News)> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(event) => return Some((event.outcome.sent, event.outcome.news)),
            SwarmEvent::ConnectionClosed { .. } => return None,
            _ => {}
        }
    }
}

/// What becomes of the next probes.
async fn outcomes(swarm: &mut Swarm<ping::Behaviour>, count: usize) -> Vec<Result<Duration, Failure>> {
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        if let SwarmEvent::Behaviour(event) = swarm.select_next_some().await {
            outcomes.extend(cold(&event));
        }
    }
    outcomes
}

#[tokio::test]
async fn we_measure_stock_libp2p_and_it_measures_us_at_the_same_time() {
    timeout(DEADLINE, async {
        let mut stock = swarm(|_| stock(PACE));
        let address = listen(&mut stock).await;
        let peer = *stock.local_peer_id();
        let (done, stock_is_done) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut measured = 0;
            while measured < 50 {
                if let SwarmEvent::Behaviour(event) = stock.select_next_some().await {
                    assert!(event.result.unwrap() > Duration::ZERO);
                    measured += 1;
                }
            }
            done.send(()).unwrap();
            // Stay there to answer.
            loop {
                stock.select_next_some().await;
            }
        });
        let mut swarm = swarm(|_| ours());
        connect(&mut swarm, peer, &address).await;
        swarm.behaviour_mut().accept(peer);
        for outcome in outcomes(&mut swarm, 50).await {
            assert!(outcome.unwrap() > Duration::ZERO);
        }
        // We answer as long as we are polled.
        tokio::select! {
            done = stock_is_done => done.unwrap(),
            _ = outcomes(&mut swarm, usize::MAX) => {}
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn stock_libp2p_measures_us_also_while_we_don_t_measure_it() {
    timeout(DEADLINE, async {
        let (peer, address) = listening(swarm(|_| ours())).await;
        let mut stock = swarm(|_| stock(PACE));
        stock
            .dial(DialOpts::peer_id(peer).addresses(vec![address]).build())
            .unwrap();
        let mut measured = 0;
        while measured < 50 {
            if let SwarmEvent::Behaviour(event) = stock.select_next_some().await {
                assert!(event.result.unwrap() > Duration::ZERO);
                measured += 1;
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn nobody_is_probed_before_being_accepted() {
    timeout(DEADLINE, async {
        let (peer, address) = listening(swarm(|_| stock(PACE))).await;
        let mut swarm = swarm(|_| ours());
        connect(&mut swarm, peer, &address).await;
        for _ in 0..10 {
            // Their pings are answered meanwhile: the connection is in use.
            let silence = timeout(PACE, swarm.select_next_some()).await;
            assert!(!matches!(silence, Ok(SwarmEvent::Behaviour(_))));
        }
        swarm.behaviour_mut().accept(peer);
        assert!(outcomes(&mut swarm, 1).await[0].is_ok());
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn when_the_measured_connection_ends_another_takes_over() {
    timeout(DEADLINE, async {
        let (peer, address) = listening(swarm(|_| stock(Duration::from_secs(3600)))).await;
        let mut swarm = swarm(|_| ours());
        let mut connections = BTreeSet::new();
        for _ in 0..3 {
            connections.insert(connect(&mut swarm, peer, &address).await);
        }
        swarm.behaviour_mut().accept(peer);
        for measured in connections.iter().rev() {
            assert!(outcomes(&mut swarm, 5).await.iter().all(Result::is_ok));
            swarm.close_connection(*measured);
            // A probe may be on the way when its connection ends: no more than one, and it is told.
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionClosed { connection_id, .. } if connection_id == *measured => break,
                    SwarmEvent::Behaviour(event) => {
                        assert!(matches!(
                            cold(&event),
                            None | Some(Ok(_) | Err(Failure::Closed | Failure::Unheard))
                        ));
                    }
                    _ => {}
                }
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_that_can_t_answer_is_told_each_time_and_its_connection_is_closed() {
    timeout(DEADLINE, async {
        let mute = swarm(|key| {
            let config = identify::Config::new("/test/1.0.0".to_owned(), key.public());
            identify::Behaviour::new(config)
        });
        let (peer, address) = listening(mute).await;
        let mut swarm = swarm(|_| ours());
        connect(&mut swarm, peer, &address).await;
        swarm.behaviour_mut().accept(peer);
        let mut told = Vec::new();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(event) => told.extend(cold(&event)),
                SwarmEvent::ConnectionClosed { .. } => break,
                _ => {}
            }
        }
        assert_eq!(told, [Err(Failure::Unsupported); 3]);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_probe_is_a_burst_of_as_many_pings_as_asked_for() {
    timeout(DEADLINE, async {
        for burst in [1, 5, 16] {
            // The first probe leaves within a quarter of a second; there is no second one.
            let config = ping::Config {
                interval: Duration::from_secs(3600),
                timeout: DEADLINE,
                burst,
            };
            let (mut swarm, asked) = probing(config, Manner::After(Duration::ZERO)).await;
            let (sent, first) = news(&mut swarm).await.unwrap();
            let News::Cold { result: Ok(cold), .. } = first else {
                panic!("{first:?}");
            };
            let (sent_again, last) = news(&mut swarm).await.unwrap();
            let News::Warm(warm) = last else {
                panic!("{last:?}");
            };
            assert_eq!(sent_again, sent, "of the same probe");
            assert!(warm <= cold && warm > Duration::ZERO, "{warm:?} of {cold:?}");
            assert_eq!(asked.load(Ordering::SeqCst), burst as u64);
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_later_ping_without_an_answer_ends_its_burst_and_is_no_loss() {
    timeout(DEADLINE, async {
        let config = ping::Config {
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(500),
            burst: 5,
        };
        let (mut swarm, _) = probing(config, Manner::UpTo(3)).await;
        let mut told = Vec::new();
        while let Some((_, news)) = news(&mut swarm).await {
            told.push(news);
        }
        // The first probe has its two times, and those after the third ping are lost until the connection is given up:
        // each of them once. On a busy machine the first burst may be cut short, or this process late for its answers.
        let cold = |news: &News| match *news {
            News::Cold { result, .. } => Some(result),
            News::Warm(_) => None,
        };
        let colds: Vec<_> = told.iter().filter_map(cold).collect();
        let answered = colds.iter().take_while(|result| result.is_ok()).count();
        assert!((1..=3).contains(&answered), "{told:?}");
        assert_eq!(
            told.len() - colds.len(),
            answered,
            "each has a warm time: {told:?}"
        );
        let lost = &colds[answered..];
        let timed_out = lost
            .iter()
            .filter(|result| **result == Err(Failure::Timeout))
            .count();
        assert_eq!(timed_out, 3, "{told:?}");
        let others = [Err(Failure::Timeout), Err(Failure::Closed), Err(Failure::Unheard)];
        assert!(lost.iter().all(|result| others.contains(result)), "{told:?}");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_answer_slower_than_the_pace_stands_for_its_whole_burst_and_delays_nothing() {
    timeout(DEADLINE, async {
        let delay = PACE * 10;
        let (mut swarm, asked) = probing(
            ping::Config {
                interval: PACE,
                timeout: DEADLINE,
                burst: 5,
            },
            Manner::After(delay),
        )
        .await;
        let mut colds = Vec::new();
        let mut warms = Vec::new();
        while warms.len() < 20 {
            match news(&mut swarm).await.unwrap() {
                (sent, News::Cold { result, .. }) => colds.push((sent, result.unwrap())),
                (sent, News::Warm(rtt)) => warms.push((sent, rtt)),
            }
        }
        assert_eq!(colds[..20], warms[..20]);
        assert!(colds.iter().all(|(_, rtt)| *rtt >= delay));
        // The probes left while their forerunners were on the way, and none of them was repeated.
        let pace = colds.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(
            pace.clone().min().unwrap() < delay,
            "{:?}",
            pace.collect::<Vec<_>>()
        );
        assert!(asked.load(Ordering::SeqCst) >= 20);
    })
    .await
    .unwrap();
}

#[test]
fn the_protocol_is_libp2p_s() {
    assert_eq!(ping::PROTOCOL, libp2p::ping::PROTOCOL_NAME);
    assert_eq!(ping::PROTOCOL, StreamProtocol::new("/ipfs/ping/1.0.0"));
}
