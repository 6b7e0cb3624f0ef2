//! libp2p's parts, put together: all of them, or none.

use std::{num::NonZeroU32, time::Duration};

use libp2p::{
    PeerId,
    autonat::v2 as autonat,
    dcutr, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{Config, Limits, gate::Gate, introduction};

/// A reservation is renewed by its holder before this time is up.
const RESERVATION_DURATION: Duration = Duration::from_secs(600);
/// Reservations that one member may ask for, and how fast it may ask for more. Not by IP address: behind a NAT, many members
/// have one.
const RESERVATION_RATE: (u32, Duration) = (30, Duration::from_secs(10));
/// Circuits that one member may ask for beyond those it may have, and how fast it may ask for more.
const CIRCUIT_RATE: (u32, Duration) = (32, Duration::from_secs(1));
/// Addresses that AutoNAT tries at a time, and its pause.
const CANDIDATES: (usize, Duration) = (4, Duration::from_secs(5));

/// All that an agent needs to be reached through others, and to lead to others.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// Relays for members.
    pub(crate) server: Toggle<Gate<relay::Behaviour>>,
    /// Reserves at relays, and opens circuits through them.
    pub(crate) client: relay::client::Behaviour,
    /// Asks relays whom they lead to, and answers.
    pub(crate) introduction: introduction::Behaviour,
    /// Makes a direct connection of a circuit where firewalls and NATs let out, but not in: both ends dial at once.
    pub(crate) dcutr: dcutr::Behaviour,
    /// Finds out whether others can dial this agent.
    pub(crate) reachability: Gate<autonat::client::Behaviour>,
    /// Tries for members whether they can be dialed.
    pub(crate) trial: Toggle<Gate<autonat::server::Behaviour>>,
}

impl Behaviour {
    /// The parts that this configuration asks for. `client` belongs to the transport.
    pub(crate) fn new(config: &Config, own_id: PeerId, client: relay::client::Behaviour) -> Self {
        let server = config.serve.map(|limits| {
            let mut server = relay::Behaviour::new(own_id, relay_config(&limits));
            server.set_status(Some(relay::Status::Enable));
            Gate::new(server)
        });
        let trial = config
            .serve
            .map(|_| Gate::new(autonat::server::Behaviour::default()));
        let asking = autonat::client::Config::default()
            .with_max_candidates(CANDIDATES.0)
            .with_probe_interval(CANDIDATES.1);
        Self {
            introduction: introduction::behaviour(server.is_some()),
            server: server.into(),
            client,
            dcutr: dcutr::Behaviour::new(own_id),
            reachability: Gate::new(autonat::client::Behaviour::new(rand::make_rng(), asking)),
            trial: trial.into(),
        }
    }

    /// A connected peer is a member: it may use what this agent offers.
    pub(crate) fn accept(&mut self, peer: PeerId) {
        if let Some(server) = self.server.as_mut() {
            server.accept(peer);
        }
        self.reachability.accept(peer);
        if let Some(trial) = self.trial.as_mut() {
            trial.accept(peer);
        }
    }

    /// What peers asked that are no members, since the start.
    pub(crate) fn strangers(&self) -> u64 {
        self.server.as_ref().map_or(0, Gate::dropped) + self.trial.as_ref().map_or(0, Gate::dropped)
    }
}

fn relay_config(limits: &Limits) -> relay::Config {
    let rate =
        |(limit, interval): (u32, Duration)| (NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN), interval);
    let (reservations, every) = rate(RESERVATION_RATE);
    let more = u32::try_from(limits.circuits_per_peer).unwrap_or(u32::MAX);
    let (circuits, each) = rate((CIRCUIT_RATE.0.saturating_add(more), CIRCUIT_RATE.1));
    let config = relay::Config {
        max_reservations: limits.reservations,
        // libp2p allows one more than it is told. A member has one for each of its connections.
        max_reservations_per_peer: 2,
        reservation_duration: RESERVATION_DURATION,
        reservation_rate_limiters: Vec::new(),
        max_circuits: limits.circuits,
        // The same here.
        max_circuits_per_peer: limits.circuits_per_peer.saturating_sub(1),
        max_circuit_duration: limits.circuit_duration,
        max_circuit_bytes: limits.circuit_bytes,
        circuit_src_rate_limiters: Vec::new(),
    };
    config
        .reservation_rate_per_peer(reservations, every)
        .circuit_src_per_peer(circuits, each)
}
