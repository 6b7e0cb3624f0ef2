//! Whom to dial, and when. Pure: the clock, the connections and what was discovered come in as arguments.
//!
//! Two agents that learn of each other at once would dial each other at once, and have two connections. So the one with
//! the lower address (or peer id, where no address is known beforehand) dials at once, and the other one only after a
//! grace in which nothing came.
//!
//! A member is looked for over the first transport, and over the others in turn if that fails. Once it is connected,
//! [`further`] sees to one connection over each transport that both speak.

mod further;
mod links;
pub(crate) mod pair;
mod tries;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use peernet_api::transport::Transport;

pub use self::links::Link;
use self::{
    further::Further,
    links::View,
    pair::{Weight, weight},
    tries::Tries,
};
use super::{Address, MAX_ADDRESSES};
use crate::bucket::{Bucket, Rate};

/// The side that should be dialed waits this long before it dials itself.
pub const GRACE: Duration = Duration::from_secs(3);
/// A connected member says that it has this address: most likely true, but anybody can say so. It is tried in the end.
pub const CLAIM_GRACE: Duration = Duration::from_secs(30);
/// Seeds from one name, at most.
pub const MAX_SEEDS: usize = 1024;
/// Peers known from mDNS and Kademlia, at most.
pub const MAX_PEERS: usize = 256;
/// A peer that only Kademlia told us about is forgotten after so many failed dials.
const MAX_KAD_FAILURES: u32 = 8;
/// Dials that may be under way at once.
const MAX_DIALING: usize = 16;
/// Dials to peers that anybody on the network may have announced: four a second.
const ANNOUNCED_DIALS: Rate = Rate {
    each: Duration::from_millis(250),
    burst: 4,
};

/// Whom a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An address whose peer id is not known, from DNS or given beforehand.
    Seed(Address),
    /// A peer known by its id.
    Peer(PeerId),
    /// A member that is connected, but not over this transport.
    Member(PeerId, Transport),
}

/// Where a peer was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Configured: dialed at once and for ever.
    Bootstrap,
    /// Announced on the local network.
    Mdns,
    /// Named by another member.
    Kademlia,
    /// A member that only a circuit leads to says where it can be reached directly.
    Circuit,
}

/// What a peer was first heard of as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An address, from DNS or given beforehand.
    Address(Address),
    /// A peer id.
    Peer(Source),
}

/// What a dial came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection stands.
    Connected,
    /// Nobody answered, or not in time.
    Failed,
    /// Somebody else answered, or one who may not connect.
    Stranger,
    /// The address is our own.
    Ourselves,
}

/// A dial to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Whom it is for: hand it back to [`Planner::finished`].
    pub target: Target,
    /// Where to.
    pub addresses: Vec<Address>,
}

/// What is known of one target.
#[derive(Debug)]
struct Candidate {
    /// Rendezvous hash of the pair of us and the target.
    weight: Weight,
    addresses: Vec<Address>,
    source: Option<Source>,
    /// What brought it here, and its place among all that was ever heard of.
    first: (u64, Heard),
    /// Since when there is no connection, as far as this planner has seen.
    missing_since: Option<Instant>,
    tries: Tries,
}

impl Candidate {
    fn new(weight: Weight, addresses: Vec<Address>, source: Option<Source>, first: (u64, Heard)) -> Self {
        Self {
            first,
            weight,
            addresses,
            source,
            missing_since: None,
            tries: Tries::default(),
        }
    }
}

impl Candidate {
    /// Where to dial now: over one transport, the preferred one first, and over the next one after each failure.
    fn addresses_of_turn(&self, transports: &[Transport]) -> Vec<Address> {
        let speaks = |transport: &&Transport| {
            let mut addresses = self.addresses.iter();
            addresses.any(|address| address.transport() == **transport)
        };
        let usable: Vec<&Transport> = transports.iter().filter(speaks).collect();
        let turn = usize::try_from(self.tries.failures).unwrap_or_default() % usable.len().max(1);
        let Some(transport) = usable.get(turn) else {
            return Vec::new();
        };
        let addresses = self.addresses.iter();
        addresses
            .filter(|address| address.transport() == **transport)
            .copied()
            .collect()
    }
}

/// Keeps what was discovered and plans dials.
#[derive(Debug)]
pub struct Planner {
    own_id: PeerId,
    own: HashSet<Address>,
    own_address: Option<Address>,
    limit: usize,
    /// The transports to dial over, the preferred one first.
    transports: Vec<Transport>,
    /// Where all agents of the network listen, if they do so at the same ports.
    ports: Vec<(Transport, u16)>,
    further: Further,
    candidates: BTreeMap<Target, Candidate>,
    /// How many targets were ever heard of.
    heard: u64,
    /// How many announced peers may still be dialed.
    announced: Option<Bucket<Instant>>,
}

impl Planner {
    /// A planner for the agent with this id, which dials at most `limit` peers.
    #[must_use]
    pub fn new(own_id: PeerId, limit: usize) -> Self {
        Self {
            own_id,
            own: HashSet::new(),
            own_address: None,
            limit,
            transports: vec![Transport::default()],
            ports: Vec::new(),
            further: Further::default(),
            candidates: BTreeMap::new(),
            heard: 0,
            announced: None,
        }
    }

    /// The same planner for an agent that speaks these transports, the preferred one first. `ports`: where the agents of
    /// this network listen, so that a seed's address of one transport tells those of the others.
    #[must_use]
    pub fn speaking(mut self, transports: &[Transport], ports: &[(Transport, u16)]) -> Self {
        self.transports = transports.to_vec();
        self.ports = ports.to_vec();
        self
    }

    /// An address of ours. It is never dialed; the first one of the preferred transport stands for us when two agents
    /// compare addresses.
    pub fn own_address(&mut self, address: Address) {
        self.own.insert(address);
        self.candidates.remove(&Target::Seed(address));
        if self.own_address.is_none() && self.transports.first() == Some(&address.transport()) {
            self.own_address = Some(address);
            for (target, candidate) in &mut self.candidates {
                candidate.weight = weight(self.own_id, self.own_address, target);
            }
        }
    }

    /// Whether an address is ours.
    #[must_use]
    pub fn is_own(&self, address: &Address) -> bool {
        self.own.contains(address)
    }

    /// The addresses that are known now. Those known before and not listed any more are forgotten.
    pub fn set_seeds(&mut self, addresses: impl IntoIterator<Item = Address>) {
        let listed: HashSet<Address> = addresses
            .into_iter()
            .filter(|address| !self.own.contains(address))
            .take(MAX_SEEDS)
            .collect();
        self.candidates.retain(|target, candidate| match target {
            Target::Seed(address) => listed.contains(address) || candidate.tries.dialing,
            Target::Peer(_) | Target::Member(..) => true,
        });
        for address in listed {
            let target = Target::Seed(address);
            let weight = weight(self.own_id, self.own_address, &target);
            let addresses = self.ways_to(address);
            self.heard += 1;
            let first = (self.heard, Heard::Address(address));
            self.candidates
                .entry(target)
                .or_insert_with(|| Candidate::new(weight, addresses, None, first));
        }
    }

    /// A seed's addresses: over all transports, if it listens where all agents of the network do.
    fn ways_to(&self, seed: Address) -> Vec<Address> {
        let port = seed.socket().port();
        if !self.ports.contains(&(seed.transport(), port)) {
            return vec![seed];
        }
        let ports = self.ports.iter();
        ports
            .map(|(transport, port)| Address::new(*transport, SocketAddr::new(seed.ip(), *port)))
            .collect()
    }

    /// A peer was heard of at these addresses.
    pub fn discovered(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Address>, source: Source) {
        if peer == self.own_id {
            return;
        }
        let target = Target::Peer(peer);
        if !self.candidates.contains_key(&target) && source != Source::Bootstrap && !self.make_room() {
            return;
        }
        let weight = weight(self.own_id, self.own_address, &target);
        self.heard += 1;
        let first = (self.heard, Heard::Peer(source));
        let known = self
            .candidates
            .entry(target)
            .or_insert_with(|| Candidate::new(weight, Vec::new(), Some(source), first));
        if known.source != Some(Source::Bootstrap) {
            known.source = Some(source);
        }
        for address in addresses {
            if !known.addresses.contains(&address) && !self.own.contains(&address) {
                let alike = |other: &Address| other.transport() == address.transport();
                if known.addresses.iter().filter(|other| alike(other)).count() >= MAX_ADDRESSES
                    && let Some(oldest) = known.addresses.iter().position(alike)
                {
                    known.addresses.remove(oldest);
                }
                known.addresses.push(address);
            }
        }
    }

    /// What was first heard of a peer that is at these addresses, of all that is still known. `None` if nothing was.
    #[must_use]
    pub fn first_heard(&self, peer: &PeerId, addresses: &[Address]) -> Option<Heard> {
        let seeds = addresses.iter().map(|address| Target::Seed(*address));
        std::iter::once(Target::Peer(*peer))
            .chain(seeds)
            .filter_map(|target| Some(self.candidates.get(&target)?.first))
            .min_by_key(|(order, _)| *order)
            .map(|(_, heard)| heard)
    }

    /// The addresses of a bootstrap peer were looked up anew.
    pub fn resolved(&mut self, peer: PeerId, addresses: Vec<Address>) {
        if let Some(known) = self.candidates.get_mut(&Target::Peer(peer)) {
            known.addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        }
    }

    /// An announcement has run out.
    pub fn expired(&mut self, peer: &PeerId) {
        let target = Target::Peer(*peer);
        if self
            .candidates
            .get(&target)
            .is_some_and(|known| known.source == Some(Source::Mdns))
        {
            self.candidates.remove(&target);
        }
    }

    /// A peer has shown that it is none of ours: it is not dialed any more.
    pub fn forget(&mut self, peer: &PeerId) {
        let target = Target::Peer(*peer);
        if self
            .candidates
            .get(&target)
            .is_some_and(|known| known.source != Some(Source::Bootstrap))
        {
            self.candidates.remove(&target);
        }
    }

    /// What came of a dial.
    pub fn finished(&mut self, target: Target, outcome: Outcome, now: Instant) {
        if let Target::Member(peer, transport) = target {
            self.further
                .finished(self.own_id, (peer, transport), outcome, now);
            return;
        }
        if outcome == Outcome::Ourselves {
            if let Target::Seed(address) = target {
                self.own.insert(address);
            }
            self.candidates.remove(&target);
            return;
        }
        let own_id = self.own_id;
        let Some(known) = self.candidates.get_mut(&target) else {
            return;
        };
        known.tries.finished(own_id, target, outcome, now);
        if known.source == Some(Source::Kademlia) && known.tries.failures >= MAX_KAD_FAILURES {
            self.candidates.remove(&target);
        }
    }

    /// The dials to make now, given the connections that stand.
    pub fn plan(&mut self, links: &HashMap<PeerId, Link>, now: Instant) -> Vec<Dial> {
        let seeds = self.candidates.keys().filter_map(|target| match target {
            Target::Seed(address) => Some(*address),
            Target::Peer(_) | Target::Member(..) => None,
        });
        let view = View::new(links, seeds);
        let mut dialing: HashSet<Address> = HashSet::new();
        let mut under_way = 0;
        for candidate in self
            .candidates
            .values()
            .filter(|candidate| candidate.tries.dialing)
        {
            dialing.extend(&candidate.addresses);
            under_way += 1;
        }
        let members = links.values().filter(|link| link.member).count();
        let mut room = self.limit.saturating_sub(members + under_way);
        let mut slots = MAX_DIALING.saturating_sub(under_way);
        let chosen = self.chosen();
        let budget = self
            .announced
            .get_or_insert_with(|| Bucket::new(ANNOUNCED_DIALS, now));
        let mut dials = Vec::new();
        let mut due: Vec<(bool, u32, Weight, Target)> = Vec::new();
        for (target, candidate) in &mut self.candidates {
            if view.is_connected(target, &candidate.addresses) {
                candidate.missing_since = None;
                candidate.tries.failures = 0;
                continue;
            }
            let since = *candidate.missing_since.get_or_insert(now);
            let bootstrap = candidate.source == Some(Source::Bootstrap);
            if candidate.tries.dialing
                || (!bootstrap && chosen.as_ref().is_some_and(|chosen| !chosen.contains(target)))
            {
                continue;
            }
            let first = match target {
                _ if bootstrap => true,
                Target::Seed(address) => self.own_address.is_none_or(|own| own.socket() < address.socket()),
                Target::Peer(peer) | Target::Member(peer, _) => self.own_id < *peer,
            };
            let grace = match target {
                Target::Seed(address) if view.claimed.contains(address) => CLAIM_GRACE,
                _ if first => Duration::ZERO,
                _ => GRACE,
            };
            if now >= since + grace && candidate.tries.may_go_on(now) {
                due.push((!bootstrap, candidate.tries.failures, candidate.weight, *target));
            }
        }
        // Bootstrap peers first, then those that failed least, so that forged announcements can't keep others from their
        // turn, then those whom the hash of the pair puts first.
        due.sort_unstable();
        for (not_bootstrap, _, _, target) in due {
            let bootstrap = !not_bootstrap;
            if slots == 0 {
                break;
            }
            let announced = matches!(target, Target::Peer(_)) && !bootstrap;
            let Some(candidate) = self.candidates.get_mut(&target) else {
                continue;
            };
            if candidate.addresses.is_empty()
                || candidate
                    .addresses
                    .iter()
                    .any(|address| dialing.contains(address) || view.dialed.contains(address))
                || (!bootstrap && room == 0)
                || (announced && !budget.take(now))
            {
                continue;
            }
            let addresses = candidate.addresses_of_turn(&self.transports);
            if addresses.is_empty() {
                continue;
            }
            candidate.tries.dialing = true;
            dialing.extend(&candidate.addresses);
            slots -= 1;
            if !bootstrap {
                room = room.saturating_sub(1);
            }
            dials.push(Dial { target, addresses });
        }
        dials.extend(
            self.further
                .plan(self.own_id, &self.transports, links, &dialing, now),
        );
        dials
    }

    /// With more candidates of a kind than may be dialed, the ones that the hash of the pair puts first: the same ones
    /// for as long as they are there, and spread evenly over the network. `None` if all may be dialed.
    fn chosen(&self) -> Option<HashSet<Target>> {
        let (mut seeds, mut peers) = (Vec::new(), Vec::new());
        for (target, candidate) in &self.candidates {
            match target {
                Target::Seed(_) => seeds.push((candidate.weight, *target)),
                Target::Peer(_) | Target::Member(..) => peers.push((candidate.weight, *target)),
            }
        }
        if seeds.len() <= self.limit && peers.len() <= self.limit {
            return None;
        }
        let mut chosen = HashSet::new();
        for mut kind in [seeds, peers] {
            kind.sort_unstable();
            chosen.extend(kind.into_iter().take(self.limit).map(|(_, target)| target));
        }
        Some(chosen)
    }

    /// Makes room for one more announced peer, if need be at the cost of the one that failed most often.
    fn make_room(&mut self) -> bool {
        let announced = |candidate: &Candidate| {
            matches!(
                candidate.source,
                Some(Source::Mdns | Source::Kademlia | Source::Circuit)
            )
        };
        if self
            .candidates
            .values()
            .filter(|candidate| announced(candidate))
            .count()
            < MAX_PEERS
        {
            return true;
        }
        let worst = self
            .candidates
            .iter()
            .filter(|(_, candidate)| {
                announced(candidate) && candidate.tries.failures > 0 && !candidate.tries.dialing
            })
            .max_by_key(|(_, candidate)| candidate.tries.failures)
            .map(|(target, _)| *target);
        worst.is_some_and(|worst| self.candidates.remove(&worst).is_some())
    }
}

#[cfg(test)]
mod tests;
