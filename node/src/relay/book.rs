//! The relays that this agent knows and whom they lead to: where to reserve, whom to ask, and which circuits to make.
//! Pure: the clock and the connections are arguments.
//!
//! A circuit is asked for only after direct dials have had their time. Of a pair, the one with the lower id asks for it, and
//! the other only after a grace in which nothing came: two circuits for a pair would be one too many.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use peernet_api::report::MAX_PEERS;

use super::{circuit, reservation};
use crate::discovery::planner::{GRACE, pair};

/// Relays known at a time, at most.
pub const MAX_RELAYS: usize = 16;
/// Relays that lead to this agent: a second one, so that one may end.
const RESERVATIONS: usize = 2;
/// Direct dials have this long before a circuit is asked for: one that nobody answers is given up after five seconds.
pub const DIRECT_GRACE: Duration = Duration::from_secs(8);
/// Pause between two questions to a relay.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause before a relay is asked again to be led through it: doubled each time, up to the longest.
const RESERVE_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Pause before a circuit to a peer is asked for again.
const CIRCUIT_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// A circuit is replaced when it has so little left: it ends whether or not it is in use.
pub const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Circuits asked for at a time. libp2p's client takes ten on one connection, and keeps one that nobody answers for a minute.
const MAX_DIALING: usize = 4;

/// The connections to one peer, as far as circuits depend on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Whether a direct one stands.
    pub direct: bool,
    /// When the newest circuit ends, if there is one. `None` inside: it has no end.
    pub circuit: Option<Option<Instant>>,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Relays to ask whom they lead to.
    pub ask: Vec<PeerId>,
    /// Relays to reserve at, with the address to listen on.
    pub reserve: Vec<(PeerId, Multiaddr)>,
    /// Peers to dial through a relay, with the address of the circuit.
    pub circuits: Vec<(PeerId, Multiaddr)>,
}

/// One relay with a direct connection.
#[derive(Debug)]
struct Relay {
    at: Multiaddr,
    weight: pair::Weight,
    reservation: Reservation,
    refusals: u32,
    next_ask: Instant,
    asked: bool,
    leads_to: BTreeSet<PeerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reservation {
    /// None. To be asked for not before this.
    None(Instant),
    /// Asked for.
    Asked,
    /// The relay leads to us.
    Held,
}

/// One peer that a relay leads to.
#[derive(Debug, Default)]
struct Peer {
    /// Since when no connection stands, or since when the circuit should be replaced.
    wanted_since: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
    dialing: bool,
}

/// The relays, and whom they lead to.
#[derive(Debug)]
pub struct Book {
    own_id: PeerId,
    limit: usize,
    relays: BTreeMap<PeerId, Relay>,
    peers: BTreeMap<PeerId, Peer>,
}

impl Book {
    /// An empty book of an agent that connects to at most `limit` peers by itself.
    #[must_use]
    pub fn new(own_id: PeerId, limit: usize) -> Self {
        Self {
            own_id,
            limit,
            relays: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }

    /// A member with a direct connection offers to relay, and is at this address.
    pub fn met(&mut self, relay: PeerId, at: Multiaddr, now: Instant) {
        if let Some(known) = self.relays.get_mut(&relay) {
            known.at = at;
        } else if self.relays.len() < MAX_RELAYS {
            let weight = pair::hash(&self.own_id.to_bytes(), &relay.to_bytes());
            self.relays.insert(
                relay,
                Relay {
                    at,
                    weight,
                    // It may still be about to find out that we are a member.
                    reservation: Reservation::None(now + Duration::from_secs(1)),
                    refusals: 0,
                    next_ask: now + Duration::from_secs(1),
                    asked: false,
                    leads_to: BTreeSet::new(),
                },
            );
        }
    }

    /// A member has no direct connection any more, or does not relay any more.
    pub fn lost(&mut self, relay: &PeerId) {
        if self.relays.remove(relay).is_some() {
            self.forget_unreachable();
        }
    }

    /// Whether this relay is known.
    #[must_use]
    pub fn knows(&self, relay: &PeerId) -> bool {
        self.relays.contains_key(relay)
    }

    /// Relays that lead to this agent.
    #[must_use]
    pub fn held(&self) -> usize {
        let relays = self.relays.values();
        relays
            .filter(|relay| relay.reservation == Reservation::Held)
            .count()
    }

    /// A relay has granted a reservation.
    pub fn reserved(&mut self, relay: &PeerId) {
        if let Some(known) = self.relays.get_mut(relay) {
            known.reservation = Reservation::Held;
            known.refusals = 0;
        }
    }

    /// A reservation was refused, or has ended.
    pub fn unreserved(&mut self, relay: &PeerId, now: Instant) {
        if let Some(known) = self.relays.get_mut(relay) {
            let pause = backoff(RESERVE_BACKOFF, known.refusals);
            known.refusals = known.refusals.saturating_add(1);
            known.reservation = Reservation::None(now + pause);
        }
    }

    /// A relay has told whom it leads to, or did not answer.
    pub fn told(&mut self, relay: &PeerId, peers: Option<Vec<PeerId>>, now: Instant) {
        let Some(known) = self.relays.get_mut(relay) else {
            return;
        };
        known.asked = false;
        known.next_ask = now + ASK_INTERVAL;
        let Some(peers) = peers else {
            return;
        };
        let own_id = self.own_id;
        known.leads_to = peers
            .into_iter()
            .filter(|peer| *peer != own_id)
            .take(MAX_PEERS)
            .collect();
        for peer in &known.leads_to {
            if self.peers.len() < MAX_PEERS {
                self.peers.entry(*peer).or_default();
            }
        }
        self.forget_unreachable();
    }

    /// What came of a dial through a relay.
    pub fn finished(&mut self, peer: &PeerId, connected: bool, now: Instant) {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        known.dialing = false;
        if connected {
            known.failures = 0;
            known.not_before = None;
        } else {
            known.not_before = Some(now + backoff(CIRCUIT_BACKOFF, known.failures));
            known.failures = known.failures.saturating_add(1);
        }
    }

    /// What to do now, given the connections that stand.
    pub fn plan(&mut self, ways: &HashMap<PeerId, Ways>, now: Instant) -> Plan {
        let mut plan = Plan {
            reserve: self.reserve(now),
            circuits: self.circuits(ways, now),
            ask: Vec::new(),
        };
        for (peer, relay) in &mut self.relays {
            if !relay.asked && now >= relay.next_ask {
                relay.asked = true;
                plan.ask.push(*peer);
            }
        }
        plan
    }

    /// Reservations at the first relays by the hash of the pair: the same ones for as long as they are there.
    fn reserve(&mut self, now: Instant) -> Vec<(PeerId, Multiaddr)> {
        let taken = |relay: &Relay| !matches!(relay.reservation, Reservation::None(_));
        let mut room = RESERVATIONS.saturating_sub(self.relays.values().filter(|relay| taken(relay)).count());
        let mut free: Vec<_> = self
            .relays
            .iter_mut()
            .filter(|(_, relay)| matches!(relay.reservation, Reservation::None(from) if now >= from))
            .collect();
        free.sort_by_key(|(_, relay)| (relay.refusals, relay.weight));
        let mut asked = Vec::new();
        for (peer, relay) in free {
            if room == 0 {
                break;
            }
            room -= 1;
            relay.reservation = Reservation::Asked;
            asked.push((*peer, reservation(relay.at.clone(), *peer)));
        }
        asked
    }

    fn circuits(&mut self, ways: &HashMap<PeerId, Ways>, now: Instant) -> Vec<(PeerId, Multiaddr)> {
        let under_way = self.peers.values().filter(|peer| peer.dialing).count();
        let mut slots = MAX_DIALING.saturating_sub(under_way);
        let mut room = self.limit.saturating_sub(ways.len() + under_way);
        let mut due = Vec::new();
        for (id, peer) in &mut self.peers {
            let standing = ways.get(id).copied().unwrap_or_default();
            let renew = match standing.circuit {
                _ if standing.direct => None,
                None => Some(false),
                Some(end) => end
                    .is_some_and(|end| end.saturating_duration_since(now) < RENEW_BEFORE)
                    .then_some(true),
            };
            let Some(renew) = renew else {
                peer.wanted_since = None;
                peer.failures = 0;
                continue;
            };
            let since = *peer.wanted_since.get_or_insert(now);
            let grace = if renew { Duration::ZERO } else { DIRECT_GRACE };
            let turn = if self.own_id < *id { Duration::ZERO } else { GRACE };
            if !peer.dialing
                && now >= since + grace + turn
                && peer.not_before.is_none_or(|not_before| now >= not_before)
            {
                due.push((!renew, peer.failures, *id));
            }
        }
        due.sort_unstable();
        let mut circuits = Vec::new();
        for (new, failures, id) in due {
            if slots == 0 || (new && room == 0) {
                break;
            }
            let Some(address) = self.way(&id, failures) else {
                continue;
            };
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.dialing = true;
            }
            slots -= 1;
            room = room.saturating_sub(usize::from(new));
            circuits.push((id, address));
        }
        circuits
    }

    /// The address of a peer through one of the relays that lead to it. Pairs spread over the relays by their hash, and the
    /// next one is taken after a failure.
    fn way(&self, peer: &PeerId, failures: u32) -> Option<Multiaddr> {
        let pair = pair::hash(&self.own_id.to_bytes(), &peer.to_bytes());
        let mut leading: Vec<_> = self
            .relays
            .iter()
            .filter(|(_, relay)| relay.leads_to.contains(peer))
            .map(|(id, relay)| (pair::hash(&pair, &id.to_bytes()), *id, &relay.at))
            .collect();
        leading.sort_unstable_by_key(|(weight, ..)| *weight);
        let turn = usize::try_from(failures)
            .unwrap_or(0)
            .checked_rem(leading.len())?;
        let (_, relay, at) = leading.get(turn)?;
        Some(circuit((*at).clone(), *relay, *peer))
    }

    fn forget_unreachable(&mut self) {
        let relays = &self.relays;
        self.peers.retain(|peer, known| {
            known.dialing || relays.values().any(|relay| relay.leads_to.contains(peer))
        });
    }
}

fn backoff((first, last): (Duration, Duration), failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(10)).min(last)
}

#[cfg(test)]
mod tests;
