//! Who the nodes turned away, put together from their reports. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use peernet_api::{
    report,
    v1alpha1::{MAX_STRANGERS, PeerNetworkStatus, StrangerReason, conditions},
};

use crate::{clock::Moment, pull::Pulled, roster::Roster, transitions::Transition};

/// A stranger who was met last longer ago than this is no news.
const RECENT: Duration = Duration::from_secs(600);
/// Longest text that is believed to be a peer id.
const MAX_PEER_ID: usize = 64;
/// Most strangers that an event names.
const MAX_NAMED: usize = 3;

/// Who was turned away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// How often, since the agents' start.
    pub turned_away: u64,
    /// Those of late, the last one first, each once.
    pub recent: Vec<Stranger>,
}

/// One address that was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Where it is.
    pub address: String,
    /// Why it was turned away.
    pub reason: StrangerReason,
    /// The peer that it is, if known.
    pub peer_id: Option<String>,
    /// The node that turned it away last.
    pub node: String,
    /// How long ago.
    pub age: Duration,
}

/// Puts the reports together. `pulled` has one entry a member, in the roster's order.
#[must_use]
pub fn gather(roster: &Roster, pulled: &[Pulled], now: Moment) -> Strangers {
    let mut turned_away = 0_u64;
    let mut youngest: BTreeMap<(String, StrangerReason), Stranger> = BTreeMap::new();
    for (member, pulled) in roster.members.iter().zip(pulled) {
        let Ok(answer) = pulled else { continue };
        let strangers = &answer.report.strangers;
        turned_away = turned_away.saturating_add(strangers.total());
        let waited = now.saturating_sub(answer.asked);
        for told in strangers.recent.iter().take(report::MAX_STRANGERS) {
            let age = Duration::from_millis(told.age_millis).saturating_add(waited);
            let Ok(address) = told.address.parse::<IpAddr>() else {
                continue;
            };
            if age > RECENT {
                continue;
            }
            let stranger = Stranger {
                address: address.to_string(),
                reason: reason(told.reason),
                peer_id: told.peer_id.clone().filter(|id| is_peer_id(id)),
                node: member.name.clone(),
                age,
            };
            let key = (stranger.address.clone(), stranger.reason);
            let known = youngest.entry(key).or_insert_with(|| stranger.clone());
            if stranger.age < known.age {
                *known = stranger;
            }
        }
    }
    let mut recent: Vec<_> = youngest.into_values().collect();
    recent.sort_by_key(|stranger| stranger.age);
    recent.truncate(MAX_STRANGERS);
    Strangers { turned_away, recent }
}

fn is_peer_id(text: &str) -> bool {
    text.len() <= MAX_PEER_ID && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What is told once when strangers begin to knock at a private network. No alarm: it may be a neighbour that found the
/// agents by multicast.
#[must_use]
pub fn knocked(previous: &PeerNetworkStatus, next: &PeerNetworkStatus) -> Option<Transition> {
    let by_key = |status: &PeerNetworkStatus| -> Vec<String> {
        let strangers = status.strangers.iter().flat_map(|strangers| &strangers.recent);
        strangers
            .filter(|stranger| stranger.reason != StrangerReason::NoMember)
            .map(|stranger| {
                let (address, node) = (&stranger.address, &stranger.node);
                format!(
                    "{address} was turned away by {node}: {}",
                    explain(stranger.reason)
                )
            })
            .collect()
    };
    let named = by_key(next);
    if named.is_empty() || !by_key(previous).is_empty() {
        return None;
    }
    let more = named.len().saturating_sub(MAX_NAMED);
    let mut note = named.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join("; ");
    if more > 0 {
        note.push_str(&format!("; and {more} more"));
    }
    Some(Transition {
        warning: false,
        reason: conditions::reason::STRANGERS_TURNED_AWAY.to_owned(),
        note,
    })
}

fn reason(told: report::StrangerReason) -> StrangerReason {
    match told {
        report::StrangerReason::WithoutKey => StrangerReason::WithoutKey,
        report::StrangerReason::AnotherKey => StrangerReason::AnotherKey,
        report::StrangerReason::NoMember => StrangerReason::NoMember,
    }
}

fn explain(reason: StrangerReason) -> &'static str {
    match reason {
        StrangerReason::WithoutKey => "it has no key of this private network",
        StrangerReason::AnotherKey => "it has another key than this private network",
        StrangerReason::NoMember => "it does not hold the network's Secret",
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use peernet_api::{
        report::{StrangerReport, StrangersReport},
        v1alpha1::{self, ReportOutcome, StrangersStatus},
    };

    use super::*;
    use crate::{
        measure::tests::in_zones,
        reports::tests::{answer, report},
    };

    const NOW: Duration = Duration::from_secs(100);

    fn with(name: &str, without_key: u64, recent: &[(&str, u64)]) -> Pulled {
        let mut report = report(name);
        report.strangers = StrangersReport {
            without_key,
            recent: recent
                .iter()
                .map(|(address, age_millis)| StrangerReport {
                    address: (*address).to_owned(),
                    reason: report::StrangerReason::WithoutKey,
                    peer_id: None,
                    times: 1,
                    age_millis: *age_millis,
                })
                .collect(),
            ..StrangersReport::default()
        };
        Ok(answer(report))
    }

    #[test]
    fn each_address_is_named_once_by_the_node_that_met_it_last() {
        let roster = in_zones(&["", "", ""]);
        let pulled = [
            with("mesh-0", 5, &[("10.0.0.7", 9_000), ("10.0.0.8", 700_000)]),
            with("mesh-1", 2, &[("10.0.0.7", 1_000), ("10.0.0.9", 30_000)]),
            Err(ReportOutcome::TimedOut),
        ];
        let strangers = gather(&roster, &pulled, NOW);
        let named: Vec<_> = strangers
            .recent
            .iter()
            .map(|stranger| (stranger.address.as_str(), stranger.node.as_str()))
            .collect();
        assert_eq!(named, [("10.0.0.7", "mesh-1"), ("10.0.0.9", "mesh-1")]);
        assert_eq!(strangers.turned_away, 7);
        assert_eq!(strangers.recent[0].age, Duration::from_millis(1_010));
    }

    #[test]
    fn whatever_a_report_says_the_list_is_short() {
        let many: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}")).collect();
        let many: Vec<_> = many.iter().map(|address| (address.as_str(), 1)).collect();
        let long = "x".repeat(1_000_000);
        let pulled = [
            with("mesh-0", u64::MAX, &many),
            with("mesh-1", u64::MAX, &many),
            with("mesh-2", 1, &[(&long, 0)]),
        ];
        let strangers = gather(&in_zones(&["", "", ""]), &pulled, NOW);
        assert_eq!(strangers.recent.len(), MAX_STRANGERS);
        assert_eq!(strangers.turned_away, u64::MAX);
        assert!(
            strangers
                .recent
                .iter()
                .all(|stranger| stranger.address.len() < 20)
        );
    }

    #[test]
    fn an_event_tells_once_who_knocks_without_the_key() {
        let status = |strangers: &[(&str, StrangerReason)]| PeerNetworkStatus {
            strangers: Some(StrangersStatus {
                turned_away: 9,
                recent: strangers
                    .iter()
                    .map(|(address, reason)| v1alpha1::Stranger {
                        address: (*address).to_owned(),
                        reason: *reason,
                        peer_id: None,
                        node: "mesh-1".to_owned(),
                        last_time: Time(Timestamp::UNIX_EPOCH),
                    })
                    .collect(),
            }),
            ..PeerNetworkStatus::default()
        };
        let nobody = PeerNetworkStatus::default();
        let neighbour = status(&[("10.0.0.6", StrangerReason::NoMember)]);
        let knocks = status(&[("10.0.0.7", StrangerReason::AnotherKey)]);
        assert_eq!(knocked(&nobody, &neighbour), None, "every network has neighbours");
        let told = knocked(&neighbour, &knocks).unwrap();
        assert_eq!(
            (told.warning, told.reason.as_str()),
            (false, "StrangersTurnedAway")
        );
        assert_eq!(
            told.note,
            "10.0.0.7 was turned away by mesh-1: it has another key than this private network"
        );
        let another = status(&[("10.0.0.8", StrangerReason::WithoutKey)]);
        assert_eq!(knocked(&knocks, &another), None, "it is told already");
        let many = status(&[("10.0.0.7", StrangerReason::WithoutKey); 8]);
        assert!(knocked(&nobody, &many).unwrap().note.ends_with("; and 5 more"));
    }
}
