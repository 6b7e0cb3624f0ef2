//! Which further connections to open to members that are connected already: one over each transport that both speak. A
//! circuit is no such connection: whom only circuits lead to is still looked for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use peernet_api::transport::Transport;

use super::{Dial, GRACE, Link, MAX_ADDRESSES, Outcome, Target, tries::Tries};
use crate::discovery::Address;

/// Such dials that may be under way at once. Where a transport is blocked, each of them waits for its deadline: they
/// must not take the turns of those that look for members.
const MAX_DIALING: usize = 16;

/// A transport over which a connected member is not connected. No more of them than there are members and transports.
#[derive(Debug)]
struct Missing {
    since: Instant,
    tries: Tries,
}

/// Plans the further connections. Whoever has the lower peer id dials at once, and the other one after the grace.
#[derive(Debug, Default)]
pub(super) struct Further {
    missing: BTreeMap<(PeerId, Transport), Missing>,
}

impl Further {
    pub(super) fn plan(
        &mut self,
        own_id: PeerId,
        transports: &[Transport],
        links: &HashMap<PeerId, Link>,
        dialing: &HashSet<Address>,
        now: Instant,
    ) -> Vec<Dial> {
        let offered = |peer: &PeerId, transport: Transport| -> Vec<Address> {
            let link = links
                .get(peer)
                .filter(|link| link.member && !link.relayed && !link.transports.contains(&transport));
            let claimed = link.into_iter().flat_map(|link| &link.claimed);
            let fitting = claimed.filter(|address| address.transport() == transport);
            fitting.take(MAX_ADDRESSES).copied().collect()
        };
        self.missing.retain(|(peer, transport), missing| {
            missing.tries.dialing || !offered(peer, *transport).is_empty()
        });
        let mut due = Vec::new();
        for peer in links.keys() {
            for transport in transports {
                let addresses = offered(peer, *transport);
                if addresses.is_empty() {
                    continue;
                }
                let missing = self
                    .missing
                    .entry((*peer, *transport))
                    .or_insert_with(|| Missing {
                        since: now,
                        tries: Tries::default(),
                    });
                let grace = if own_id < *peer { Duration::ZERO } else { GRACE };
                let waits = missing.tries.dialing
                    || now < missing.since + grace
                    || !missing.tries.may_go_on(now)
                    || addresses.iter().any(|address| dialing.contains(address));
                if !waits {
                    due.push((missing.tries.failures, *peer, *transport, addresses));
                }
            }
        }
        due.sort_unstable();
        let under_way = self
            .missing
            .values()
            .filter(|missing| missing.tries.dialing)
            .count();
        due.truncate(MAX_DIALING.saturating_sub(under_way));
        let mut dials = Vec::with_capacity(due.len());
        for (_, peer, transport, addresses) in due {
            if let Some(missing) = self.missing.get_mut(&(peer, transport)) {
                missing.tries.dialing = true;
                let target = Target::Member(peer, transport);
                dials.push(Dial { target, addresses });
            }
        }
        dials
    }

    pub(super) fn finished(
        &mut self,
        own_id: PeerId,
        (peer, transport): (PeerId, Transport),
        outcome: Outcome,
        now: Instant,
    ) {
        if let Some(missing) = self.missing.get_mut(&(peer, transport)) {
            let target = Target::Member(peer, transport);
            missing.tries.finished(own_id, target, outcome, now);
        }
    }
}
