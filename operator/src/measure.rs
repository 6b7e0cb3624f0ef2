//! From the members' reports to the network's numbers. Pure.
//!
//! Only what a member says about another wanted member counts. Distributions are merged, and percentiles taken from the
//! merge. What is not known stays `None`.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use peernet_api::{
    histogram::Histogram,
    report::{PeerReport, Report},
    v1alpha1::{Link, MAX_WORST_LINKS, RttStatus},
};

use crate::{pull::Pulled, roster::Roster};

/// Most missing links that are named.
const MAX_MISSING_LINKS: usize = 5;

/// What a network's members measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    /// One entry a member, in the roster's order; `None` if its report was not accepted.
    pub members: Vec<Option<MemberMeasurements>>,
    /// Peers that each member should be connected to.
    pub expected_peers: usize,
    /// Peers that the reporting member with the fewest is connected to.
    pub fewest_connected: Option<usize>,
    /// Round trips over all links.
    pub rtt: Option<RttStatus>,
    /// Share of probes without an answer, over all links, in millionths.
    pub loss_ppm: Option<i32>,
    /// The links with the highest 99th percentile, worst first.
    pub worst_links: Vec<Link>,
    /// Links that should stand and don't, as seen by reporting members, at most [`MAX_MISSING_LINKS`].
    pub missing_links: Vec<(String, String)>,
    /// How many there are in all.
    pub missing_links_total: usize,
    /// Age of the newest sample.
    pub newest_sample_age: Option<Duration>,
}

/// What one member measured.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberMeasurements {
    /// Wanted members that it is connected to.
    pub connected: usize,
    /// 99th percentile of its round trips to all of them, in microseconds.
    pub rtt_p99_micros: Option<i64>,
}

/// How the members were asked to probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSettings {
    /// Time from one probe of a peer to the next.
    pub interval: Duration,
    /// Time after which a probe is lost.
    pub timeout: Duration,
    /// Most peers that a member connects to on its own.
    pub peers_per_node: usize,
}

/// Puts the reports together. `pulled` has one entry a member, in the roster's order.
#[must_use]
pub fn measure(roster: &Roster, pulled: &[Pulled], probe: ProbeSettings) -> Measurements {
    let others = roster.wanted.saturating_sub(1);
    let expected_peers = others.min(probe.peers_per_node);
    let mut all = Totals::default();
    let mut measurements = Measurements {
        expected_peers,
        ..Measurements::default()
    };
    let mut links = Vec::new();
    for (member, pulled) in roster.members.iter().zip(pulled) {
        let Ok(report) = pulled else {
            measurements.members.push(None);
            continue;
        };
        let mut own = Totals::default();
        let mut connected = 0;
        let views = views(report);
        for peer in &roster.members {
            if peer.name == member.name {
                continue;
            }
            let view = peer
                .peer_id
                .as_deref()
                .and_then(|id| views.get(&(peer.name.as_str(), id)).copied());
            if view.is_some_and(|view| view.connected) {
                connected += 1;
            } else if expected_peers == others {
                measurements.missing_links_total += 1;
                if measurements.missing_links.len() < MAX_MISSING_LINKS {
                    measurements
                        .missing_links
                        .push((member.name.clone(), peer.name.clone()));
                }
            }
            if let Some(view) = view {
                let mut link = Totals::default();
                link.add(view, probe);
                links.extend(link.link(&member.name, &peer.name));
                own.merge(&link);
            }
        }
        measurements.fewest_connected = Some(
            measurements
                .fewest_connected
                .map_or(connected, |fewest| fewest.min(connected)),
        );
        measurements.members.push(Some(MemberMeasurements {
            connected,
            rtt_p99_micros: micros(own.rtt.quantile(990)),
        }));
        all.merge(&own);
    }
    links.sort_by_key(|link| Reverse(link.rtt_p99_micros));
    links.truncate(MAX_WORST_LINKS);
    measurements.worst_links = links;
    measurements.loss_ppm = all.loss_ppm();
    measurements.newest_sample_age = all.newest_sample_age;
    measurements.rtt = all.rtt_status();
    measurements
}

/// What a report says of each peer. A peer that is listed twice would be counted twice: the later row wins.
fn views(report: &Report) -> HashMap<(&str, &str), &PeerReport> {
    report
        .peers
        .iter()
        .map(|view| ((view.name.as_str(), view.peer_id.as_str()), view))
        .collect()
}

/// Counts that can be added up.
#[derive(Default)]
struct Totals {
    rtt: Histogram,
    answered: u64,
    lost: u64,
    newest_sample_age: Option<Duration>,
}

impl Totals {
    fn add(&mut self, view: &PeerReport, probe: ProbeSettings) {
        self.answered = self.answered.saturating_add(view.answered);
        self.lost = self
            .lost
            .saturating_add(view.timed_out)
            .saturating_add(view.failed);
        // The window still holds what a peer answered before it was cut off. Who did not answer for three intervals has
        // no current round-trip time: an old one is not shown as if it were.
        let freshest = probe.interval * 3 + probe.timeout;
        if let Some(age) = view.newest_sample_age_millis.map(Duration::from_millis)
            && age <= freshest
        {
            self.rtt.merge(&view.rtt);
            self.newest_sample_age = Some(age);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.rtt.merge(&other.rtt);
        self.answered = self.answered.saturating_add(other.answered);
        self.lost = self.lost.saturating_add(other.lost);
        self.newest_sample_age = [self.newest_sample_age, other.newest_sample_age]
            .into_iter()
            .flatten()
            .min();
    }

    fn loss_ppm(&self) -> Option<i32> {
        let sent = u128::from(self.answered) + u128::from(self.lost);
        let ppm = (u128::from(self.lost) * 1_000_000).checked_div(sent)?;
        i32::try_from(ppm).ok()
    }

    fn rtt_status(&self) -> Option<RttStatus> {
        Some(RttStatus {
            p50_micros: micros(self.rtt.quantile(500))?,
            p90_micros: micros(self.rtt.quantile(900))?,
            p99_micros: micros(self.rtt.quantile(990))?,
            max_micros: micros(self.rtt.max())?,
            samples: i64::try_from(self.rtt.count()).unwrap_or(i64::MAX),
        })
    }

    fn link(&self, from: &str, to: &str) -> Option<Link> {
        Some(Link {
            from: from.to_owned(),
            to: to.to_owned(),
            rtt_p99_micros: micros(self.rtt.quantile(990))?,
            loss_ppm: self.loss_ppm()?,
            samples: i64::try_from(self.rtt.count()).unwrap_or(i64::MAX),
        })
    }
}

/// Whole microseconds, rounded up: what was measured is never shown as 0.
fn micros(nanos: Option<u64>) -> Option<i64> {
    i64::try_from(nanos?.div_ceil(1_000)).ok()
}

#[cfg(test)]
mod tests {
    use peernet_api::{
        identity::NetworkSecret,
        v1alpha1::{ReportOutcome, Workload},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{reports::tests::report, roster::roster};

    const PROBE: ProbeSettings = ProbeSettings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        peers_per_node: 64,
    };

    fn members(count: i32) -> Roster {
        roster(
            "mesh",
            Workload::StatefulSet,
            count,
            Some(&NetworkSecret::new(&[5; 32]).unwrap()),
            &[],
        )
    }

    fn view(roster: &Roster, peer: usize, rtts_micros: &[u64]) -> PeerReport {
        let mut rtt = Histogram::new();
        rtts_micros.iter().for_each(|micros| rtt.record(micros * 1_000));
        PeerReport {
            peer_id: roster.members[peer].peer_id.clone().unwrap(),
            name: roster.members[peer].name.clone(),
            connected: true,
            answered: rtts_micros.len() as u64,
            newest_sample_age_millis: Some(400),
            rtt,
            ..PeerReport::default()
        }
    }

    fn from(roster: &Roster, member: usize, peers: Vec<PeerReport>) -> Pulled {
        Ok(Report {
            peers,
            ..report(&roster.members[member].name)
        })
    }

    #[test]
    fn a_full_mesh_is_merged_and_its_worst_link_named() {
        let roster = members(2);
        let pulled = [
            from(&roster, 0, vec![view(&roster, 1, &[100, 100, 100])]),
            from(&roster, 1, vec![view(&roster, 0, &[100, 100, 5_000])]),
        ];
        let got = measure(&roster, &pulled, PROBE);
        assert_eq!(
            (got.expected_peers, got.fewest_connected, got.missing_links_total),
            (1, Some(1), 0)
        );
        let rtt = got.rtt.unwrap();
        assert_eq!(rtt.samples, 6);
        assert!(
            (99..=101).contains(&rtt.p50_micros) && (4_950..=5_050).contains(&rtt.p99_micros),
            "{rtt:?}"
        );
        assert_eq!(
            (got.worst_links[0].from.as_str(), got.worst_links[0].to.as_str()),
            ("mesh-1", "mesh-0")
        );
        assert_eq!(got.loss_ppm, Some(0));
        assert_eq!(got.newest_sample_age, Some(Duration::from_millis(400)));
    }

    #[test]
    fn without_reports_nothing_is_known() {
        let got = measure(
            &members(2),
            &[Err(ReportOutcome::TimedOut), Err(ReportOutcome::WrongPeer)],
            PROBE,
        );
        assert_eq!(
            (got.rtt, got.loss_ppm, got.fewest_connected, got.newest_sample_age),
            (None, None, None, None)
        );
        assert_eq!(got.missing_links_total, 0);
    }

    #[test]
    fn a_node_that_does_not_report_is_missed_by_the_others_and_not_counted_as_zero() {
        let roster = members(3);
        let pulled = [
            from(&roster, 0, vec![view(&roster, 1, &[100])]),
            from(&roster, 1, vec![view(&roster, 0, &[100])]),
            Err(ReportOutcome::TimedOut),
        ];
        let got = measure(&roster, &pulled, PROBE);
        assert_eq!((got.fewest_connected, got.expected_peers), (Some(1), 2));
        assert_eq!(
            got.missing_links,
            [
                ("mesh-0".to_owned(), "mesh-2".to_owned()),
                ("mesh-1".to_owned(), "mesh-2".to_owned())
            ]
        );
    }

    #[test]
    fn strangers_and_former_members_are_in_no_number() {
        let roster = members(2);
        let stranger = PeerReport {
            name: "mesh-9".into(),
            ..view(&roster, 1, &[9_000])
        };
        let impostor = PeerReport {
            peer_id: "12D3".into(),
            ..view(&roster, 1, &[9_000])
        };
        let pulled = [
            from(&roster, 0, vec![stranger, impostor]),
            from(&roster, 1, vec![view(&roster, 0, &[100])]),
        ];
        let got = measure(&roster, &pulled, PROBE);
        assert_eq!(got.rtt.unwrap().samples, 1);
        assert_eq!(got.fewest_connected, Some(0));
    }

    #[test]
    fn old_samples_are_not_shown_as_fresh_and_their_losses_stay() {
        let roster = members(2);
        let old = PeerReport {
            connected: false,
            timed_out: 3,
            newest_sample_age_millis: Some(5_001),
            ..view(&roster, 1, &[100])
        };
        let got = measure(
            &roster,
            &[from(&roster, 0, vec![old]), Err(ReportOutcome::TimedOut)],
            PROBE,
        );
        assert_eq!(
            (got.rtt, got.newest_sample_age, got.loss_ppm),
            (None, None, Some(750_000))
        );
    }

    #[test]
    fn a_peer_listed_twice_counts_once() {
        let roster = members(2);
        let twice = from(
            &roster,
            0,
            vec![view(&roster, 1, &[100]), view(&roster, 1, &[100])],
        );
        let got = measure(&roster, &[twice, Err(ReportOutcome::TimedOut)], PROBE);
        assert_eq!((got.rtt.unwrap().samples, got.fewest_connected), (1, Some(1)));
    }

    #[test]
    fn in_a_sampled_mesh_no_single_link_is_missing() {
        let roster = members(4);
        let probe = ProbeSettings {
            peers_per_node: 2,
            ..PROBE
        };
        let pulled = [
            from(&roster, 0, vec![view(&roster, 1, &[1]), view(&roster, 2, &[1])]),
            from(&roster, 1, vec![view(&roster, 0, &[1])]),
            Err(ReportOutcome::TimedOut),
            Err(ReportOutcome::TimedOut),
        ];
        let got = measure(&roster, &pulled, probe);
        assert_eq!(
            (got.expected_peers, got.fewest_connected, got.missing_links_total),
            (2, Some(1), 0)
        );
    }

    proptest! {
        #[test]
        fn the_order_of_members_changes_no_number(
            rtts in prop::collection::vec(prop::collection::vec(1_u64..60_000_000, 0..40), 6),
            missing in prop::collection::vec(any::<bool>(), 3),
        ) {
            let roster = members(3);
            let pulled: Vec<Pulled> = (0..3).map(|member| {
                if missing[member] {
                    return Err(ReportOutcome::Unreachable);
                }
                let others = (0..3).filter(|&peer| peer != member).enumerate();
                from(&roster, member, others.map(|(at, peer)| view(&roster, peer, &rtts[member * 2 + at])).collect())
            }).collect();
            let got = measure(&roster, &pulled, PROBE);
            let mut turned = roster.clone();
            turned.members.rotate_left(1);
            let mut turned_pulled = pulled.clone();
            turned_pulled.rotate_left(1);
            let again = measure(&turned, &turned_pulled, PROBE);
            prop_assert_eq!(&got.rtt, &again.rtt);
            prop_assert_eq!(got.loss_ppm, again.loss_ppm);
            prop_assert_eq!(got.fewest_connected, again.fewest_connected);
            if let Some(rtt) = got.rtt {
                prop_assert!(rtt.p50_micros <= rtt.p90_micros && rtt.p90_micros <= rtt.p99_micros);
                prop_assert!(rtt.p99_micros <= rtt.max_micros);
            }
        }
    }
}
