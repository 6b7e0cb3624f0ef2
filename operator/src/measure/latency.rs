//! Times that can be added up, and the numbers that follow from them.

use std::time::Duration;

use peernet_api::{histogram::Histogram, report::StampClock, v1alpha1::Clock};

use super::{
    loss::{Loss, Losses},
    rows::Row,
    youngest,
};

/// Samples that can be merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    samples: Histogram,
    /// Age of the newest.
    newest: Option<Duration>,
}

impl Pool {
    pub(super) fn add(&mut self, samples: &Histogram, newest: Duration) {
        if !samples.is_empty() {
            self.samples.merge(samples);
            self.newest = youngest(self.newest, Some(newest));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if let Some(newest) = other.newest {
            self.add(&other.samples, newest);
        }
    }

    pub(super) fn spread(&self) -> Option<Spread> {
        Some(Spread {
            p50_micros: micros(self.samples.quantile(500))?,
            p90_micros: micros(self.samples.quantile(900))?,
            p99_micros: micros(self.samples.quantile(990))?,
            max_micros: micros(self.samples.max())?,
            samples: self.samples.count(),
            newest: self.newest?,
        })
    }
}

/// What is told of a distribution of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Median, in microseconds.
    pub p50_micros: i64,
    /// 90th percentile, in microseconds.
    pub p90_micros: i64,
    /// 99th percentile, in microseconds.
    pub p99_micros: i64,
    /// Largest, in microseconds.
    pub max_micros: i64,
    /// Number of samples.
    pub samples: u64,
    /// Age of the newest of them.
    pub newest: Duration,
}

/// The numbers of a network, a link, or a pair of zones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Cold round trips.
    pub rtt: Option<Spread>,
    /// Warm round trips.
    pub warm: Option<Spread>,
    /// The network's own round trips.
    pub network: Option<Spread>,
    /// Time in both hosts.
    pub hosts: Option<Spread>,
    /// Which clock stamped the last two.
    pub clock: Option<Clock>,
    /// STAMP samples that a host was late for.
    pub host_limited: u64,
    /// Answered STAMP probes without a round trip.
    pub voided: u64,
    /// What got lost.
    pub loss: Loss,
}

/// Everything about some rows that can be added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) rtt: Pool,
    warm: Pool,
    network: Pool,
    hosts: Pool,
    clock: Option<Clock>,
    host_limited: u64,
    voided: u64,
    /// libp2p probes that the member's own host delayed.
    pub(super) late_probes: u64,
    losses: Losses,
}

impl Totals {
    pub(super) fn add(&mut self, row: &Row<'_>) {
        if let Some(age) = row.sample {
            self.rtt.add(&row.view.rtt, age);
            self.warm.add(&row.view.warm, age);
        }
        if let Some((stamp, age)) = row.stamp_samples() {
            self.network.add(&stamp.rtt, age);
            self.hosts.add(&stamp.hosts, age);
            self.clock = worse(self.clock, Some(clock(stamp.clock)));
            self.host_limited = self.host_limited.saturating_add(stamp.host_limited);
            self.voided = self.voided.saturating_add(stamp.voided);
        }
        if row.probe.is_some() {
            self.late_probes = self.late_probes.saturating_add(row.view.host_limited);
        }
        self.losses.add(row);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let Self {
            rtt,
            warm,
            network,
            hosts,
            clock,
            host_limited,
            voided,
            late_probes,
            losses,
        } = other;
        self.rtt.merge(rtt);
        self.warm.merge(warm);
        self.network.merge(network);
        self.hosts.merge(hosts);
        self.clock = worse(self.clock, *clock);
        self.host_limited = self.host_limited.saturating_add(*host_limited);
        self.voided = self.voided.saturating_add(*voided);
        self.late_probes = self.late_probes.saturating_add(*late_probes);
        self.losses.merge(losses);
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            rtt: self.rtt.spread(),
            warm: self.warm.spread(),
            network: self.network.spread(),
            hosts: self.hosts.spread(),
            clock: self.clock,
            host_limited: self.host_limited,
            voided: self.voided,
            loss: self.losses.loss(),
        }
    }
}

fn clock(stamps: StampClock) -> Clock {
    match stamps {
        StampClock::Kernel => Clock::Kernel,
        StampClock::UserSpace => Clock::UserSpace,
    }
}

/// What two clocks are worth together.
fn worse(one: Option<Clock>, other: Option<Clock>) -> Option<Clock> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Some(Clock::Mixed),
        (one, other) => one.or(other),
    }
}

/// The nearest whole microsecond, and at least one: what was measured is never shown as 0.
pub(super) fn micros(nanos: Option<u64>) -> Option<i64> {
    i64::try_from(nanos?.saturating_add(500) / 1_000)
        .ok()
        .map(|micros| micros.max(1))
}
