//! The event loop's beginning: the swarm is built, listens, and knows whom to look for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId, Swarm, core::transport::ListenerId, identity::Keypair, relay as libp2p_relay,
};
use peernet_api::transport::Transport;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Ends, Error, EventLoop, KAD_SEARCH,
    dht::Dht,
    guests::Guests,
    names::{Name, Purpose},
    relaying::Relaying,
    stamping::Stamping,
};
use crate::{
    behaviour::Behaviour,
    config::{Config, Place},
    discovery::{
        Address, dns,
        planner::{Planner, Source},
    },
    host::memory::Memory,
    private,
    probation::Probation,
    relay, stamp,
    strangers::Strangers,
    telemetry::Counters,
    transport,
};

/// Answers of the resolver that wait for the event loop.
const RESOLUTIONS: usize = 32;
/// Streams of one connection that may be choosing their protocol at a time.
const MAX_NEGOTIATING: usize = 8;

impl EventLoop {
    /// Builds the swarm and starts to listen. Needs a tokio runtime around it. `stamp`: the thread that sends and reflects STAMP
    /// probes, and where it says which sessions are silent. `keys`: those of the private network, if it is one. `handshakes`: works on
    /// handshakes.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn new(
        config: Config,
        key: Keypair,
        started: Instant,
        ends: Ends,
        stamp: Option<(stamp::Handle, mpsc::Receiver<PeerId>)>,
        keys: Option<&private::Keys>,
        handshakes: Handle,
    ) -> Result<Self, Error> {
        let Ends {
            events,
            listening,
            commands,
        } = ends;
        let own_id = key.public().to_peer_id();
        let probation = Probation::default();
        let circuits = config.relay.is_some().then(|| libp2p_relay::client::new(own_id));
        let (circuits, client) = circuits.unzip();
        let relay = config
            .relay
            .as_ref()
            .zip(client)
            .map(|(settings, client)| relay::behaviour::Behaviour::new(settings, own_id, client));
        let transport = transport::build(&key, &config.transports, keys, &probation, circuits, handshakes)?;
        let relaying = relay
            .is_some()
            .then(|| Relaying::new(own_id, config.peers_per_node));
        let stamp_port = stamp.as_ref().map(|(handle, _)| handle.reflector().port());
        let behaviour = Behaviour::new(&config, &key, probation.wasted().clone(), stamp_port, relay);
        let mut swarm = Swarm::new(
            transport,
            behaviour,
            own_id,
            libp2p::swarm::Config::with_tokio_executor()
                .with_max_negotiating_inbound_streams(MAX_NEGOTIATING),
        );
        let listeners = listen(&mut swarm, &config)?;
        let ports: Vec<(Transport, u16)> = config
            .transports
            .iter()
            .map(|transport| (*transport, config.port(*transport)))
            .filter(|(_, port)| *port != 0)
            .collect();
        let mut planner = Planner::new(own_id, config.peers_per_node).speaking(&config.transports, &ports);
        let (answers, resolutions) = mpsc::channel(RESOLUTIONS);
        let (names, bootstrap) = contacts(&config, &mut planner);
        for (key, name) in names.iter().enumerate() {
            dns::watch(key, name.name.clone(), answers.clone());
        }
        let mut event_loop = Self {
            swarm,
            started,
            listeners,
            addresses: BTreeMap::new(),
            listening: Some(listening),
            connections: HashMap::new(),
            links: HashMap::new(),
            members: BTreeMap::new(),
            guests: Guests::default(),
            bootstrap,
            external: BTreeMap::new(),
            planner,
            dialing: HashMap::new(),
            names,
            resolutions,
            kad_search: started + KAD_SEARCH.0,
            kad_searching: None,
            heartbeat: started,
            events,
            counters: Counters::default(),
            stamp: stamp.map(|(handle, stale)| Stamping::new(handle, stale)),
            strangers: Strangers::default(),
            relaying,
            dht: Dht::new(commands, own_id, &config.services, started),
            probation,
            memory: Memory::of_this_process(),
            config,
        };
        event_loop.provide_services();
        Ok(event_loop)
    }
}

/// Whom to look for from the start: names for the resolver, and the ids of the bootstrap peers.
fn contacts(config: &Config, planner: &mut Planner) -> (Vec<Name>, HashSet<PeerId>) {
    let (mut names, mut bootstrap) = (Vec::new(), HashSet::new());
    for seed in &config.seed_dns {
        let purpose = Purpose::Seeds {
            port: seed.port.unwrap_or_else(|| config.port(config.first_transport())),
            found: Vec::new(),
        };
        names.push(Name::new(&seed.name, purpose));
    }
    for known in &config.bootstrap {
        bootstrap.insert(known.peer);
        match &known.place {
            Place::Address(address) => planner.discovered(known.peer, [*address], Source::Bootstrap),
            Place::Name(transport, name, port) => {
                planner.discovered(known.peer, [], Source::Bootstrap);
                names.push(Name::new(name, Purpose::Bootstrap(known.peer, *transport, *port)));
            }
        }
    }
    planner.set_seeds(config.seeds.iter().copied());
    (names, bootstrap)
}

/// Listens over each transport on the configured address, or on all of both families. One of them is enough for a
/// transport: a host may have only one.
fn listen(swarm: &mut Swarm<Behaviour>, config: &Config) -> Result<HashMap<ListenerId, Transport>, Error> {
    let all = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let wanted: Vec<IpAddr> = config.listen.map_or_else(|| all.to_vec(), |ip| vec![ip]);
    let mut listeners = HashMap::new();
    for transport in &config.transports {
        let mut failed = None;
        let mut listens = false;
        for ip in &wanted {
            let socket = SocketAddr::new(*ip, config.port(*transport));
            let address = Multiaddr::from(Address::new(*transport, socket));
            match swarm.listen_on(address.clone()) {
                Ok(listener) => {
                    listeners.insert(listener, *transport);
                    listens = true;
                }
                Err(error) => {
                    let reason = error.to_string();
                    failed = Some(Error::Listen {
                        address,
                        taken: is_taken(*transport, socket),
                        reason,
                    });
                }
            }
        }
        if let Some(failed) = failed.filter(|_| !listens) {
            return Err(failed);
        }
    }
    Ok(listeners)
}

/// Whether something else has a port. libp2p's errors don't tell: asking again does.
fn is_taken(transport: Transport, socket: SocketAddr) -> bool {
    let asked = match transport {
        Transport::Tcp | Transport::WebSocket => std::net::TcpListener::bind(socket).map(drop),
        Transport::Quic => std::net::UdpSocket::bind(socket).map(drop),
    };
    asked.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}
