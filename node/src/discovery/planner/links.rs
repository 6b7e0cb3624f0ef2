//! The connections that stand, as far as dials depend on them.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use libp2p::PeerId;
use peernet_api::transport::Transport;

use super::Target;
use crate::discovery::Address;

/// One peer with a connection, as the event loop sees it.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Addresses at which we reached the peer ourselves.
    pub dialed: Vec<Address>,
    /// The transports of its connections, whoever opened them.
    pub transports: Vec<Transport>,
    /// Where its connections to us come from.
    pub sources: Vec<IpAddr>,
    /// Addresses that it says it listens on.
    pub claimed: Vec<Address>,
    /// Whether it has shown that it is a member.
    pub member: bool,
    /// Whether only circuits through relays lead to it: direct dials go on.
    pub relayed: bool,
}

impl Link {
    /// Where the peer is: rather where we reached it than where it comes from.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let dialed = self.dialed.first().map(Address::ip);
        dialed.or_else(|| self.sources.first().copied())
    }
}

/// The connections, by the questions that are asked about them.
pub(super) struct View<'a> {
    links: &'a HashMap<PeerId, Link>,
    pub(super) dialed: HashSet<Address>,
    sources: HashSet<IpAddr>,
    pub(super) claimed: HashSet<Address>,
    /// Of these, the ones that are where the member's connection comes from.
    reached: HashSet<Address>,
    /// Addresses of hosts that several agents share.
    shared: HashSet<IpAddr>,
}

impl<'a> View<'a> {
    pub(super) fn new(links: &'a HashMap<PeerId, Link>, seeds: impl Iterator<Item = Address>) -> Self {
        let (mut dialed, mut sources, mut claimed) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut reached = HashSet::new();
        for link in links.values() {
            dialed.extend(&link.dialed);
            // On loopback, one address is many agents.
            sources.extend(link.sources.iter().filter(|ip| !ip.is_loopback()));
            if link.member && !link.relayed {
                claimed.extend(&link.claimed);
                let here = |address: &&Address| link.sources.contains(&address.ip());
                reached.extend(link.claimed.iter().filter(here));
            }
        }
        let (mut hosts, mut shared) = (HashSet::new(), HashSet::new());
        for seed in seeds {
            if !hosts.insert(seed.ip()) {
                shared.insert(seed.ip());
            }
        }
        Self {
            links,
            dialed,
            sources,
            claimed,
            reached,
            shared,
        }
    }

    /// Whether a target, which is at these addresses, has a connection over any transport.
    pub(super) fn is_connected(&self, target: &Target, addresses: &[Address]) -> bool {
        match target {
            // A connection comes from a host. Where that has several agents, only what a member says tells which one it is.
            Target::Seed(seed) => {
                addresses
                    .iter()
                    .any(|address| self.dialed.contains(address) || self.reached.contains(address))
                    || (self.sources.contains(&seed.ip()) && !self.shared.contains(&seed.ip()))
            }
            Target::Peer(peer) | Target::Member(peer, _) => {
                self.links.get(peer).is_some_and(|link| !link.relayed)
            }
        }
    }
}
