//! What got lost: of libp2p ping by timeout, of STAMP by direction.

use std::time::Duration;

use super::{rows::Row, youngest};

/// Counts that can be added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    probes: u64,
    lost: u64,
    newest: Option<Duration>,
    retransmitted: Option<u64>,
    udp_probes: u64,
    forward: u64,
    backward: u64,
    undirected: u64,
    udp_newest: Option<Duration>,
}

/// What is told of losses. Shares are in millionths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Share of the libp2p probes that got no answer.
    pub ppm: Option<i32>,
    /// Number of these probes.
    pub probes: u64,
    /// Age of the newest of them.
    pub newest: Option<Duration>,
    /// Segments that TCP sent again.
    pub retransmitted: Option<u64>,
    /// Share of the STAMP probes that were lost on the way there, of those whose fate is known.
    pub forward_ppm: Option<i32>,
    /// Share of the answers that were lost on the way back, of the probes that got there.
    pub backward_ppm: Option<i32>,
    /// Share of the STAMP probes that nobody knows of where they were lost.
    pub undirected_ppm: Option<i32>,
    /// Number of STAMP probes.
    pub udp_probes: u64,
    /// Age of the newest of them.
    pub udp_newest: Option<Duration>,
}

impl Losses {
    pub(super) fn add(&mut self, row: &Row<'_>) {
        if let Some(age) = row.probe {
            let view = row.view;
            let lost = view.timed_out.saturating_add(view.failed);
            self.merge(&Self {
                probes: view.answered.saturating_add(lost),
                lost,
                newest: Some(age),
                retransmitted: view.retransmitted,
                ..Self::default()
            });
        }
        if let Some((stamp, age)) = row.stamp_probes() {
            self.merge(&Self {
                udp_probes: stamp.sent,
                forward: stamp.lost_forward,
                backward: stamp.lost_backward,
                undirected: stamp.lost_undirected,
                udp_newest: Some(age),
                ..Self::default()
            });
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let Self {
            probes,
            lost,
            newest,
            retransmitted,
            udp_probes,
            forward,
            backward,
            undirected,
            udp_newest,
        } = other;
        for (sum, more) in [
            (&mut self.probes, probes),
            (&mut self.lost, lost),
            (&mut self.udp_probes, udp_probes),
            (&mut self.forward, forward),
            (&mut self.backward, backward),
            (&mut self.undirected, undirected),
        ] {
            *sum = sum.saturating_add(*more);
        }
        self.newest = youngest(self.newest, *newest);
        self.udp_newest = youngest(self.udp_newest, *udp_newest);
        if let Some(more) = retransmitted {
            self.retransmitted = Some(self.retransmitted.unwrap_or(0).saturating_add(*more));
        }
    }

    pub(super) fn loss(&self) -> Loss {
        let located = self.udp_probes.saturating_sub(self.undirected);
        Loss {
            ppm: ppm(self.lost, self.probes),
            probes: self.probes,
            newest: self.newest,
            retransmitted: self.retransmitted,
            forward_ppm: ppm(self.forward, located),
            backward_ppm: ppm(self.backward, located.saturating_sub(self.forward)),
            undirected_ppm: ppm(self.undirected, self.udp_probes),
            udp_probes: self.udp_probes,
            udp_newest: self.udp_newest,
        }
    }
}

/// `part` in millionths of `whole`. `None` of nothing: unknown is not zero.
pub(super) fn ppm(part: u64, whole: u64) -> Option<i32> {
    let ppm = (u128::from(part) * 1_000_000).checked_div(u128::from(whole))?;
    i32::try_from(ppm.min(1_000_000)).ok()
}
