//! Who was turned away: how many, and the last ones by their address. Pure.

use std::{collections::VecDeque, net::IpAddr};

use libp2p::PeerId;
use peernet_api::report::{MAX_STRANGERS, StrangerReason, StrangerReport, StrangersReport};

use crate::ledger::{Moment, millis};

/// The strangers met since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Connections that began without the private network's key.
    pub without_key: u64,
    /// Connections that began with another key.
    pub another_key: u64,
    /// The ones met last, the last one first.
    recent: VecDeque<Stranger>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stranger {
    address: IpAddr,
    reason: StrangerReason,
    peer: Option<PeerId>,
    times: u64,
    last: Moment,
}

impl Strangers {
    /// Somebody was turned away. Returns whether it is news: one that is not remembered.
    pub fn note(
        &mut self,
        address: Option<IpAddr>,
        reason: StrangerReason,
        peer: Option<PeerId>,
        now: Moment,
    ) -> bool {
        match reason {
            StrangerReason::WithoutKey => self.without_key += 1,
            StrangerReason::AnotherKey => self.another_key += 1,
            // Counted by those who refuse it.
            StrangerReason::NoMember => {}
        }
        let Some(address) = address else {
            return true;
        };
        let is_known = |known: &Stranger| (known.address, known.reason) == (address, reason);
        let known = self.recent.iter().position(is_known);
        let known = known.and_then(|at| self.recent.remove(at));
        let is_news = known.is_none();
        self.recent.push_front(Stranger {
            address,
            reason,
            peer: peer.or_else(|| known.as_ref()?.peer),
            times: known.map_or(0, |known| known.times) + 1,
            last: now,
        });
        self.recent.truncate(MAX_STRANGERS);
        is_news
    }

    /// What the operator is told. `no_member`: how many were turned away for not holding the network's secret.
    #[must_use]
    pub fn report(&self, no_member: u64, now: Moment) -> StrangersReport {
        let recent = self.recent.iter().map(|stranger| StrangerReport {
            address: stranger.address.to_string(),
            reason: stranger.reason,
            peer_id: stranger.peer.map(|peer| peer.to_string()),
            times: stranger.times,
            age_millis: millis(now.saturating_sub(stranger.last)),
        });
        StrangersReport {
            without_key: self.without_key,
            another_key: self.another_key,
            no_member,
            recent: recent.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(n: u8) -> Option<IpAddr> {
        Some([192, 0, 2, n].into())
    }

    #[test]
    fn each_is_named_once_with_how_often_it_came() {
        let mut strangers = Strangers::default();
        let peer = PeerId::random();
        assert!(strangers.note(address(1), StrangerReason::AnotherKey, None, SECOND));
        assert!(!strangers.note(address(1), StrangerReason::AnotherKey, None, SECOND * 2));
        assert!(strangers.note(address(1), StrangerReason::NoMember, Some(peer), SECOND * 3));
        assert!(!strangers.note(address(1), StrangerReason::NoMember, None, SECOND * 4));
        strangers.note(None, StrangerReason::WithoutKey, None, SECOND * 5);
        let report = strangers.report(7, SECOND * 6);
        assert_eq!(
            (
                report.without_key,
                report.another_key,
                report.no_member,
                report.total()
            ),
            (1, 2, 7, 10)
        );
        let told: Vec<_> = report
            .recent
            .iter()
            .map(|stranger| (stranger.reason, stranger.times, stranger.age_millis))
            .collect();
        assert_eq!(
            told,
            [
                (StrangerReason::NoMember, 2, 2_000),
                (StrangerReason::AnotherKey, 2, 4_000)
            ]
        );
        assert_eq!(report.recent[0].peer_id, Some(peer.to_string()));
    }

    #[test]
    fn however_many_come_few_are_remembered() {
        let mut strangers = Strangers::default();
        for n in 0..100_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            strangers.note(Some(address), StrangerReason::WithoutKey, None, SECOND);
        }
        let report = strangers.report(0, SECOND);
        assert_eq!(
            (report.without_key, report.recent.len()),
            (100_000, MAX_STRANGERS)
        );
        assert_eq!(report.recent[0].address, "0.1.134.159");
    }
}
