//! Which rows of which reports count, and how old they are.

use std::{collections::HashMap, time::Duration};

use peernet_api::{
    report::{NetworkReport, PeerReport, RelayedReport, Report, TransportReport},
    transport::Transport,
};

use crate::{clock::Moment, pull::Answer, roster::Member};

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

impl ProbeSettings {
    /// The greatest age of a fresh sample. The window still holds what a peer answered before it was cut off: who has not
    /// answered for three intervals has no current number, and an old one is not shown as if it were.
    #[must_use]
    pub fn freshest(&self) -> Duration {
        self.interval * 3 + self.timeout
    }

    /// An age that a report gives, if what is so old is fresh.
    pub(super) fn fresh(&self, millis: Option<u64>) -> Option<Duration> {
        millis
            .map(Duration::from_millis)
            .filter(|age| *age <= self.freshest())
    }
}

/// What a report says of each peer.
pub(super) struct Views<'a>(HashMap<(&'a str, &'a str), &'a PeerReport>);

impl<'a> Views<'a> {
    /// A peer that is listed twice would be counted twice: the later row wins.
    pub(super) fn of(report: &'a Report) -> Self {
        let views = report.peers.iter();
        Self(
            views
                .map(|view| ((view.name.as_str(), view.peer_id.as_str()), view))
                .collect(),
        )
    }

    /// What it says of this member, by its name and by the peer id that it must have.
    pub(super) fn find(&self, member: &Member) -> Option<&'a PeerReport> {
        self.0
            .get(&(member.name.as_str(), member.peer_id.as_deref()?))
            .copied()
    }
}

/// One member's view of another, with the ages of what is fresh in it. What is not fresh has no age, and is in no number.
pub(super) struct Row<'a> {
    pub(super) view: &'a PeerReport,
    /// The report that it is from.
    pub(super) report: &'a Report,
    /// Age of the newest round trip.
    pub(super) sample: Option<Duration>,
    /// Age of the newest probe that came to an end.
    pub(super) probe: Option<Duration>,
    /// The same two of STAMP.
    stamp_sample: Option<Duration>,
    stamp_probe: Option<Duration>,
    /// The same two of probes through relays.
    relayed_sample: Option<Duration>,
    relayed_probe: Option<Duration>,
    /// What it says of further transports.
    pub(super) further: Vec<Further<'a>>,
}

/// One member's view of another over a further transport.
pub(super) struct Further<'a> {
    pub(super) view: &'a TransportReport,
    /// Age of the newest round trip, if it is fresh.
    pub(super) sample: Option<Duration>,
    /// Age of the newest probe that came to an end, if it is fresh.
    pub(super) probe: Option<Duration>,
}

impl<'a> Row<'a> {
    /// Judges a row of `answer` about a peer, of which `peer` is its own answer.
    pub(super) fn judge(
        view: &'a PeerReport,
        answer: &'a Answer,
        peer: Option<&Answer>,
        probe: ProbeSettings,
        now: Moment,
    ) -> Self {
        // A peer that neither reports nor is connected may be gone, and another may be about to come in its place.
        let vouched_for = view.connected || peer.is_some();
        let since_asked = now.saturating_sub(answer.asked);
        let fresh = |millis: Option<u64>| {
            let age = probe.fresh(millis)?;
            (vouched_for && !precedes(age, answer, peer)).then(|| age.saturating_add(since_asked))
        };
        let stamp = view.network.as_ref();
        let relayed = view.relayed.as_ref();
        Self {
            view,
            report: &answer.report,
            sample: fresh(view.newest_sample_age_millis),
            probe: fresh(view.newest_probe_age_millis),
            stamp_sample: fresh(stamp.and_then(|stamp| stamp.newest_sample_age_millis)),
            stamp_probe: fresh(stamp.and_then(|stamp| stamp.newest_probe_age_millis)),
            relayed_sample: fresh(relayed.and_then(|relayed| relayed.newest_sample_age_millis)),
            relayed_probe: fresh(relayed.and_then(|relayed| relayed.newest_probe_age_millis)),
            further: view
                .transports
                .iter()
                .take(Transport::ALL.len())
                .map(|view| Further {
                    view,
                    sample: fresh(view.newest_sample_age_millis),
                    probe: fresh(view.newest_probe_age_millis),
                })
                .collect(),
        }
    }

    /// What STAMP says, if its newest round trip is fresh.
    pub(super) fn stamp_samples(&self) -> Option<(&'a NetworkReport, Duration)> {
        self.view.network.as_ref().zip(self.stamp_sample)
    }

    /// What STAMP says, if its newest probe is fresh.
    pub(super) fn stamp_probes(&self) -> Option<(&'a NetworkReport, Duration)> {
        self.view.network.as_ref().zip(self.stamp_probe)
    }
}

impl<'a> Row<'a> {
    /// What was measured through relays, if its newest round trip is fresh.
    pub(super) fn relayed_samples(&self) -> Option<(&'a RelayedReport, Duration)> {
        self.view.relayed.as_ref().zip(self.relayed_sample)
    }

    /// Probes through relays, and how many of them got no answer. None, if the newest is not fresh.
    pub(super) fn relayed_losses(&self) -> (u64, u64) {
        self.view
            .relayed
            .as_ref()
            .filter(|_| self.relayed_probe.is_some())
            .map_or((0, 0), |relayed| {
                let lost = relayed.timed_out.saturating_add(relayed.failed);
                (relayed.answered.saturating_add(lost), lost)
            })
    }
}

/// Whether a sample of this age was taken before the peer's agent started: then it is of a pod that was replaced, and the
/// member has not noticed yet. Each report was made between its two moments; the doubt counts for the sample.
fn precedes(age: Duration, answer: &Answer, peer: Option<&Answer>) -> bool {
    peer.is_some_and(|peer| {
        let uptime = Duration::from_millis(peer.report.uptime_millis);
        answer.received.saturating_add(uptime) < peer.asked.saturating_add(age)
    })
}
