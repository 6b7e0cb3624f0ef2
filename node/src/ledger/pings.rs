//! What libp2p's pings to one member came to, over one transport or through relays.

use std::time::Duration;

use peernet_api::{
    histogram::Histogram,
    report::{RelayedReport, TransportReport},
    transport::Transport,
};

use super::{Moment, millis, nanos, ring::Ring};
use crate::ping::{Failure, News};

#[derive(Debug)]
pub(super) struct Pings {
    /// When the newest answer came.
    answer: Option<Moment>,
    /// When the newest probe came to its end.
    probe: Option<Moment>,
    ring: Ring<Slot>,
}

/// The numbers of one sub-window.
#[derive(Debug, Default)]
struct Slot {
    answered: u64,
    timed_out: u64,
    failed: u64,
    host_limited: u64,
    rtt: Histogram,
    warm: Histogram,
}

impl Pings {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            answer: None,
            probe: None,
            ring: Ring::new(window),
        }
    }

    pub(super) fn record(&mut self, news: News, at: Moment) {
        let Some(slot) = self.ring.at(at) else {
            return;
        };
        let (result, host_limited) = match news {
            News::Warm(rtt) => {
                slot.warm.record(nanos(rtt));
                return;
            }
            News::Cold { result, host_limited } => (result, host_limited),
        };
        slot.host_limited += u64::from(host_limited);
        match result {
            Ok(rtt) => {
                slot.answered += 1;
                slot.rtt.record(nanos(rtt));
                self.answer = self.answer.max(Some(at));
            }
            Err(Failure::Timeout) => slot.timed_out += 1,
            Err(Failure::Reset | Failure::Unsupported | Failure::Closed) => slot.failed += 1,
            Err(Failure::Unheard) => return,
        }
        self.probe = self.probe.max(Some(at));
    }

    pub(super) fn report(&self, transport: Transport, connected: bool, now: Moment) -> TransportReport {
        let mut report = TransportReport {
            transport,
            connected,
            ..TransportReport::default()
        };
        for slot in self.ring.window(now) {
            report.answered += slot.answered;
            report.timed_out += slot.timed_out;
            report.failed += slot.failed;
            report.host_limited += slot.host_limited;
            report.rtt.merge(&slot.rtt);
            report.warm.merge(&slot.warm);
        }
        let age = |newest: Option<Moment>| newest.map(|newest| millis(now.saturating_sub(newest)));
        if report.answered > 0 {
            report.newest_sample_age_millis = age(self.answer);
        }
        if report.answered + report.timed_out + report.failed > 0 {
            report.newest_probe_age_millis = age(self.probe);
        }
        report
    }

    /// The same of pings through relays. `None` if there was none in the window.
    pub(super) fn relayed(&self, now: Moment) -> Option<RelayedReport> {
        let TransportReport {
            answered,
            timed_out,
            failed,
            host_limited,
            newest_sample_age_millis,
            newest_probe_age_millis,
            rtt,
            warm,
            ..
        } = self.report(Transport::default(), true, now);
        (answered + timed_out + failed + host_limited + warm.count() > 0).then_some(RelayedReport {
            answered,
            timed_out,
            failed,
            host_limited,
            newest_sample_age_millis,
            newest_probe_age_millis,
            rtt,
            warm,
        })
    }
}
