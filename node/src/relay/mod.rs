//! Relays: members that no connection of their own leads to are reached through a third one (libp2p circuit relay v2).
//!
//! * [`book`] knows the relays and whom they lead to, and decides where to reserve and which circuits to ask for. Pure.
//! * [`introduction`] is how a relay tells its members of each other: who can't be reached can't introduce itself.
//! * [`gate`] keeps peers that are no members from using what this agent offers.
//! * [`behaviour`] puts libp2p's parts together: relay, relay's client, hole punching (DCUtR) and AutoNAT v2.
//!
//! A circuit is a makeshift. While a pair has one, both ends go on dialing each other directly, and once a direct
//! connection stands, it is measured in the circuit's place and the circuit is closed.

pub(crate) mod behaviour;
pub mod book;
pub mod gate;
pub mod introduction;

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol};

/// What an agent that uses relays is configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bounds within which this agent relays, if it does.
    pub serve: Option<Limits>,
}

/// The bounds of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members that may be reached through it at a time.
    pub reservations: usize,
    /// Circuits at a time.
    pub circuits: usize,
    /// Circuits at a time that one member may have asked for.
    pub circuits_per_peer: usize,
    /// A circuit ends after this time. Agents make a new one before.
    pub circuit_duration: Duration,
    /// A circuit ends after it has carried so many bytes, both directions together.
    pub circuit_bytes: u64,
}

/// What was done with relays: gauges are those of now, counts those since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Members that can be reached through this agent now.
    pub reservations: usize,
    /// Circuits through this agent now.
    pub circuits: usize,
    /// Requests to reserve that this agent granted.
    pub reservations_granted: u64,
    /// Those that it refused.
    pub reservations_refused: u64,
    /// Requests for a circuit that this agent granted.
    pub circuits_granted: u64,
    /// Those that it refused.
    pub circuits_refused: u64,
    /// Messages of peers that are no members to this agent's relay, dropped.
    pub strangers: u64,
    /// Circuits of this agent that a direct connection has replaced.
    pub upgrades: u64,
    /// Direct connections that hole punching made.
    pub punched: u64,
}

/// Whether this address leads through a relay.
#[must_use]
pub fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether this connection goes through a relay.
#[must_use]
pub fn is_relayed(endpoint: &ConnectedPoint) -> bool {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => is_circuit(address),
        ConnectedPoint::Listener { local_addr, .. } => is_circuit(local_addr),
    }
}

/// The part of a circuit's address before the circuit: where the relay is, and which peer it is if that is told.
#[must_use]
pub fn relay_in(address: &Multiaddr) -> Option<(Multiaddr, Option<PeerId>)> {
    if !is_circuit(address) {
        return None;
    }
    let mut at = Multiaddr::empty();
    let mut relay = None;
    for part in address.iter().take_while(|part| *part != Protocol::P2pCircuit) {
        match part {
            Protocol::P2p(peer) => relay = Some(peer),
            part => at.push(part),
        }
    }
    Some((at, relay))
}

/// The address at which a relay that is at `relay_at` takes reservations.
#[must_use]
pub fn reservation(relay_at: Multiaddr, relay: PeerId) -> Multiaddr {
    relay_at.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
}

/// The address of a peer through a relay.
#[must_use]
pub fn circuit(relay_at: Multiaddr, relay: PeerId, peer: PeerId) -> Multiaddr {
    reservation(relay_at, relay).with(Protocol::P2p(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_through_a_relay_is_told_from_what_does_not() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let at: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let through = circuit(at.clone(), relay, peer);
        assert_eq!(
            through.to_string(),
            format!("/ip4/192.0.2.1/tcp/4001/p2p/{relay}/p2p-circuit/p2p/{peer}")
        );
        assert_eq!(relay_in(&through), Some((at.clone(), Some(relay))));
        assert_eq!(
            relay_in(&at.clone().with(Protocol::P2pCircuit)),
            Some((at.clone(), None))
        );
        assert_eq!(relay_in(&at.clone().with(Protocol::P2p(peer))), None);
        assert!(!is_circuit(&at));
    }
}
