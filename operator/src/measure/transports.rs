//! The same links over each transport: connections, round trips and losses side by side.

use std::{collections::BTreeMap, time::Duration};

use peernet_api::{histogram::Histogram, report::Report, transport::Transport};

use super::{
    latency::{Pool, Spread},
    loss::ppm,
    rows::{Further, Row},
};

/// What was measured over one transport.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TransportNumbers {
    /// The transport.
    pub transport: Transport,
    /// Links that should stand, as seen by members that reported and speak it.
    pub expected: usize,
    /// Those of them that do.
    pub connected: usize,
    /// Cold round trips.
    pub rtt: Option<Spread>,
    /// Warm round trips.
    pub warm: Option<Spread>,
    /// Share of the probes that got no answer, in millionths.
    pub loss_ppm: Option<i32>,
    /// Number of these probes.
    pub probes: u64,
}

/// Adds them up, in the order in which reports list them: no more than there are transports.
#[derive(Default)]
pub(super) struct Transports {
    order: Vec<Transport>,
    sums: BTreeMap<Transport, Sum>,
}

#[derive(Default)]
struct Sum {
    expected: usize,
    connected: usize,
    rtt: Pool,
    warm: Pool,
    probes: u64,
    lost: u64,
}

impl Transports {
    /// A link to a peer of which a report says nothing.
    pub(super) fn miss(&mut self, report: &Report) {
        for transport in spoken(report) {
            self.of(transport).expected += 1;
        }
    }

    /// A link of which a report says something. Without any connection, it only counts if it `should_stand`.
    pub(super) fn add(&mut self, row: &Row<'_>, should_stand: bool) {
        let expected = usize::from(should_stand || row.view.connected);
        for (place, transport) in spoken(row.report).into_iter().enumerate() {
            let sum = self.of(transport);
            sum.expected += expected;
            let seen = if place == 0 {
                Some(Seen::over_first(row))
            } else {
                let mut further = row.further.iter();
                further
                    .find(|further| further.view.transport == transport)
                    .map(Seen::over)
            };
            if let Some(seen) = seen {
                sum.add(&seen);
            }
        }
    }

    pub(super) fn numbers(&self) -> Vec<TransportNumbers> {
        self.order
            .iter()
            .filter_map(|transport| Some((transport, self.sums.get(transport)?)))
            .map(|(transport, sum)| TransportNumbers {
                transport: *transport,
                expected: sum.expected,
                connected: sum.connected,
                rtt: sum.rtt.spread(),
                warm: sum.warm.spread(),
                loss_ppm: ppm(sum.lost, sum.probes),
                probes: sum.probes,
            })
            .collect()
    }

    fn of(&mut self, transport: Transport) -> &mut Sum {
        if !self.order.contains(&transport) {
            self.order.push(transport);
        }
        self.sums.entry(transport).or_default()
    }
}

/// What a report says of a link over one transport.
struct Seen<'a> {
    connected: bool,
    rtt: &'a Histogram,
    warm: &'a Histogram,
    answered: u64,
    lost: u64,
    /// Ages of the newest round trip and the newest probe, if they are fresh.
    sample: Option<Duration>,
    probe: Option<Duration>,
}

impl<'a> Seen<'a> {
    fn over_first(row: &Row<'a>) -> Self {
        let view = row.view;
        Self {
            connected: view.first_connected.unwrap_or(view.connected),
            rtt: &view.rtt,
            warm: &view.warm,
            answered: view.answered,
            lost: view.timed_out.saturating_add(view.failed),
            sample: row.sample,
            probe: row.probe,
        }
    }

    fn over(further: &Further<'a>) -> Self {
        let view = further.view;
        Self {
            connected: view.connected,
            rtt: &view.rtt,
            warm: &view.warm,
            answered: view.answered,
            lost: view.timed_out.saturating_add(view.failed),
            sample: further.sample,
            probe: further.probe,
        }
    }
}

impl Sum {
    fn add(&mut self, seen: &Seen<'_>) {
        self.connected += usize::from(seen.connected);
        if let Some(age) = seen.sample {
            self.rtt.add(seen.rtt, age);
            self.warm.add(seen.warm, age);
        }
        if seen.probe.is_some() {
            self.lost = self.lost.saturating_add(seen.lost);
            self.probes = self
                .probes
                .saturating_add(seen.answered.saturating_add(seen.lost));
        }
    }
}

/// The transports that a member says it speaks. It may say so more than once.
fn spoken(report: &Report) -> Vec<Transport> {
    let mut spoken = Vec::new();
    for transport in &report.transports {
        if spoken.len() < Transport::ALL.len() && !spoken.contains(transport) {
            spoken.push(*transport);
        }
    }
    spoken
}
