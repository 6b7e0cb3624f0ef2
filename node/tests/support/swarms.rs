//! Swarms on loopback that speak one protocol alone.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use peernet_api::transport::Transport;
use peernet_node::{discovery::Address, probation::Probation, transport};
use tokio::runtime::Handle;

pub(crate) fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    swarm_beside(Handle::current(), behaviour)
}

/// [`swarm`], with another runtime that works on its handshakes.
pub(crate) fn swarm_beside<B: NetworkBehaviour>(
    handshakes: Handle,
    behaviour: impl FnOnce(&Keypair) -> B,
) -> Swarm<B> {
    let key = Keypair::generate_ed25519();
    let config =
        libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
    Swarm::new(
        transport::build(&key, &Transport::ALL, None, &Probation::off(), None, handshakes).unwrap(),
        behaviour(&key),
        key.public().to_peer_id(),
        config,
    )
}

/// Listens on TCP, and says where.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    listen_over(swarm, Transport::Tcp).await
}

/// Listens over a transport, and says where.
pub(crate) async fn listen_over<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    transport: Transport,
) -> Multiaddr {
    let address = Address::new(transport, ([127, 0, 0, 1], 0).into());
    swarm.listen_on(address.into()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}
