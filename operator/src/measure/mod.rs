//! From the members' reports to the network's numbers. Pure: `now` is an argument.
//!
//! * [`rows`]: which rows of which reports count, and how old they are.
//! * [`latency`] and [`loss`]: what is added up, and the numbers that follow from it.
//! * [`transports`]: the same links over each transport.
//! * [`external`]: the hosts outside the network.
//! * [`pairs`]: the worst links, and the pairs of zones.
//! * [`paths`]: which pairs are connected directly, and which through relays.
//! * [`services`]: how many providers of each service are found.
//!
//! Only what a member says about another wanted member counts. Distributions are merged, and percentiles taken from the
//! merge. What is old or not known stays `None`. Ages are those of monotonic clocks: the agent's up to the report, the
//! operator's from there on.

mod external;
mod latency;
mod loss;
mod pairs;
mod paths;
mod rows;
mod services;
mod transports;

use std::{collections::BTreeMap, time::Duration};

use peernet_api::report::{FoundBy, Report};

pub use self::{
    external::{External, external},
    latency::{Numbers, Spread},
    loss::Loss,
    pairs::Pair,
    paths::{Federated, Paths, RelayedPair},
    rows::ProbeSettings,
    transports::TransportNumbers,
};
use self::{
    latency::{Pool, Totals},
    loss::ppm,
    pairs::{WorstLinks, Zones},
    paths::{Ways, is_foreign, own_peers},
    rows::{Row, Views},
    transports::Transports,
};
use crate::{
    clock::Moment,
    pull::{Answer, Pulled},
    roster::{Member, Roster},
};

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
    /// Guests of all members whose report says how many it has.
    pub guests: Option<u64>,
    /// How reporting members first heard of the peers that they are connected to; `None` if nobody says.
    pub found_by: Option<BTreeMap<FoundBy, usize>>,
    /// All links together, over the first transport.
    pub numbers: Numbers,
    /// All links together, over each transport.
    pub transports: Vec<TransportNumbers>,
    /// How late the members' event loops were served.
    pub loop_lag: Option<Spread>,
    /// What waited in any of the hosts, own probes and others'.
    pub host_delay: Option<Spread>,
    /// The links with the highest 99th percentile of the cold round trip, worst first.
    pub worst_links: Vec<Pair>,
    /// The pairs of zones, worst first.
    pub zones: Vec<Pair>,
    /// Pairs of zones that `zones` has no room for.
    pub zones_omitted: usize,
    /// Links that should stand and don't, as seen by reporting members, at most [`MAX_MISSING_LINKS`].
    pub missing_links: Vec<(String, String)>,
    /// How many there are in all.
    pub missing_links_total: usize,
    /// By which ways the members are connected.
    pub paths: Paths,
    /// Providers that each reporting member finds at least, by service.
    pub services: BTreeMap<String, u32>,
}

impl Measurements {
    /// Age of the newest sample behind the numbers.
    #[must_use]
    pub fn newest_sample_age(&self) -> Option<Duration> {
        let rtt = self.numbers.rtt.as_ref().map(|rtt| rtt.newest);
        let network = self.numbers.network.as_ref().map(|network| network.newest);
        let relayed = self.paths.rtt.as_ref().map(|relayed| relayed.newest);
        youngest(youngest(rtt, network), relayed)
    }

    /// Whether a round trip was measured of late, over any transport or through a relay.
    #[must_use]
    pub fn has_round_trips(&self) -> bool {
        self.numbers.rtt.is_some()
            || self.paths.rtt.is_some()
            || self.transports.iter().any(|over| over.rtt.is_some())
    }
}

/// What one member measured, and what was measured of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberMeasurements {
    /// Wanted members that it is connected to.
    pub connected: usize,
    /// Its cold round trips to all of them.
    pub rtt: Option<Spread>,
    /// The time that its own STAMP probes waited in its host, and that those of its peers waited in it.
    pub host_delay: Option<Spread>,
    /// Share of the window in which its CPU limit kept it from running, in millionths.
    pub throttled_ppm: Option<i32>,
    /// Its libp2p probes that its own host delayed.
    pub host_limited: u64,
    /// Whether a relay could dial it, if one has tried.
    pub reachable: Option<bool>,
}

/// Puts the reports together. `pulled` has one entry a member, in the roster's order.
#[must_use]
pub fn measure(roster: &Roster, pulled: &[Pulled], probe: ProbeSettings, now: Moment) -> Measurements {
    let others = roster.wanted.saturating_sub(1);
    let mut measurements = Measurements {
        expected_peers: others.min(probe.peers_per_node),
        ..Measurements::default()
    };
    let every_link_should_stand = measurements.expected_peers == others;
    let mut all = Totals::default();
    let mut loop_lag = Pool::default();
    let mut host_delays = vec![Pool::default(); roster.members.len()];
    let mut worst_links = WorstLinks::default();
    let mut zones = Zones::default();
    let mut ways = Ways::default();
    let own_peers = own_peers(roster);
    let mut transports = Transports::default();
    for (at, (member, pulled_of_member)) in roster.members.iter().zip(pulled).enumerate() {
        let Ok(answer) = pulled_of_member else {
            measurements.members.push(None);
            continue;
        };
        if let Some(guests) = answer.report.guests {
            *measurements.guests.get_or_insert_default() += u64::from(guests);
        }
        let views = Views::of(&answer.report);
        let mut connected = 0;
        let mut by_zone: BTreeMap<Option<&str>, Totals> = BTreeMap::new();
        // The newest round trip that its own host had a part in.
        let mut newest_own = None;
        for (peer_at, (peer, pulled_of_peer)) in roster.members.iter().zip(pulled).enumerate() {
            if peer_at == at {
                continue;
            }
            let view = views.find(peer);
            if let Some(view) = view.filter(|view| view.connected) {
                connected += 1;
                if let Some(found_by) = view.found_by {
                    let counts = measurements.found_by.get_or_insert_default();
                    *counts.entry(found_by).or_default() += 1;
                }
            } else if every_link_should_stand {
                measurements.miss(member, peer);
            }
            let Some(view) = view else {
                if every_link_should_stand {
                    transports.miss(&answer.report);
                }
                continue;
            };
            let row = Row::judge(view, answer, pulled_of_peer.as_ref().ok(), probe, now);
            if let Some((stamp, age)) = row.stamp_samples() {
                newest_own = youngest(newest_own, Some(age));
                if let Some(delays) = host_delays.get_mut(peer_at) {
                    delays.add(&stamp.peer_host, age);
                }
            }
            ways.add((at, member), (peer_at, peer), &row);
            transports.add(&row, every_link_should_stand);
            by_zone.entry(zone(peer)).or_default().add(&row);
            worst_links.offer(member, peer, row);
        }
        for view in answer
            .report
            .peers
            .iter()
            .filter(|view| is_foreign(&own_peers, view))
        {
            ways.add_foreign(&Row::judge(view, answer, None, probe, now));
        }
        if let (Some(age), Some(delays)) = (newest_own, host_delays.get_mut(at)) {
            delays.add(&answer.report.host.delay, age);
        }
        loop_lag.add(&answer.report.host.loop_lag, loop_age(answer, now));
        let mut own = Totals::default();
        for (peers_zone, totals) in by_zone {
            own.merge(&totals);
            if let (Some(from), Some(to)) = (zone(member), peers_zone) {
                zones.add(from, to, &totals);
            }
        }
        let fewest = measurements.fewest_connected;
        measurements.fewest_connected = Some(fewest.map_or(connected, |fewest| fewest.min(connected)));
        measurements.members.push(Some(MemberMeasurements {
            connected,
            rtt: own.rtt.spread(),
            host_delay: None,
            throttled_ppm: throttled_ppm(&answer.report),
            host_limited: own.late_probes,
            reachable: answer.report.reachable,
        }));
        all.merge(&own);
    }
    measurements.services = services::found(pulled.iter().filter_map(|pulled| pulled.as_ref().ok()), now);
    let mut host_delay = Pool::default();
    for (member, delays) in measurements.members.iter_mut().zip(&host_delays) {
        host_delay.merge(delays);
        if let Some(member) = member {
            member.host_delay = delays.spread();
        }
    }
    measurements.host_delay = host_delay.spread();
    measurements.loop_lag = loop_lag.spread();
    measurements.worst_links = worst_links.named();
    (measurements.zones, measurements.zones_omitted) = zones.worst_first();
    measurements.numbers = all.numbers();
    measurements.paths = ways.paths();
    measurements.transports = transports.numbers();
    measurements
}

impl Measurements {
    fn miss(&mut self, from: &Member, to: &Member) {
        self.missing_links_total += 1;
        if self.missing_links.len() < MAX_MISSING_LINKS {
            self.missing_links.push((from.name.clone(), to.name.clone()));
        }
    }
}

/// The zone of the node that a member runs on.
fn zone(member: &Member) -> Option<&str> {
    member.pod.as_ref()?.zone.as_deref()
}

/// How old the newest look at the event loop is.
fn loop_age(answer: &Answer, now: Moment) -> Duration {
    Duration::from_millis(answer.report.heartbeat_age_millis).saturating_add(now.saturating_sub(answer.asked))
}

/// The window is shorter for an agent that started within it.
fn throttled_ppm(report: &Report) -> Option<i32> {
    let micros = report
        .window_millis
        .min(report.uptime_millis)
        .saturating_mul(1_000);
    // One that runs threads on several CPUs can be throttled on each of them at the same time.
    ppm(report.host.throttled_micros?.min(micros), micros)
}

fn youngest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
pub(crate) mod tests;
