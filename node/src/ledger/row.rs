//! One member's numbers over the window.

use std::{sync::Arc, time::Duration};

use peernet_api::{
    histogram::Histogram,
    report::{NetworkReport, Path, PeerReport, RelayedReport, StampClock},
};

use super::{Member, Moment, is_host_limited, millis, nanos, ring::Ring};
use crate::{
    host::tcp::Socket,
    membership::Instance,
    ping::{Failure, News},
    telemetry::{StampNews, StampSample},
};

#[derive(Debug)]
pub(super) struct Row {
    name: Arc<str>,
    instance: Option<Instance>,
    /// Since when this instance of the member is known: what was sent before then was not sent to it.
    since: Moment,
    /// Since when no connection stands. `None` while one does.
    pub(super) away_since: Option<Moment>,
    /// The way that it is measured on, or was at last.
    path: Path,
    /// Who relays, if the way is a circuit.
    relay: Option<Arc<str>>,
    /// The measured connection, as it was when it was last looked at.
    socket: Option<Socket>,
    newest: Newest,
    ring: Ring<Slot>,
}

/// When the newest thing of each kind was known.
#[derive(Debug, Default)]
struct Newest {
    answer: Option<Moment>,
    probe: Option<Moment>,
    relayed_answer: Option<Moment>,
    relayed_probe: Option<Moment>,
    stamp_sample: Option<Moment>,
    stamp_probe: Option<Moment>,
}

/// The numbers of one sub-window.
#[derive(Debug, Default)]
struct Slot {
    answered: u64,
    timed_out: u64,
    failed: u64,
    host_limited: u64,
    retransmitted: Option<u64>,
    rtt: Histogram,
    warm: Histogram,
    network: Option<Box<NetworkReport>>,
    /// What went through relays: in no other number.
    relayed: Option<Box<RelayedReport>>,
}

impl Row {
    pub(super) fn new(member: &Member, window: Duration, now: Moment) -> Self {
        Self {
            name: Arc::clone(&member.name),
            instance: member.instance,
            since: now,
            away_since: None,
            path: member.path,
            relay: member.relay.clone(),
            socket: None,
            newest: Newest::default(),
            ring: Ring::new(window),
        }
    }

    pub(super) fn is_of(&self, member: &Member) -> bool {
        self.instance == member.instance
    }

    /// The member has a connection.
    pub(super) fn reach(&mut self, member: &Member) {
        self.away_since = None;
        self.path = member.path;
        self.relay.clone_from(&member.relay);
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.away_since.is_none() && self.path == Path::Relayed
    }

    /// False if the probe was sent to an earlier instance of the member: it is in no number then.
    pub(super) fn record(&mut self, path: Path, news: News, sent: Moment, at: Moment) -> bool {
        if sent < self.since {
            return false;
        }
        if path == Path::Relayed {
            self.record_relayed(news, at);
            return true;
        }
        let Some(slot) = self.ring.at(at) else {
            return true;
        };
        let (result, host_limited) = match news {
            News::Warm(rtt) => {
                slot.warm.record(nanos(rtt));
                return true;
            }
            News::Cold { result, host_limited } => (result, host_limited),
        };
        slot.host_limited += u64::from(host_limited);
        match result {
            Ok(rtt) => {
                slot.answered += 1;
                slot.rtt.record(nanos(rtt));
                self.newest.answer = self.newest.answer.max(Some(at));
            }
            Err(Failure::Timeout) => slot.timed_out += 1,
            Err(Failure::Reset | Failure::Unsupported | Failure::Closed) => slot.failed += 1,
            Err(Failure::Unheard) => return true,
        }
        self.newest.probe = self.newest.probe.max(Some(at));
        true
    }

    fn record_relayed(&mut self, news: News, at: Moment) {
        let Some(slot) = self.ring.at(at) else {
            return;
        };
        let relayed = slot.relayed.get_or_insert_default();
        let (result, host_limited) = match news {
            News::Warm(rtt) => {
                relayed.warm.record(nanos(rtt));
                return;
            }
            News::Cold { result, host_limited } => (result, host_limited),
        };
        relayed.host_limited += u64::from(host_limited);
        match result {
            Ok(rtt) => {
                relayed.answered += 1;
                relayed.rtt.record(nanos(rtt));
                self.newest.relayed_answer = self.newest.relayed_answer.max(Some(at));
            }
            Err(Failure::Timeout) => relayed.timed_out += 1,
            Err(Failure::Reset | Failure::Unsupported | Failure::Closed) => relayed.failed += 1,
            Err(Failure::Unheard) => return,
        }
        self.newest.relayed_probe = self.newest.relayed_probe.max(Some(at));
    }

    /// False if it is about an earlier instance of the member: it is in no number then.
    pub(super) fn record_stamp(&mut self, news: StampNews, at: Moment) -> bool {
        if at < self.since {
            return false;
        }
        if let StampNews::Located { forward } = news {
            self.locate(forward, at);
        } else {
            self.count_stamp(news, at);
        }
        true
    }

    fn count_stamp(&mut self, news: StampNews, at: Moment) {
        let Some(slot) = self.ring.at(at) else {
            return;
        };
        let network = slot.network.get_or_insert_default();
        match news {
            StampNews::Sample(sample) => {
                network.sent += 1;
                network.answered += 1;
                record_sample(network, &sample);
                self.newest.stamp_sample = self.newest.stamp_sample.max(Some(at));
            }
            StampNews::Voided => {
                network.sent += 1;
                network.answered += 1;
                network.voided += 1;
            }
            StampNews::LostForward => {
                network.sent += 1;
                network.lost_forward += 1;
            }
            StampNews::LostBackward => {
                network.sent += 1;
                network.lost_backward += 1;
            }
            StampNews::LostUndirected => {
                network.sent += 1;
                network.lost_undirected += 1;
            }
            StampNews::Duplicated => {
                network.duplicated += 1;
                return;
            }
            StampNews::Reordered => {
                network.reordered += 1;
                return;
            }
            StampNews::Located { .. } => return,
        }
        self.newest.stamp_probe = self.newest.stamp_probe.max(Some(at));
    }

    /// Moves one loss, where it was counted, from those without a direction. It may have left the window.
    fn locate(&mut self, forward: bool, at: Moment) {
        let undirected = |slot: &Slot| {
            slot.network
                .as_ref()
                .is_some_and(|network| network.lost_undirected > 0)
        };
        let found = self.ring.newest(at, undirected);
        if let Some(network) = found.and_then(|slot| slot.network.as_mut()) {
            network.lost_undirected -= 1;
            if forward {
                network.lost_forward += 1;
            } else {
                network.lost_backward += 1;
            }
        }
    }

    /// Takes what the kernel says of the measured connection. Returns the segments sent again since it was last asked.
    pub(super) fn record_socket(&mut self, socket: Socket, at: Moment) -> u64 {
        let counted = match self.socket {
            Some(known) if known.inode == socket.inode => known.retransmitted,
            _ => 0,
        };
        // What was counted and then turned out to be needless is made up for by the next ones.
        let more = u64::from(socket.retransmitted.saturating_sub(counted));
        self.socket = Some(Socket {
            retransmitted: counted.max(socket.retransmitted),
            ..socket
        });
        if let Some(slot) = self.ring.at(at) {
            slot.retransmitted = Some(slot.retransmitted.unwrap_or_default() + more);
        }
        more
    }

    pub(super) fn report(&self, peer_id: String, now: Moment) -> PeerReport {
        let connected = self.away_since.is_none();
        let mut report = PeerReport {
            peer_id,
            name: self.name.to_string(),
            connected,
            path: connected.then_some(self.path),
            relay: self
                .relay
                .as_ref()
                .filter(|_| self.is_relayed())
                .map(ToString::to_string),
            ..PeerReport::default()
        };
        for slot in self.ring.window(now) {
            report.answered += slot.answered;
            report.timed_out += slot.timed_out;
            report.failed += slot.failed;
            report.host_limited += slot.host_limited;
            if let Some(more) = slot.retransmitted {
                report.retransmitted = Some(report.retransmitted.unwrap_or_default() + more);
            }
            report.rtt.merge(&slot.rtt);
            report.warm.merge(&slot.warm);
            if let Some(network) = &slot.network {
                add(report.network.get_or_insert_default(), network);
            }
            if let Some(relayed) = &slot.relayed {
                add_relayed(report.relayed.get_or_insert_default(), relayed);
            }
        }
        let age = |newest: Option<Moment>| newest.map(|newest| millis(now.saturating_sub(newest)));
        if report.answered > 0 {
            report.newest_sample_age_millis = age(self.newest.answer);
        }
        if report.answered + report.timed_out + report.failed > 0 {
            report.newest_probe_age_millis = age(self.newest.probe);
        }
        if let Some(relayed) = &mut report.relayed {
            if relayed.answered > 0 {
                relayed.newest_sample_age_millis = age(self.newest.relayed_answer);
            }
            if relayed.answered + relayed.timed_out + relayed.failed > 0 {
                relayed.newest_probe_age_millis = age(self.newest.relayed_probe);
            }
        }
        if let Some(network) = &mut report.network {
            if network.answered > network.voided {
                network.newest_sample_age_millis = age(self.newest.stamp_sample);
            }
            if network.sent > 0 {
                network.newest_probe_age_millis = age(self.newest.stamp_probe);
            }
        }
        report
    }
}

fn record_sample(network: &mut NetworkReport, sample: &StampSample) {
    let host_limited = is_host_limited(sample);
    network.host_limited += u64::from(host_limited);
    network.clock = network.clock.max(sample.clock);
    match sample.clock {
        StampClock::Kernel => {
            network.rtt.record(nanos(sample.network));
            network.hosts.record(nanos(sample.own_host + sample.peer_host));
            network.peer_host.record(nanos(sample.peer_host));
        }
        // The programs' own stamps don't tell the hosts' part from the network's.
        StampClock::UserSpace if host_limited => {}
        StampClock::UserSpace => network.rtt.record(nanos(sample.network)),
    }
}

fn add(sum: &mut NetworkReport, part: &NetworkReport) {
    sum.clock = sum.clock.max(part.clock);
    for (sum, part) in [
        (&mut sum.sent, part.sent),
        (&mut sum.answered, part.answered),
        (&mut sum.lost_forward, part.lost_forward),
        (&mut sum.lost_backward, part.lost_backward),
        (&mut sum.lost_undirected, part.lost_undirected),
        (&mut sum.duplicated, part.duplicated),
        (&mut sum.reordered, part.reordered),
        (&mut sum.voided, part.voided),
        (&mut sum.host_limited, part.host_limited),
    ] {
        *sum += part;
    }
    sum.rtt.merge(&part.rtt);
    sum.hosts.merge(&part.hosts);
    sum.peer_host.merge(&part.peer_host);
}

fn add_relayed(sum: &mut RelayedReport, part: &RelayedReport) {
    sum.answered += part.answered;
    sum.timed_out += part.timed_out;
    sum.failed += part.failed;
    sum.host_limited += part.host_limited;
    sum.rtt.merge(&part.rtt);
    sum.warm.merge(&part.warm);
}
