//! The reporting thread's state: takes the swarm's events, gives reports and metrics.

use std::time::Duration;

use libp2p::PeerId;
use peernet_api::{
    histogram::Histogram,
    report::{self, PeerReport, Report, ServiceReport},
    transport::Transport,
};

use crate::{
    config::Bootstrap,
    external::External,
    host::{Usage, tcp::Sockets},
    ledger::{Ledger, Moment, millis},
    metrics::Snapshot,
    private::Keys,
    telemetry::{Event, Service, State},
};

/// An event loop without a sign of life for this long is dead.
pub const MAX_SILENCE: Duration = Duration::from_secs(10);
/// What a report may have beside its rows: the fields above them, and the envelope.
const FRAME_BYTES: usize = 16 << 10;
/// What a row may have beside its ids and histograms: the longest numbers in all other fields.
const ROW_BYTES: usize = 2048;
/// The same of a further transport's part of a row.
const TRANSPORT_BYTES: usize = 384;

/// Who reports.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The network, as `namespace/name`.
    pub network: String,
    /// The name that the agent's peer id belongs to.
    pub name: String,
    /// The transports that it speaks, the first of which its numbers are of.
    pub transports: Vec<Transport>,
}

/// All that is reported.
#[derive(Debug)]
pub struct Reporting {
    identity: Identity,
    keys: Option<Keys>,
    ledger: Ledger,
    external: External,
    state: State,
}

impl Reporting {
    /// Nothing measured yet. The agent counts as alive from here on, until it is silent for too long. `keys`: those of the
    /// private network, if it is one.
    #[must_use]
    pub fn new(
        identity: Identity,
        keys: Option<Keys>,
        bootstrap: &[Bootstrap],
        window: Duration,
        now: Moment,
    ) -> Self {
        Self {
            ledger: Ledger::new(window, &identity.transports),
            identity,
            keys,
            external: External::new(bootstrap, window),
            state: State {
                at: now,
                ..State::default()
            },
        }
    }

    /// Takes one event from the swarm.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Probe {
                peer, news, sent, at, ..
            } if self.is_external(&peer) => {
                self.external.record(&peer, news, sent, at);
            }
            Event::Probe {
                peer,
                over,
                news,
                sent,
                at,
            } => self.ledger.record(&peer, over, news, sent, at),
            Event::Stamp { peer, news, at } => self.ledger.record_stamp(&peer, news, at),
            Event::LoopLag { lag, at } => self.ledger.record_loop_lag(lag, at),
            Event::State(state) => {
                self.ledger.set_members(&state.members, state.at);
                self.external.set_connected(&state.external, state.at);
                self.state = state;
            }
        }
    }

    fn is_external(&self, peer: &PeerId) -> bool {
        self.external.has(peer) && !self.state.members.iter().any(|member| member.peer == *peer)
    }

    /// Takes what the host did to the agent.
    pub fn apply_usage(&mut self, usage: &Usage, now: Moment) {
        self.ledger.record_usage(usage, now);
    }

    /// Takes what the kernel says of the connections.
    pub fn apply_sockets(&mut self, sockets: &Sockets, now: Moment) {
        self.ledger.record_sockets(&self.state.members, sockets, now);
    }

    /// Time since the event loop's newest sign of life.
    #[must_use]
    pub fn silence(&self, now: Moment) -> Duration {
        now.saturating_sub(self.state.at)
    }

    /// Whether the event loop is alive.
    #[must_use]
    pub fn is_alive(&self, now: Moment) -> bool {
        self.silence(now) < MAX_SILENCE
    }

    /// Whether other agents can reach this one.
    #[must_use]
    pub fn is_ready(&self, now: Moment) -> bool {
        self.is_alive(now) && self.state.listening
    }

    /// The report that answers this nonce. It never exceeds what the operator reads.
    #[must_use]
    pub fn report(&self, nonce: &str, now: Moment) -> Report {
        let host = self.ledger.host(now);
        let mut peers = self.ledger.rows(now);
        let external = self.external.rows(&peers, now);
        let histograms = external
            .iter()
            .map(|row| ROW_BYTES + row.rtt.json_bytes())
            .sum::<usize>()
            + host.delay.json_bytes()
            + host.loop_lag.json_bytes();
        peers = fit(peers, report::MAX_BYTES - FRAME_BYTES - histograms);
        Report {
            version: report::VERSION,
            nonce: nonce.to_owned(),
            network: self.identity.network.clone(),
            name: self.identity.name.clone(),
            agent_version: peernet_api::VERSION.to_owned(),
            uptime_millis: millis(now),
            window_millis: millis(self.ledger.window()),
            heartbeat_age_millis: millis(self.silence(now)),
            events_dropped: self.state.counters.events_dropped + self.ledger.unknown(),
            reachable: self.state.reachable,
            transports: self.identity.transports.clone(),
            host,
            private_network: self.keys.as_ref().map(Keys::report),
            strangers: self
                .state
                .strangers
                .report(self.state.counters.strangers_rejected, now),
            guests: self.state.guests.and_then(|guests| u32::try_from(guests).ok()),
            services: self
                .state
                .services
                .iter()
                .map(|service| row(service, now))
                .collect(),
            peers,
            external,
        }
    }

    /// The numbers for a scrape.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut counters = self.state.counters;
        counters.events_dropped += self.ledger.unknown();
        Snapshot {
            transports: self.identity.transports.clone(),
            totals: self.ledger.totals().clone(),
            counters,
            without_key: self.state.strangers.without_key,
            another_key: self.state.strangers.another_key,
            peers: self.ledger.connected(),
            guests: self.state.guests,
            relayed_peers: self.ledger.relayed(),
            relaying: self.state.relaying,
            connections: self.state.connections,
        }
    }
}

fn row(service: &Service, now: Moment) -> ServiceReport {
    ServiceReport {
        name: service.name.to_string(),
        providers: service
            .providers
            .map(|providers| u32::try_from(providers).unwrap_or(u32::MAX)),
        age_millis: service.counted.map(|counted| millis(now.saturating_sub(counted))),
    }
}

/// Keeps the rows that fit into so many bytes of JSON. Those of connected members go first.
fn fit(mut rows: Vec<PeerReport>, bytes: usize) -> Vec<PeerReport> {
    let size: usize = rows.iter().map(json_bound).sum();
    if size > bytes {
        let all = rows.len();
        rows.sort_by_key(|row| !row.connected);
        let mut left = bytes;
        rows.retain(|row| {
            let fits = json_bound(row) <= left;
            if fits {
                left -= json_bound(row);
            }
            fits
        });
        tracing::warn!(kept = rows.len(), all, "the report is too long for all members");
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    rows
}

/// No less than the row's length as JSON: the longest numbers are assumed for all fields but the histograms.
fn json_bound(row: &PeerReport) -> usize {
    let network = row.network.as_ref();
    let network = network
        .into_iter()
        .flat_map(|network| [&network.rtt, &network.hosts, &network.peer_host]);
    let relayed = row.relayed.as_ref();
    let relayed = relayed
        .into_iter()
        .flat_map(|relayed| [&relayed.rtt, &relayed.warm]);
    let further = row.transports.iter();
    let further = further.flat_map(|further| [&further.rtt, &further.warm]);
    let histograms = [&row.rtt, &row.warm].into_iter();
    let histograms = histograms.chain(network).chain(relayed).chain(further);
    let names = row.peer_id.len() + row.name.len() + row.relay.as_ref().map_or(0, String::len);
    let fields = ROW_BYTES + TRANSPORT_BYTES * row.transports.len();
    fields + names + histograms.map(Histogram::json_bytes).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peernet_api::{
        envelope,
        identity::NetworkSecret,
        report::{FoundBy, MAX_PEERS, NetworkReport, Path, RelayedReport, StampClock, TransportReport},
    };

    use super::*;
    use crate::{
        ledger::Member,
        ping::{News, Over},
        telemetry::{StampNews, StampSample},
    };

    fn reporting() -> Reporting {
        let identity = Identity {
            network: "demo/mesh".to_owned(),
            name: "mesh-0".to_owned(),
            transports: vec![Transport::Tcp, Transport::Quic, Transport::WebSocket],
        };
        Reporting::new(identity, None, &[], Duration::from_secs(300), Duration::ZERO)
    }

    #[test]
    fn a_silent_event_loop_is_dead_and_says_its_age() {
        let mut reporting = reporting();
        let second = Duration::from_secs(1);
        assert!(reporting.is_alive(second * 9) && !reporting.is_ready(second * 9));
        assert!(!reporting.is_alive(second * 10));
        reporting.apply(Event::State(State {
            at: second * 11,
            listening: true,
            ..State::default()
        }));
        assert!(reporting.is_ready(second * 12));
        assert_eq!(reporting.report("00", second * 15).heartbeat_age_millis, 4_000);
        assert!(!reporting.is_ready(second * 21));
    }

    /// Feeds a member's row with so many samples in each histogram, spread as `nanos` says.
    fn measure(
        reporting: &mut Reporting,
        peer: PeerId,
        samples: u64,
        transports: usize,
        at: Moment,
        relayed: bool,
        nanos: impl Fn(u64) -> u64,
    ) {
        for n in 0..samples {
            let time = Duration::from_nanos(nanos(n));
            let cold = News::Cold {
                result: Ok(time),
                host_limited: false,
            };
            let direct = Transport::ALL.into_iter().take(transports).map(Over::Direct);
            for over in direct.chain(relayed.then_some(Over::Circuit)) {
                for news in [cold, News::Warm(time / 2)] {
                    reporting.apply(Event::Probe {
                        peer,
                        over,
                        news,
                        sent: at,
                        at,
                    });
                }
            }
            let sample = StampSample {
                clock: StampClock::Kernel,
                network: time / 4,
                own_host: time / 8,
                peer_host: time / 3,
                lateness: Duration::ZERO,
            };
            let news = StampNews::Sample(sample);
            reporting.apply(Event::Stamp { peer, news, at });
        }
    }

    fn with_members(count: usize, name: impl Fn(usize) -> String, at: Moment) -> (Reporting, Arc<[Member]>) {
        let mut reporting = reporting();
        let members: Arc<[Member]> = (0..count)
            .map(|n| Member {
                peer: PeerId::random(),
                name: name(n).into(),
                instance: None,
                found_by: FoundBy::Dns,
                link: None,
                path: Path::Direct,
                relay: None,
                transports: Transport::ALL.to_vec(),
            })
            .collect();
        reporting.apply(Event::State(State {
            at,
            members: Arc::clone(&members),
            ..State::default()
        }));
        (reporting, members)
    }

    fn sealed(reporting: &Reporting, at: Moment) -> (Report, Vec<u8>) {
        let report = reporting.report(&"f".repeat(64), at);
        let key = NetworkSecret::new(&[1; 32]).unwrap().keypair("mesh-0");
        let sealed = envelope::seal(&report, &key).unwrap();
        (report, sealed)
    }

    #[test]
    fn the_largest_report_fits_what_the_operator_reads() {
        let at = Duration::from_secs(1);
        let (mut reporting, members) = with_members(MAX_PEERS, |n| format!("{n:0>253}"), at);
        for member in members.iter() {
            measure(&mut reporting, member.peer, 1_000, 3, at, true, |n| {
                10_000 + n * n * 60_000
            });
        }
        let (report, sealed) = sealed(&reporting, at);
        assert!(!report.peers.is_empty() && report.peers.len() < MAX_PEERS);
        assert!(report.peers.is_sorted_by_key(|row| &row.name));
        assert!(envelope::open(&sealed).is_ok(), "{} bytes", sealed.len());
    }

    #[test]
    fn a_row_is_never_longer_than_it_is_taken_for() {
        let longest = u64::MAX;
        let network = NetworkReport {
            clock: StampClock::UserSpace,
            sent: longest,
            answered: longest,
            lost_forward: longest,
            lost_backward: longest,
            lost_undirected: longest,
            duplicated: longest,
            reordered: longest,
            voided: longest,
            host_limited: longest,
            newest_sample_age_millis: Some(longest),
            newest_probe_age_millis: Some(longest),
            ..NetworkReport::default()
        };
        let further = |transport| TransportReport {
            transport,
            connected: false,
            answered: longest,
            timed_out: longest,
            failed: longest,
            host_limited: longest,
            newest_sample_age_millis: Some(longest),
            newest_probe_age_millis: Some(longest),
            ..TransportReport::default()
        };
        let row = PeerReport {
            found_by: Some(FoundBy::Bootstrap),
            answered: longest,
            timed_out: longest,
            failed: longest,
            host_limited: longest,
            retransmitted: Some(longest),
            newest_sample_age_millis: Some(longest),
            newest_probe_age_millis: Some(longest),
            first_connected: Some(false),
            network: Some(network),
            path: Some(Path::Relayed),
            relay: Some("r".repeat(253)),
            relayed: Some(RelayedReport {
                answered: longest,
                timed_out: longest,
                failed: longest,
                host_limited: longest,
                newest_sample_age_millis: Some(longest),
                newest_probe_age_millis: Some(longest),
                ..RelayedReport::default()
            }),
            transports: Transport::ALL.map(further).to_vec(),
            ..PeerReport::default()
        };
        let bytes = serde_json::to_vec(&row).unwrap().len();
        assert!(bytes <= json_bound(&row), "{bytes} bytes");
    }

    /// How long a report is: 100 peers, five minutes at one probe a second, times that spread as on a busy cluster
    /// (log-normal, p99 some twenty times the median).
    #[test]
    fn a_report_on_a_hundred_peers_is_a_quarter_of_what_the_operator_reads() {
        assert!(bytes_on_a_hundred_peers(1) < report::MAX_BYTES / 4);
    }

    #[test]
    fn a_report_over_three_transports_is_less_than_half_of_it() {
        assert!(bytes_on_a_hundred_peers(3) < report::MAX_BYTES / 2);
    }

    fn bytes_on_a_hundred_peers(transports: usize) -> usize {
        let at = Duration::from_secs(1);
        let (mut reporting, members) = with_members(100, |n| format!("mesh-{n}"), at);
        let mut seed = 1_u64;
        for member in members.iter() {
            let mut times = Vec::new();
            for _ in 0..300 {
                // The sum of twelve uniform numbers is close to normal.
                let mut normal = -6.0;
                for _ in 0..12 {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    normal += (seed >> 40) as f64 / (1_u64 << 24) as f64;
                }
                times.push((200_000.0 * f64::exp(normal * 1.3)) as u64);
            }
            measure(&mut reporting, member.peer, 300, transports, at, false, |n| {
                times[n as usize]
            });
        }
        let (report, sealed) = sealed(&reporting, at);
        assert_eq!(report.peers.len(), 100);
        eprintln!(
            "a report on 100 peers over {transports} transports: {} bytes",
            sealed.len()
        );
        sealed.len()
    }
}
