//! The worst links, and the pairs of zones: bounded, worst first.

use std::{cmp::Reverse, collections::BTreeMap};

use peernet_api::{
    histogram::Histogram,
    report::HOST_LATE_NANOS,
    v1alpha1::{LateEnd, MAX_WORST_LINKS, MAX_ZONE_PAIRS},
};

use super::{
    latency::{Numbers, Totals},
    rows::Row,
};
use crate::roster::Member;

/// The way from one member or zone to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Where the probes came from.
    pub from: String,
    /// Where they went.
    pub to: String,
    /// What was measured.
    pub numbers: Numbers,
    /// Whose host is late, if one is. Not told of zones.
    pub late_end: Option<LateEnd>,
}

/// The rows with the highest 99th percentile of the cold round trip.
#[derive(Default)]
pub(super) struct WorstLinks<'a> {
    /// At most twice as many as are named, in no order.
    candidates: Vec<Candidate<'a>>,
}

struct Candidate<'a> {
    p99: u64,
    from: &'a Member,
    to: &'a Member,
    row: Row<'a>,
}

impl<'a> WorstLinks<'a> {
    pub(super) fn offer(&mut self, from: &'a Member, to: &'a Member, row: Row<'a>) {
        let Some(p99) = row.sample.and_then(|_| row.view.rtt.quantile(990)) else {
            return;
        };
        self.candidates.push(Candidate { p99, from, to, row });
        if self.candidates.len() >= 2 * MAX_WORST_LINKS {
            self.keep_the_worst();
        }
    }

    /// The worst links with their numbers, worst first.
    pub(super) fn named(mut self) -> Vec<Pair> {
        self.keep_the_worst();
        self.candidates
            .iter()
            .map(|Candidate { from, to, row, .. }| {
                let mut totals = Totals::default();
                totals.add(row);
                Pair {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    numbers: totals.numbers(),
                    late_end: late_end(row),
                }
            })
            .collect()
    }

    fn keep_the_worst(&mut self) {
        self.candidates.sort_by_key(|candidate| Reverse(candidate.p99));
        self.candidates.truncate(MAX_WORST_LINKS);
    }
}

/// Whose host more than 1 % of the samples of this link were late in.
fn late_end(row: &Row<'_>) -> Option<LateEnd> {
    let (stamp, _) = row.stamp_samples()?;
    let is_late = |times: &Histogram| times.quantile(990).is_some_and(|p99| p99 > HOST_LATE_NANOS);
    if !is_late(&stamp.hosts) {
        return None;
    }
    Some(
        match (is_late(&row.report.host.delay), is_late(&stamp.peer_host)) {
            (true, false) => LateEnd::From,
            (false, true) => LateEnd::To,
            // Also if neither alone is late, and both together are.
            (true, true) | (false, false) => LateEnd::Both,
        },
    )
}

/// What was measured from zone to zone.
#[derive(Default)]
pub(super) struct Zones<'a>(BTreeMap<(&'a str, &'a str), Totals>);

impl<'a> Zones<'a> {
    pub(super) fn add(&mut self, from: &'a str, to: &'a str, totals: &Totals) {
        self.0.entry((from, to)).or_default().merge(totals);
    }

    /// The worst pairs that something is known of, and how many more there are. Those that only losses are known of come
    /// first, then those with the longest network time, then those without one.
    pub(super) fn worst_first(self) -> (Vec<Pair>, usize) {
        let mut pairs: Vec<Pair> = self
            .0
            .into_iter()
            .map(|((from, to), totals)| Pair {
                from: from.to_owned(),
                to: to.to_owned(),
                numbers: totals.numbers(),
                late_end: None,
            })
            .filter(|pair| pair.numbers.has_round_trips() || pair.numbers.loss.ppm.is_some())
            .collect();
        pairs.sort_by_key(|pair| {
            let Numbers { rtt, network, .. } = &pair.numbers;
            Reverse((
                !pair.numbers.has_round_trips(),
                network.as_ref().map(|network| network.p99_micros),
                rtt.as_ref().map(|rtt| rtt.p99_micros),
            ))
        });
        let omitted = pairs.len().saturating_sub(MAX_ZONE_PAIRS);
        pairs.truncate(MAX_ZONE_PAIRS);
        (pairs, omitted)
    }
}

impl Numbers {
    fn has_round_trips(&self) -> bool {
        self.rtt.is_some() || self.network.is_some()
    }
}
