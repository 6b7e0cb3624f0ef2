//! Swarms on loopback that speak one protocol alone.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use peernet_node::transport;

pub(crate) fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    let key = Keypair::generate_ed25519();
    let config =
        libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
    Swarm::new(
        transport::build(&key, None).unwrap(),
        behaviour(&key),
        key.public().to_peer_id(),
        config,
    )
}

/// Listens, and says where.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}
