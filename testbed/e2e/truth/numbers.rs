//! What agents say, from their signed reports, of the time between two of them.

use std::collections::BTreeMap;

use peernet_api::{
    histogram::Histogram,
    report::{NetworkReport, PeerReport, Report},
};
use peernet_e2e::{Outcome, network::row_about};

/// Counts by duration in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<u64, u64>);

impl Counts {
    fn add(&mut self, histogram: &Histogram) {
        for (nanos, count) in histogram.iter() {
            *self.0.entry(nanos).or_default() += count;
        }
    }

    /// Takes away what had been counted before.
    fn without(&mut self, earlier: &Histogram) {
        for (nanos, count) in earlier.iter() {
            let slot = self.0.entry(nanos).or_default();
            *slot = slot.saturating_sub(count);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Nearest rank, in nanoseconds.
    pub(crate) fn percentile(&self, percent: f64) -> Option<i64> {
        let rank = (self.count() as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (&nanos, &count) in &self.0 {
            seen += count;
            if seen >= rank {
                return i64::try_from(nanos).ok();
            }
        }
        None
    }
}

/// What was measured between two reports, of one direction or of several together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) cold: Counts,
    pub(crate) warm: Counts,
    pub(crate) network: Counts,
    pub(crate) hosts: Counts,
    pub(crate) peer_host: Counts,
    pub(crate) own_host: Counts,
    pub(crate) probes: u64,
    pub(crate) ping_lost: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) lost_forward: u64,
    pub(crate) lost_backward: u64,
    pub(crate) lost_undirected: u64,
    pub(crate) voided: u64,
    pub(crate) host_limited: u64,
    pub(crate) clocks: Vec<String>,
}

impl Numbers {
    /// Adds what an agent measured about `peer` between two of its reports. The window must hold both times.
    pub(crate) fn add(&mut self, earlier: &Report, later: &Report, peer: &str) -> Outcome {
        if later.events_dropped > earlier.events_dropped {
            return Err(format!("{} lost measurements", later.name).into());
        }
        let before = row_about(earlier, peer)?;
        let now = row_about(later, peer)?;
        for (into, before, now) in [
            (&mut self.cold, &before.rtt, &now.rtt),
            (&mut self.warm, &before.warm, &now.warm),
            (&mut self.own_host, &earlier.host.delay, &later.host.delay),
        ] {
            into.add(now);
            into.without(before);
        }
        let ended = |row: &PeerReport| row.answered + row.timed_out + row.failed;
        self.probes += ended(now).saturating_sub(ended(before));
        let lost = |row: &PeerReport| row.timed_out + row.failed;
        self.ping_lost += lost(now).saturating_sub(lost(before));
        let Some(network) = &now.network else {
            return Ok(());
        };
        let earlier = before.network.clone().unwrap_or_default();
        for (into, before, now) in [
            (&mut self.network, &earlier.rtt, &network.rtt),
            (&mut self.hosts, &earlier.hosts, &network.hosts),
            (&mut self.peer_host, &earlier.peer_host, &network.peer_host),
        ] {
            into.add(now);
            into.without(before);
        }
        let since = |value: fn(&NetworkReport) -> u64| value(network).saturating_sub(value(&earlier));
        self.sent += since(|of| of.sent);
        self.answered += since(|of| of.answered);
        self.lost_forward += since(|of| of.lost_forward);
        self.lost_backward += since(|of| of.lost_backward);
        self.lost_undirected += since(|of| of.lost_undirected);
        self.voided += since(|of| of.voided);
        self.host_limited += since(|of| of.host_limited);
        self.clocks.push(format!("{:?}", network.clock));
        Ok(())
    }
}
