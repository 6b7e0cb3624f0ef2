//! The protocols that the agent speaks.

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    StreamProtocol, identify,
    identity::Keypair,
    kad,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{
    admission,
    config::Config,
    dht,
    discovery::mdns,
    membership::{self, Instance},
    ping, relay,
    stamp::agreement,
};

/// Identify's protocol version: the same for all agents of all networks.
const PROTOCOL_VERSION: &str = "/peernet/1.0.0";
/// A query that takes longer is given up.
const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(8);
/// A peer that does not answer one request in this time has failed. A query goes on with others.
const KAD_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// All protocols of the agent's swarm.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// First, so that nobody else hears of connections that are refused.
    pub(crate) admission: admission::Behaviour,
    /// The measuring instrument.
    pub(crate) ping: ping::Behaviour,
    /// Agrees on STAMP sessions.
    pub(crate) stamp: Toggle<agreement::Behaviour>,
    /// How members introduce themselves.
    pub(crate) identify: identify::Behaviour,
    /// Tells members of each other, and keeps the network's records. It learns of peers only from the event loop, which
    /// knows who is a member.
    pub(crate) dht: Toggle<dht::Behaviour>,
    /// Finds peers on the local network.
    pub(crate) mdns: Toggle<mdns::Behaviour>,
    /// Reaches members through others, and leads to others.
    pub(crate) relay: Toggle<relay::behaviour::Behaviour>,
}

impl Behaviour {
    /// The protocols that this configuration asks for. Without multicast or netlink, mDNS stays off: it is never
    /// needed. `wasted`: whose connections came to nothing. `stamp_port`: where STAMP probes are answered, if they are. `relay`:
    /// reaches members through others, if so.
    pub(crate) fn new(
        config: &Config,
        key: &Keypair,
        wasted: admission::Wasted,
        stamp_port: Option<u16>,
        relay: Option<relay::behaviour::Behaviour>,
    ) -> Self {
        let own_id = key.public().to_peer_id();
        let probe = ping::Config {
            interval: config.probe.interval,
            timeout: config.probe.timeout,
            burst: config.probe.burst,
        };
        // No cache of addresses: the planner alone decides who is dialed, and where.
        let introduction = identify::Config::new(PROTOCOL_VERSION.to_owned(), key.public())
            .with_agent_version(membership::announcement(&config.name, Instance::random()))
            .with_cache_size(0);
        let mdns = config
            .mdns
            .then(|| mdns::Behaviour::new(own_id))
            .and_then(|mdns| {
                mdns.inspect_err(|error| tracing::warn!(%error, "mDNS can't start: going on without it"))
                    .ok()
            });
        let dht = config.kad_protocol().map(|protocol| {
            let store = dht::Store::new(own_id, dht::Limits::DEFAULT);
            dht::Behaviour::new(own_id, store, kad_config(protocol))
        });
        let stamp = stamp_port.map(|port| {
            agreement::Behaviour::new(agreement::Config {
                own_id,
                interval: config.probe.interval,
                address: config.listen,
                port,
            })
        });
        Self {
            admission: admission::Behaviour::new(
                admission::Limits::for_peers(config.peers_per_node, config.transports.len(), config.guests),
                wasted,
            ),
            ping: ping::Behaviour::new(probe),
            stamp: stamp.into(),
            identify: identify::Behaviour::new(introduction),
            dht: dht.into(),
            mdns: mdns.into(),
            relay: relay.into(),
        }
    }
}

fn kad_config(protocol: StreamProtocol) -> kad::Config {
    let mut config = kad::Config::new(protocol);
    config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_query_timeout(KAD_QUERY_TIMEOUT)
        .set_substreams_timeout(KAD_REQUEST_TIMEOUT)
        .set_max_packet_size(dht::MAX_PACKET)
        .set_record_ttl(Some(dht::RECORD_TTL))
        .set_provider_record_ttl(Some(dht::PROVIDER_TTL))
        // The event loop does all this itself, as members come and go.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // The event loop searches when there is somebody to ask.
        .set_periodic_bootstrap_interval(None)
        .set_parallelism(NonZeroUsize::MIN.saturating_add(2));
    config
}
