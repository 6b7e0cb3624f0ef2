//! What the capture and the agents say of the same time, and the tables that compare them.

use std::{collections::HashMap, net::Ipv4Addr, time::SystemTime};

use peernet_api::report::STAMP_PORT;
use peernet_e2e::{
    Outcome,
    truth::{
        pcap::{Packet, Transport},
        rounds::{self, Round},
        samples::Samples,
        traces::Trace,
    },
};

use crate::{
    numbers::{Counts, Numbers},
    tables::{Table, percent, time, within},
};

/// The goal for the network's time: as near as this to the capture's.
fn near(truth: i64) -> i64 {
    (truth / 10).max(15_000)
}

/// A host is late that takes longer than this, in nanoseconds; the agents' own measure of it.
const LATE: i64 = peernet_api::report::HOST_LATE_NANOS as i64;

/// Two agents over a while, both directions together.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    pub(crate) rounds: Vec<Round>,
    pub(crate) numbers: Numbers,
    /// Each with the address of the agent that traced it.
    pub(crate) traces: Vec<(Ipv4Addr, Trace)>,
    pub(crate) tcp_bytes: usize,
    pub(crate) udp_bytes: usize,
}

impl Observation {
    /// Takes the round trips between two ends from the captures of both, as far as they began between two times.
    pub(crate) fn add_captures(&mut self, ends: [(Ipv4Addr, &[Packet]); 2], during: (i64, i64)) {
        let [(a, at_a), (b, at_b)] = ends;
        let began = |nanos: i64| (during.0..=during.1).contains(&nanos);
        for (sender, here, there) in [(a, at_a, at_b), (b, at_b, at_a)] {
            let found = rounds::pair(sender, here, there, STAMP_PORT);
            self.rounds
                .extend(found.into_iter().filter(|round| began(round.t1)));
        }
        let bytes = |transport| {
            let of_it = at_a
                .iter()
                .filter(|packet| packet.transport == transport && began(packet.nanos));
            of_it.map(|packet| packet.frame_len).sum::<usize>()
        };
        self.tcp_bytes += bytes(Transport::Tcp);
        self.udp_bytes += bytes(Transport::Udp);
    }

    pub(crate) fn network(&self) -> Samples {
        self.rounds.iter().map(Round::network).collect()
    }

    fn residence(&self) -> Samples {
        self.rounds.iter().map(Round::residence).collect()
    }

    /// Each traced sample with the capture's view of the same packets.
    pub(crate) fn matched(&self) -> Vec<(&Trace, &Round)> {
        let mut by_probe: HashMap<(Ipv4Addr, u32), Vec<&Round>> = HashMap::new();
        for round in &self.rounds {
            by_probe
                .entry((*round.from.ip(), round.seq))
                .or_default()
                .push(round);
        }
        // Sessions may use the same sequence numbers, but not at the same time.
        let same_time = |trace: &Trace, round: &Round| (trace.t1 - round.t1).abs() < 1_000_000_000;
        self.traces
            .iter()
            .filter_map(|(ip, trace)| {
                let candidates = by_probe.get(&(*ip, trace.seq))?;
                let round = candidates.iter().find(|round| same_time(trace, round))?;
                Some((trace, *round))
            })
            .collect()
    }
}

/// The wall clock, in nanoseconds, as captures have it.
pub(crate) fn wall_clock() -> Outcome<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_nanos())?)
}

pub(crate) fn network_table(title: &str) -> Table {
    Table::new(
        title,
        "p50 / p99. *Capture* is the network's round trip by tcpdump at both ends, *network* what the agents report for the same \
         time; goal: each within max(10 %, 15 us) of the capture. *Cold* and *warm* are the libp2p pings, *hosts* what STAMP's \
         probes spent in both hosts. *Peer late* is how long a probe stayed at the other end, by the capture and by the report. A capture \
         reads a little long: it stamps a leaving packet, then copies it, then lets it go.",
        &[
            "situation",
            "samples",
            "capture",
            "network",
            "goal",
            "cold",
            "warm",
            "hosts",
            "own host",
            "peer late, capture",
            "peer late, report",
        ],
    )
}

pub(crate) fn network_row(situation: &str, found: &Observation) -> Vec<String> {
    let (capture, residence) = (found.network(), found.residence());
    let numbers = &found.numbers;
    let pair = |of: &Counts| format!("{} / {}", time(of.percentile(50.0)), time(of.percentile(99.0)));
    let exact = |of: &Samples| format!("{} / {}", time(of.percentile(50.0)), time(of.percentile(99.0)));
    let goals: Vec<String> = [50.0, 99.0]
        .iter()
        .map(|&at| within(numbers.network.percentile(at), capture.percentile(at), near))
        .collect();
    vec![
        situation.to_owned(),
        format!("{} of {}", numbers.network.count(), capture.len()),
        exact(&capture),
        pair(&numbers.network),
        goals.join(" / "),
        pair(&numbers.cold),
        pair(&numbers.warm),
        pair(&numbers.hosts),
        pair(&numbers.own_host),
        exact(&residence),
        pair(&numbers.peer_host),
    ]
}

pub(crate) fn sample_table() -> Table {
    Table::new(
        "Sample by sample",
        "Each sample of an agent's log beside the same two packets in the captures, in the bare namespaces. *Adds up*: network \
         and hosts together are within 5 % of the user-space time (goal: all). *Named*: of the samples for which an end was late \
         by more than 3 ms, how many name that end (the peer: by the capture; the own end: by the user-space time less the capture's \
         round trip).",
        &[
            "situation",
            "samples",
            "network less capture: p1 / p50 / p99",
            "adds up",
            "late peers named",
            "late own host named",
            "named without cause",
        ],
    )
}

pub(crate) fn sample_row(situation: &str, found: &Observation) -> Vec<String> {
    let matched = found.matched();
    let off: Samples = matched
        .iter()
        .map(|(trace, round)| trace.network_ns - round.network())
        .collect();
    let adds_up = matched.iter().filter(|(trace, _)| {
        let sum = trace.network_ns + trace.own_host_ns + trace.peer_host_ns;
        (sum - trace.user_ns).abs() * 20 <= trace.user_ns
    });
    let mut named = [(0, 0); 2];
    let mut without_cause = 0;
    for (trace, round) in &matched {
        let own = trace.user_ns - (round.t4 - round.t1);
        for (count, (truth, said)) in named
            .iter_mut()
            .zip([(round.residence(), trace.peer_host_ns), (own, trace.own_host_ns)])
        {
            count.1 += usize::from(truth > LATE);
            count.0 += usize::from(truth > LATE && said > LATE);
            without_cause += usize::from(truth <= LATE && said > LATE);
        }
    }
    let [peer, own] = named.map(|(said, all)| format!("{said} of {all}"));
    let adds_up = adds_up.count() as f64 / matched.len().max(1) as f64;
    vec![
        situation.to_owned(),
        format!("{} of {}", matched.len(), found.traces.len()),
        [1.0, 50.0, 99.0].map(|at| time(off.percentile(at))).join(" / "),
        percent((!matched.is_empty()).then_some(adds_up)),
        peer,
        own,
        without_cause.to_string(),
    ]
}
