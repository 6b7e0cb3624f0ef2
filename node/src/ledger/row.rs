//! One member's numbers over the window.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use peernet_api::{
    report::{FoundBy, NetworkReport, Path, PeerReport, StampClock, TransportReport},
    transport::Transport,
};

use super::{Member, Moment, is_host_limited, millis, nanos, pings::Pings, ring::Ring};
use crate::{
    host::tcp::Socket,
    membership::Instance,
    ping::{News, Over},
    telemetry::{StampNews, StampSample},
};

#[derive(Debug)]
pub(super) struct Row {
    name: Arc<str>,
    instance: Option<Instance>,
    found_by: FoundBy,
    /// Since when this instance of the member is known: what was sent before then was not sent to it.
    since: Moment,
    /// Since when no connection stands. `None` while one does.
    pub(super) away_since: Option<Moment>,
    /// The way that it is measured on, or was at last.
    path: Path,
    /// Who relays, if the way is a circuit.
    relay: Option<Arc<str>>,
    /// The transports over which a direct connection stands, or stood before it was away.
    transports: Vec<Transport>,
    window: Duration,
    /// Those of direct connections. No more than there are transports.
    pings: BTreeMap<Transport, Pings>,
    /// Those through relays: in no other number.
    relayed: Option<Pings>,
    /// The measured connection, as it was when it was last looked at.
    socket: Option<Socket>,
    newest: Newest,
    ring: Ring<Slot>,
}

/// When the newest thing of each kind was known.
#[derive(Debug, Default)]
struct Newest {
    stamp_sample: Option<Moment>,
    stamp_probe: Option<Moment>,
}

/// The numbers of one sub-window.
#[derive(Debug, Default)]
struct Slot {
    retransmitted: Option<u64>,
    network: Option<Box<NetworkReport>>,
}

impl Row {
    pub(super) fn new(member: &Member, window: Duration, now: Moment) -> Self {
        Self {
            name: Arc::clone(&member.name),
            instance: member.instance,
            found_by: member.found_by,
            since: now,
            away_since: None,
            path: member.path,
            relay: member.relay.clone(),
            transports: member.transports.clone(),
            window,
            pings: BTreeMap::new(),
            relayed: None,
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
        self.transports.clone_from(&member.transports);
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.away_since.is_none() && self.path == Path::Relayed
    }

    /// False if the probe was sent to an earlier instance of the member: it is in no number then.
    pub(super) fn record(&mut self, over: Over, news: News, sent: Moment, at: Moment) -> bool {
        if sent < self.since {
            return false;
        }
        let window = self.window;
        let pings = match over {
            Over::Direct(transport) => self.pings.entry(transport).or_insert_with(|| Pings::new(window)),
            Over::Circuit => self.relayed.get_or_insert_with(|| Pings::new(window)),
        };
        pings.record(news, at);
        true
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

    /// `transports`: the agent's, of which the first one's numbers are the row's own.
    pub(super) fn report(&self, peer_id: String, transports: &[Transport], now: Moment) -> PeerReport {
        let connected = self.away_since.is_none();
        let mut by_transport = transports.iter().map(|transport| {
            let stands = connected && self.transports.contains(transport);
            match self.pings.get(transport) {
                Some(pings) => pings.report(*transport, stands, now),
                None => TransportReport {
                    transport: *transport,
                    connected: stands,
                    ..TransportReport::default()
                },
            }
        });
        let first = by_transport.next().unwrap_or_default();
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
            first_connected: (first.connected != connected).then_some(first.connected),
            answered: first.answered,
            timed_out: first.timed_out,
            failed: first.failed,
            host_limited: first.host_limited,
            newest_sample_age_millis: first.newest_sample_age_millis,
            newest_probe_age_millis: first.newest_probe_age_millis,
            rtt: first.rtt,
            warm: first.warm,
            transports: by_transport.collect(),
            relayed: self.relayed.as_ref().and_then(|pings| pings.relayed(now)),
            found_by: Some(self.found_by),
            ..PeerReport::default()
        };
        for slot in self.ring.window(now) {
            if let Some(more) = slot.retransmitted {
                report.retransmitted = Some(report.retransmitted.unwrap_or_default() + more);
            }
            if let Some(network) = &slot.network {
                add(report.network.get_or_insert_default(), network);
            }
        }
        let age = |newest: Option<Moment>| newest.map(|newest| millis(now.saturating_sub(newest)));
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
