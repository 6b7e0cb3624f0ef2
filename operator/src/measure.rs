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
mod tests;
