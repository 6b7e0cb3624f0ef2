//! Everything since the agent's start, over all peers: what counters are made of.

use std::{collections::BTreeMap, time::Duration};

use peernet_api::{report::StampClock, transport::Transport};

use super::is_host_limited;
use crate::{
    host,
    ping::{self, Failure},
    telemetry::{StampNews, StampSample},
};

/// Everything since the start, over all peers. What is said of libp2p is that of the agent's first transport.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Cold round-trip times of all answered probes.
    pub rtt: TimeBuckets,
    /// Warm round-trip times of all bursts.
    pub warm: TimeBuckets,
    /// Cold round-trip times of answered probes that went through a relay. These probes are in no other number of these.
    pub relayed: TimeBuckets,
    /// Probes through a relay without an answer in time.
    pub relayed_timed_out: u64,
    /// Probes through a relay that failed at once.
    pub relayed_failed: u64,
    /// The network's own round-trip times, from STAMP.
    pub network: TimeBuckets,
    /// Time that STAMP probes of this agent spent in its own host.
    pub host_delay: TimeBuckets,
    /// How late the event loop's timer was served.
    pub loop_lag: TimeBuckets,
    /// Probes without an answer in time.
    pub timed_out: u64,
    /// Probes whose stream broke or could not be opened.
    pub reset: u64,
    /// Probes to peers that don't speak the protocol.
    pub unsupported: u64,
    /// Probes on the way when their connection ended.
    pub closed: u64,
    /// Probes of which nobody can say whether they were answered in time.
    pub unheard: u64,
    /// Probes, over libp2p and by STAMP, that a host delayed.
    pub host_limited: u64,
    /// STAMP probes.
    pub stamp: StampTotals,
    /// Segments that TCP sent again on measured connections.
    pub retransmitted: u64,
    /// What the host did to the agent.
    pub host: host::Usage,
    /// The pings over the agent's further transports.
    pub further: BTreeMap<Transport, PingTotals>,
}

/// Pings over one of the further transports since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PingTotals {
    /// Cold round-trip times of all answered probes.
    pub rtt: TimeBuckets,
    /// Warm round-trip times of all bursts.
    pub warm: TimeBuckets,
    /// Probes without an answer in time.
    pub timed_out: u64,
    /// Probes that failed at once.
    pub failed: u64,
    /// Probes of which nobody can say whether they were answered in time.
    pub unheard: u64,
}

/// STAMP probes since the start by what became of them: each one is in exactly one of the first five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampTotals {
    /// Answered in time, with a round trip.
    pub answered: u64,
    /// Answered in time, without a round trip.
    pub voided: u64,
    /// Lost on the way to the peer.
    pub lost_forward: u64,
    /// Answer lost on the way back.
    pub lost_backward: u64,
    /// Lost, and nobody knew where at that time.
    pub lost_undirected: u64,
    /// Of the last kind, those that later turned out to be lost on the way to the peer.
    pub located_forward: u64,
    /// Of that kind, those that turned out to be lost on the way back.
    pub located_backward: u64,
    /// Further copies of answers.
    pub duplicated: u64,
    /// Answers that a later one overtook.
    pub reordered: u64,
}

impl Totals {
    pub(super) fn count_probe(&mut self, news: ping::News) {
        let (result, host_limited) = match news {
            ping::News::Warm(rtt) => {
                self.warm.record(rtt);
                return;
            }
            ping::News::Cold { result, host_limited } => (result, host_limited),
        };
        match result {
            Ok(rtt) => self.rtt.record(rtt),
            Err(Failure::Timeout) => self.timed_out += 1,
            Err(Failure::Reset) => self.reset += 1,
            Err(Failure::Unsupported) => self.unsupported += 1,
            Err(Failure::Closed) => self.closed += 1,
            Err(Failure::Unheard) => self.unheard += 1,
        }
        self.host_limited += u64::from(host_limited);
    }

    pub(super) fn count_relayed(&mut self, news: ping::News) {
        let ping::News::Cold { result, .. } = news else {
            return;
        };
        match result {
            Ok(rtt) => self.relayed.record(rtt),
            Err(Failure::Timeout) => self.relayed_timed_out += 1,
            Err(Failure::Reset | Failure::Unsupported | Failure::Closed) => self.relayed_failed += 1,
            Err(Failure::Unheard) => {}
        }
    }

    pub(super) fn count_further(&mut self, transport: Transport, news: ping::News) {
        let totals = self.further.entry(transport).or_default();
        let (result, host_limited) = match news {
            ping::News::Warm(rtt) => {
                totals.warm.record(rtt);
                return;
            }
            ping::News::Cold { result, host_limited } => (result, host_limited),
        };
        match result {
            Ok(rtt) => totals.rtt.record(rtt),
            Err(Failure::Timeout) => totals.timed_out += 1,
            Err(Failure::Reset | Failure::Unsupported | Failure::Closed) => totals.failed += 1,
            Err(Failure::Unheard) => totals.unheard += 1,
        }
        self.host_limited += u64::from(host_limited);
    }

    pub(super) fn count_stamp(&mut self, news: StampNews) {
        let stamp = &mut self.stamp;
        match news {
            StampNews::Sample(sample) => {
                stamp.answered += 1;
                self.count_sample(&sample);
            }
            StampNews::Voided => stamp.voided += 1,
            StampNews::LostForward => stamp.lost_forward += 1,
            StampNews::LostBackward => stamp.lost_backward += 1,
            StampNews::LostUndirected => stamp.lost_undirected += 1,
            StampNews::Located { forward: true } => stamp.located_forward += 1,
            StampNews::Located { forward: false } => stamp.located_backward += 1,
            StampNews::Duplicated => stamp.duplicated += 1,
            StampNews::Reordered => stamp.reordered += 1,
        }
    }

    fn count_sample(&mut self, sample: &StampSample) {
        let host_limited = is_host_limited(sample);
        self.host_limited += u64::from(host_limited);
        match sample.clock {
            StampClock::Kernel => {
                self.network.record(sample.network);
                self.host_delay.record(sample.own_host);
            }
            StampClock::UserSpace if host_limited => {}
            StampClock::UserSpace => self.network.record(sample.network),
        }
    }
}

/// Counts of durations by fixed upper bounds, for Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeBuckets {
    /// Counts by [`TimeBuckets::BOUNDS`], and those above the last bound at the end. Not cumulative.
    pub counts: [u64; TimeBuckets::BOUNDS.len() + 1],
    /// Sum of all durations in seconds.
    pub sum: f64,
}

impl TimeBuckets {
    /// Upper bounds in seconds: 1, 2, 5 from 10 µs to 10 s.
    pub const BOUNDS: [f64; 19] = [
        10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3,
        500e-3, 1.0, 2.0, 5.0, 10.0,
    ];

    pub(super) fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Default for TimeBuckets {
    fn default() -> Self {
        Self {
            counts: [0; Self::BOUNDS.len() + 1],
            sum: 0.0,
        }
    }
}
