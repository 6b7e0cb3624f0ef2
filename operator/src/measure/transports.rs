//! The same links over each transport: connections, round trips and losses side by side.

use std::{collections::BTreeMap, time::Duration};

use peernet_api::{
    report::{PeerReport, Report},
    transport::Transport,
};

use super::{
    latency::{Pool, Spread},
    loss::ppm,
    rows::Row,
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
        let mut transports = spoken(row.report).into_iter();
        let Some(first) = transports.next() else {
            return;
        };
        let view = row.view;
        let expected = usize::from(should_stand || view.connected);
        let sum = self.of(first);
        sum.expected += expected;
        sum.connected += usize::from(stands_over_first(view));
        if let Some(age) = row.sample {
            sum.rtt.add(&view.rtt, age);
            sum.warm.add(&view.warm, age);
        }
        sum.count(
            row.probe,
            view.answered,
            view.timed_out.saturating_add(view.failed),
        );
        for transport in transports {
            let sum = self.of(transport);
            sum.expected += expected;
            let Some(further) = row
                .further
                .iter()
                .find(|further| further.view.transport == transport)
            else {
                continue;
            };
            let view = further.view;
            sum.connected += usize::from(view.connected);
            if let Some(age) = further.sample {
                sum.rtt.add(&view.rtt, age);
                sum.warm.add(&view.warm, age);
            }
            sum.count(
                further.probe,
                view.answered,
                view.timed_out.saturating_add(view.failed),
            );
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

impl Sum {
    /// Counts a row's probes, if the newest of them is fresh.
    fn count(&mut self, newest: Option<Duration>, answered: u64, lost: u64) {
        if newest.is_some() {
            self.lost = self.lost.saturating_add(lost);
            self.probes = self.probes.saturating_add(answered.saturating_add(lost));
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

fn stands_over_first(view: &PeerReport) -> bool {
    view.first_connected.unwrap_or(view.connected)
}
