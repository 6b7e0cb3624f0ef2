//! Nothing old is ever shown as fresh: whatever stops, is replaced, is replayed, gets lost, or whose clock is stepped.
//!
//! A model of a network knows when each sample was really taken. Its operator is the real one's pure part: judge, expire,
//! measure, compose, the decision to write, the labels, the metrics. What it shows is read at random times and compared
//! with what the model knows.
//!
//! Every other world has zones. Each row of a report has a weight, a power of two, as its number of samples. So a number tells which rows are in it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peernet_api::{
    envelope::seal,
    histogram::Histogram,
    identity::NetworkSecret,
    report::{NetworkReport, PeerReport, Report, TransportReport, VERSION},
    transport::Transport,
    v1alpha1::{PeerNetworkStatus, ReportOutcome, Workload},
};
use peernet_operator::{
    clock::Reading,
    conditions::Facts,
    measure::{ProbeSettings, measure},
    metrics::Metrics,
    observe::ObservedPod,
    pull::{Answer, Pulled},
    reports::{Expected, expire, judge},
    roster::{Roster, roster},
    status::{Input, compose, says_something_new},
    strangers::gather,
};

const AGENTS: usize = 3;
const WORLDS: u64 = 250;
const READS_PER_WORLD: u64 = 40;
/// The true time when a world begins, in milliseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000;

/// Time in a world, in milliseconds since it began. The operator's monotonic clock is the same.
type Millis = u64;

/// SplitMix64: the same worlds in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What one agent knows of a peer, and when it really came by it.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Which life of the peer it is about.
    life: u32,
    connected: bool,
    sample: Option<Millis>,
    probe: Option<Millis>,
    stamp_sample: Option<Millis>,
    stamp_probe: Option<Millis>,
}

struct Agent {
    life: u32,
    born: Millis,
    stopped_until: Millis,
    rows: [Row; AGENTS],
    /// What it once answered, for whoever replays it.
    recorded: Option<Vec<u8>>,
}

/// An answer, and the truth about it.
struct Truth {
    made: Millis,
    born: Millis,
    life: u32,
    rows: [Row; AGENTS],
}

struct World {
    chance: Chance,
    now: Millis,
    interval: Millis,
    probe: ProbeSettings,
    secret: NetworkSecret,
    roster: Roster,
    agents: Vec<Agent>,
    cut: [[bool; AGENTS]; AGENTS],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let interval = chance.pick(&[100, 1_000, 60_000, 3_600_000]);
        let timeout = chance.pick(&[10, 2_000, 60_000]);
        let secret = NetworkSecret::new(&[7; 32]).unwrap();
        let pods: Vec<_> = (0..AGENTS)
            .map(|at| ObservedPod {
                name: format!("mesh-{at}"),
                kind: Some(Workload::StatefulSet),
                node_name: Some(format!("n{at}")),
                zone: seed.is_multiple_of(2).then(|| format!("z{}", at % 2)),
                ip: None,
                ready: true,
                terminating: false,
                http_port: 8080,
                problem: None,
                ports_taken: false,
            })
            .collect();
        let agent = || Agent {
            life: 1,
            born: 0,
            stopped_until: 0,
            rows: [Row {
                life: 1,
                connected: true,
                ..Row::default()
            }; AGENTS],
            recorded: None,
        };
        Self {
            chance,
            now: 4 * 3_600_000,
            interval,
            probe: ProbeSettings {
                interval: Duration::from_millis(interval),
                timeout: Duration::from_millis(timeout),
                peers_per_node: 64,
            },
            roster: roster("mesh", Workload::StatefulSet, 3, Some(&secret), &pods),
            secret,
            agents: (0..AGENTS).map(|_| agent()).collect(),
            cut: [[false; AGENTS]; AGENTS],
        }
    }

    fn freshest(&self) -> Millis {
        u64::try_from((self.probe.interval * 3 + self.probe.timeout).as_millis()).unwrap()
    }

    /// Lets time pass, in which probes are sent and things go wrong.
    fn pass(&mut self, span: Millis) {
        // However long it is, what counts is at its end: a few steps of about an interval.
        let steps = (span / self.interval).clamp(1, 6);
        self.now += span.saturating_sub(steps * self.interval);
        for _ in 0..steps {
            self.now += self.interval.min(span);
            self.upset();
            for from in 0..AGENTS {
                for to in (0..AGENTS).filter(|to| *to != from) {
                    self.probe(from, to);
                }
            }
        }
    }

    /// What can go wrong with agents and links.
    fn upset(&mut self) {
        let at = usize::try_from(self.chance.below(AGENTS as u64)).unwrap();
        let to = (at + 1) % AGENTS;
        match self.chance.below(100) {
            0..6 => {
                let long = self.chance.pick(&[1_000, 20_000, 5 * self.interval, 3_600_000]);
                self.agents[at].stopped_until = self.now + long;
            }
            6..12 => {
                let agent = &mut self.agents[at];
                agent.life += 1;
                agent.born = self.now;
                agent.stopped_until = 0;
                agent.rows = [Row::default(); AGENTS];
            }
            12..20 => self.cut[at][to] ^= true,
            _ => {}
        }
    }

    fn probe(&mut self, from: usize, to: usize) {
        let now = self.now - self.chance.below(self.interval / 4);
        let life = self.agents[to].life;
        let reachable = self.agents[to].stopped_until <= now && !self.cut[from][to] && !self.cut[to][from];
        if self.agents[from].stopped_until > now {
            return;
        }
        let (notices, udp, gives_up) = (
            self.chance.percent(40),
            self.chance.percent(85),
            self.chance.percent(20),
        );
        let row = &mut self.agents[from].rows[to];
        if row.life != life && notices {
            *row = Row {
                life,
                connected: true,
                ..Row::default()
            };
        }
        let comes_back = reachable && notices;
        if !(row.connected || comes_back) {
            return;
        }
        let peer_born = self.agents[to].born;
        let mut now = now.max(self.agents[from].born);
        let row = &mut self.agents[from].rows[to];
        if row.life == life {
            now = now.max(peer_born);
        }
        row.connected = !gives_up || reachable;
        row.probe = row.probe.max(Some(now));
        row.stamp_probe = row.stamp_probe.max(Some(now));
        if reachable && row.life == life {
            row.sample = row.sample.max(Some(now));
            if udp {
                row.stamp_sample = row.stamp_sample.max(Some(now));
            }
        }
    }

    fn report(&self, at: usize, nonce: &str) -> Report {
        let agent = &self.agents[at];
        let age = |then: Option<Millis>| then.map(|then| self.now - then);
        let peers = (0..AGENTS).filter(|to| *to != at).map(|to| {
            let row = &agent.rows[to];
            let samples = histogram(weight(at, to));
            PeerReport {
                peer_id: self.roster.members[to].peer_id.clone().unwrap(),
                name: self.roster.members[to].name.clone(),
                connected: row.connected,
                answered: weight(at, to),
                newest_sample_age_millis: age(row.sample),
                newest_probe_age_millis: age(row.probe),
                rtt: samples.clone(),
                warm: samples.clone(),
                network: row.stamp_probe.map(|_| NetworkReport {
                    sent: weight(at, to),
                    newest_sample_age_millis: age(row.stamp_sample),
                    newest_probe_age_millis: age(row.stamp_probe),
                    rtt: samples.clone(),
                    hosts: samples.clone(),
                    peer_host: samples.clone(),
                    ..NetworkReport::default()
                }),
                transports: vec![TransportReport {
                    transport: Transport::Quic,
                    connected: row.connected,
                    answered: weight(at, to),
                    newest_sample_age_millis: age(row.sample),
                    newest_probe_age_millis: age(row.probe),
                    rtt: samples.clone(),
                    ..TransportReport::default()
                }],
                ..PeerReport::default()
            }
        });
        Report {
            version: VERSION,
            nonce: nonce.to_owned(),
            network: "lab/mesh".to_owned(),
            name: self.roster.members[at].name.clone(),
            agent_version: String::new(),
            uptime_millis: self.now - agent.born,
            window_millis: 300_000,
            heartbeat_age_millis: 5,
            events_dropped: 0,
            transports: vec![Transport::Tcp, Transport::Quic],
            peers: peers.collect(),
            ..Report::default()
        }
    }

    /// Asks each agent. What comes back is old, or lost, or true.
    fn pull(&mut self) -> (Vec<Pulled>, Vec<Truth>) {
        let mut pulled = Vec::new();
        let mut truths = Vec::new();
        for at in 0..AGENTS {
            let asked = self.now;
            self.now += self.chance.below(200);
            let nonce = format!("{:016x}", self.now);
            let agent = &self.agents[at];
            truths.push(Truth {
                made: self.now,
                born: agent.born,
                life: agent.life,
                rows: agent.rows,
            });
            let report = self.report(at, &nonce);
            let outcome = match self.chance.below(100) {
                _ if agent.stopped_until > self.now => Err(ReportOutcome::TimedOut),
                0..10 => Err(ReportOutcome::TimedOut),
                10..12 => self.replay(at, &nonce),
                _ => Ok(report),
            };
            self.now += self.chance.below(200);
            pulled.push(outcome.map(|report| Answer {
                report,
                asked: Duration::from_millis(asked),
                received: Duration::from_millis(self.now),
            }));
        }
        (pulled, truths)
    }

    /// Somebody at the agent's address answers with what the agent said before.
    fn replay(&mut self, at: usize, nonce: &str) -> Result<Report, ReportOutcome> {
        let name = self.roster.members[at].name.clone();
        let recorded = self.agents[at]
            .recorded
            .clone()
            .unwrap_or_else(|| seal(&self.report(at, "00"), &self.secret.keypair(&name)).unwrap());
        let judged = judge(
            &recorded,
            Expected {
                peer_id: self.roster.members[at].peer_id.as_deref().unwrap(),
                network: "lab/mesh",
                name: &name,
                nonce,
            },
        );
        self.agents[at].recorded = Some(recorded);
        judged
    }
}

/// The real operator's pure part, with what it keeps.
struct Operator {
    reading: Option<Reading>,
    written: Option<Duration>,
    metrics: Metrics,
    /// How far its own wall clock is off, in milliseconds.
    off: i64,
}

/// A status, and what is true of the samples behind it.
#[derive(Default)]
struct Shown {
    status: PeerNetworkStatus,
    /// When the newest sample of each row was really taken: of ping and of STAMP, and the newest probes.
    newest: [Vec<Option<Millis>>; 4],
}

#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    with_numbers: u64,
    with_unknown: u64,
    rounds: u64,
    refused: u64,
    writes: u64,
}

impl Operator {
    /// One round. What it writes is in `shown`, if it gets through.
    fn round(&mut self, world: &mut World, shown: &mut Shown, newest: &mut Shown, seen: &mut Seen) {
        if self.reading.is_none() || world.chance.percent(30) {
            let date = timestamp(world.now / 1_000 * 1_000);
            self.stop(world, 2);
            let moment = Duration::from_millis(world.now);
            self.reading = Some(Reading { date, moment });
        }
        let (mut pulled, truths) = world.pull();
        self.stop(world, 5);
        let own = Timestamp::from_millisecond(i64::try_from(EPOCH + world.now).unwrap() + self.off).unwrap();
        let moment = Duration::from_millis(world.now);
        let now = self.reading.map_or(own, |reading| reading.at(moment));
        expire(&mut pulled, moment);
        let measured = measure(&world.roster, &pulled, world.probe, moment);
        self.metrics.note_numbers("lab/mesh", &measured, moment);
        seen.rounds += 1;
        seen.refused += pulled.iter().filter(|pulled| pulled.is_err()).count() as u64;
        let next = compose(&Input {
            facts: Facts {
                stall: None,
                settled: true,
                roster: &world.roster,
                pulled: &pulled,
                measured: &measured,
            },
            selector: String::new(),
            image: None,
            services: &[],
            host_ports: None,
            external: &[],
            generation: Some(1),
            private_network: None,
            strangers: gather(&world.roster, &pulled, moment),
            previous: &shown.status,
            now,
        });
        let newest_of =
            |of: fn(&Row) -> Option<Millis>| rows().map(|(from, to)| of(&truths[from].rows[to])).collect();
        *newest = Shown {
            status: next,
            newest: [
                newest_of(|row| row.sample),
                newest_of(|row| row.stamp_sample),
                newest_of(|row| row.probe),
                newest_of(|row| row.stamp_probe),
            ],
        };
        assert_rows(world, newest, &pulled, &truths, world.now);
        let since = self.written.map(|written| moment - written);
        let news = says_something_new(&shown.status, &newest.status, since);
        if !news {
            assert_eq!(known(&shown.status), known(&newest.status), "not told");
        }
        if news && world.chance.percent(95) {
            self.stop(world, 5);
            self.written = Some(moment);
            seen.writes += 1;
            *shown = std::mem::take(newest);
        }
    }

    /// Now and then somebody stops it, for up to two hours.
    fn stop(&self, world: &mut World, percent: u64) {
        if world.chance.percent(percent) {
            let long = world.chance.pick(&[1_000, 14_000, 16_000, 3_600_000, 7_200_000]);
            world.pass(long);
        }
    }
}

/// Every row that is in a number may be there, and every row that must be there is.
fn assert_rows(world: &World, shown: &Shown, pulled: &[Pulled], truths: &[Truth], composed: Millis) {
    let status = &shown.status;
    let samples = |spread: &Option<peernet_api::v1alpha1::Distribution>| {
        spread.as_ref().map_or(0, |spread| spread.samples)
    };
    let loss = status.loss.clone().unwrap_or_default();
    let network = status.network.as_ref().map(|network| network.times.clone());
    assert_eq!(samples(&status.rtt), samples(&status.warm));
    assert_eq!(samples(&network), samples(&status.hosts));
    let sets = [
        samples(&status.rtt),
        samples(&network),
        loss.probes.unwrap_or(0),
        loss.udp_probes.unwrap_or(0),
    ];
    for (kind, (set, newest)) in ["rtt", "network", "loss", "UDP loss"]
        .iter()
        .zip(sets.into_iter().zip(&shown.newest))
    {
        for ((from, to), taken) in rows().zip(newest) {
            let counted = u64::try_from(set).unwrap() & weight(from, to) != 0;
            let (truth, peer) = (&truths[from], &truths[to]);
            let accepted = (pulled[from].is_ok(), pulled[to].is_ok());
            let age = taken.map(|taken| truth.made - taken);
            let fresh = age.is_some_and(|age| age <= world.freshest());
            let of_this_life = truth.rows[to].life == peer.life;
            let what = format!(
                "{kind} {from} -> {to}, age {age:?}, born {}, set {set:b}",
                peer.born
            );
            if counted {
                assert!(accepted.0 && fresh, "old: {what}");
                assert!(composed - truth.made <= 15_000, "it waited: {what}");
                // As near as the operator can know, from two answers that took up to 400 ms each.
                let replaced = accepted.1 && !of_this_life && taken.unwrap() + 800 < peer.born;
                assert!(!replaced, "of a pod that was replaced: {what}");
            } else {
                let expected =
                    accepted.0 && fresh && of_this_life && (truth.rows[to].connected || accepted.1);
                assert!(!expected, "left out: {what}");
            }
        }
    }
    for zone in &status.zones {
        assert_eq!(zone.rtt_p99_micros.is_some(), zone.samples > 0);
        assert_eq!(zone.samples & !samples(&status.rtt), 0, "old rows in zones");
        assert_eq!(zone.network_samples & !samples(&network), 0, "old rows in zones");
    }
    for link in &status.worst_links {
        assert_eq!(link.samples & !samples(&status.rtt), 0, "an old link");
    }
    for (at, node) in world.roster.members.iter().enumerate() {
        let row = status.nodes.iter().find(|row| row.name == node.name).unwrap();
        let of_node: u64 = rows()
            .filter(|(from, _)| *from == at)
            .map(|(from, to)| weight(from, to))
            .sum();
        let known = u64::try_from(samples(&status.rtt)).unwrap() & of_node != 0;
        assert_eq!(row.rtt_p99_micros.is_some(), known, "{}", row.name);
    }
}

/// What somebody sees who reads the status now: no number looks younger than it is, and no text is without its number.
fn read(world: &World, shown: &Shown, operator: &Operator, seen: &mut Seen) {
    let Shown { status, newest } = shown;
    let Some(columns) = &status.columns else { return };
    let loss = status.loss.clone().unwrap_or_default();
    let network = status.network.as_ref().map(|network| &network.times);
    let times = |spread: Option<&peernet_api::v1alpha1::Distribution>, newest| {
        spread.map(|spread| (spread.samples, spread.newest_sample_time.clone(), newest))
    };
    let told = [
        times(status.rtt.as_ref(), &newest[0]),
        times(status.warm.as_ref(), &newest[0]),
        times(network, &newest[1]),
        times(status.hosts.as_ref(), &newest[1]),
        loss.probes
            .map(|probes| (probes, loss.newest_probe_time.clone(), &newest[2])),
        loss.udp_probes
            .map(|probes| (probes, loss.newest_udp_probe_time.clone(), &newest[3])),
    ];
    let read_at = EPOCH + world.now;
    for (set, label, newest) in told.into_iter().flatten() {
        let taken = newest_of(set, newest);
        let shown_age = i128::from(read_at) - label_millis(&label.expect("a label"));
        let true_age = i128::from(world.now - taken);
        assert!(
            shown_age >= true_age,
            "shown as {shown_age} ms old, and it is {true_age}"
        );
    }
    for (text, is_known) in [
        (&columns.rtt_p50, status.rtt.is_some()),
        (&columns.rtt_p99, status.rtt.is_some()),
        (&columns.net_p50, status.network.is_some()),
        (&columns.net_p99, status.network.is_some()),
        (&columns.host_p99, status.hosts.is_some()),
        (
            &columns.breakdown,
            status.network.is_some() && status.hosts.is_some(),
        ),
        (&columns.loss, loss.ppm.is_some()),
    ] {
        assert_eq!(text.is_some(), is_known, "{text:?}");
    }
    let sampled = status.last_sample_time.as_ref().map(label_millis);
    let known: Vec<_> = [
        status.rtt.as_ref().map(|rtt| newest_of(rtt.samples, &newest[0])),
        network.map(|network| newest_of(network.samples, &newest[1])),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(sampled.is_some(), !known.is_empty());
    if let Some(sampled) = sampled {
        let true_age = world.now - known.into_iter().max().unwrap();
        assert!(
            i128::from(read_at) - sampled >= i128::from(true_age),
            "SAMPLED is too young"
        );
    }
    seen.reads += 1;
    seen.with_numbers += u64::from(status.rtt.is_some() || status.network.is_some());
    seen.with_unknown += u64::from(status.rtt.is_none() || status.network.is_none());
    let text = operator.metrics.encode(Duration::from_millis(world.now)).unwrap();
    let age = text
        .lines()
        .find_map(|line| line.strip_prefix("peernet_newest_sample_age_seconds{network=\"lab/mesh\"} "));
    assert_eq!(
        age.is_some(),
        text.contains("peernet_rtt_seconds{") || text.contains("peernet_network_rtt_seconds{")
    );
}

#[test]
fn nothing_old_is_ever_shown_as_fresh() {
    let mut seen = Seen::default();
    for seed in 0..WORLDS {
        let mut world = World::new(seed);
        let mut operator = Operator {
            reading: None,
            written: None,
            metrics: Metrics::default(),
            off: 0,
        };
        let (mut shown, mut newest) = (Shown::default(), Shown::default());
        let until = seen.reads + READS_PER_WORLD;
        while seen.reads < until {
            if world.chance.percent(10) {
                operator.off = world.chance.pick(&[-3_600_000, 0, 3_600_000]);
            }
            let pause = world.chance.pick(&[0, 5_000, 5_000, world.interval]);
            world.pass(pause);
            operator.stop(&mut world, 3);
            operator.round(&mut world, &mut shown, &mut newest, &mut seen);
            if world.chance.percent(10) {
                // Another operator takes over: it remembers nothing.
                operator.written = None;
                operator.reading = None;
            }
            read(&world, &shown, &operator, &mut seen);
            operator.stop(&mut world, 10);
            read(&world, &shown, &operator, &mut seen);
        }
    }
    println!("stale shown as fresh: 0; {seen:?}");
    // It says something only if much of both was seen.
    assert!(seen.reads >= 10_000, "{seen:?}");
    assert!(
        seen.with_numbers > 5_000 && seen.with_unknown > 1_000 && seen.refused > 1_000,
        "{seen:?}"
    );
}

/// Which numbers a status has.
fn known(status: &PeerNetworkStatus) -> [bool; 6] {
    let loss = status.loss.clone().unwrap_or_default();
    [
        status.rtt.is_some(),
        status.warm.is_some(),
        status.network.is_some(),
        status.hosts.is_some(),
        loss.ppm.is_some(),
        loss.udp_probes.is_some(),
    ]
}

fn rows() -> impl Iterator<Item = (usize, usize)> {
    (0..AGENTS).flat_map(|from| {
        (0..AGENTS)
            .filter(move |to| *to != from)
            .map(move |to| (from, to))
    })
}

/// The number of samples of a row: a power of two.
fn weight(from: usize, to: usize) -> u64 {
    1 << (from * AGENTS + to)
}

fn newest_of(set: i64, newest: &[Option<Millis>]) -> Millis {
    let counted = rows()
        .zip(newest)
        .filter(|((from, to), _)| u64::try_from(set).unwrap() & weight(*from, *to) != 0);
    counted.filter_map(|(_, taken)| *taken).max().expect("a sample")
}

fn histogram(count: u64) -> Histogram {
    Histogram::try_from(vec![700, count]).unwrap()
}

fn timestamp(millis: Millis) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(EPOCH + millis).unwrap()).unwrap()
}

fn label_millis(label: &Time) -> i128 {
    i128::from(label.0.as_millisecond())
}
