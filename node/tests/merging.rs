//! Percentiles that are merged from many agents' reports, against those of all samples together: for every number that
//! a report has a distribution of, and however the samples fell on agents, peers and sub-windows.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on fails"
)]

use std::time::Duration;

use libp2p::PeerId;
use peernet_api::{
    histogram::Histogram,
    identity::NetworkSecret,
    report::{HostReport, NetworkReport, Path, PeerReport, StampClock},
    transport::Transport,
};
use peernet_node::{
    ledger::{Ledger, Member},
    ping::{News, Over},
    telemetry::{StampNews, StampSample},
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

const AGENTS: usize = 6;
const PEERS: usize = 4;
const WINDOW: Duration = Duration::from_secs(100);

/// One burst and one STAMP probe, in nanoseconds.
#[derive(Clone, Debug)]
struct Sample {
    agent: usize,
    peer: usize,
    at: Duration,
    cold: u64,
    warm: u64,
    network: u64,
    own_host: u64,
    peer_host: u64,
}

/// From one microsecond to so many seconds, each order of magnitude as likely as the others.
fn nanos(seconds: f64) -> impl Strategy<Value = u64> {
    (1e3_f64.ln()..(seconds * 1e9).ln()).prop_map(|power| power.exp() as u64)
}

fn sample() -> impl Strategy<Value = Sample> {
    (
        // Some agents and peers have most of the samples.
        (0.0..1.0_f64, 0..PEERS, 0_u64..100_000),
        (nanos(60.0), nanos(60.0), nanos(60.0), nanos(30.0), nanos(30.0)),
    )
        .prop_map(
            |((agent, peer, at), (cold, warm, network, own_host, peer_host))| Sample {
                agent: (agent * agent * AGENTS as f64) as usize,
                peer,
                at: Duration::from_millis(at),
                cold,
                warm,
                network,
                own_host,
                peer_host,
            },
        )
}

fn member(n: usize) -> Member {
    let name = format!("mesh-{n}");
    let peer: PeerId = NetworkSecret::new(&[5; 32]).unwrap().peer_id(&name);
    Member {
        peer,
        name: name.into(),
        instance: None,
        found_by: peernet_api::report::FoundBy::Dns,
        link: None,
        path: Path::Direct,
        relay: None,
        transports: vec![Transport::Tcp],
    }
}

/// What each agent reports of these samples, as it comes from the wire.
fn reports(samples: &[Sample]) -> Vec<(Vec<PeerReport>, HostReport)> {
    let members: Vec<Member> = (0..PEERS).map(member).collect();
    let mut ledgers: Vec<Ledger> = (0..AGENTS)
        .map(|_| Ledger::new(WINDOW, &[Transport::Tcp]))
        .collect();
    for ledger in &mut ledgers {
        ledger.set_members(&members, Duration::ZERO);
    }
    for sample in samples {
        let (ledger, peer) = (&mut ledgers[sample.agent], &members[sample.peer].peer);
        let cold = News::Cold {
            result: Ok(Duration::from_nanos(sample.cold)),
            host_limited: false,
        };
        ledger.record(peer, Over::Direct(Transport::Tcp), cold, sample.at, sample.at);
        let warm = News::Warm(Duration::from_nanos(sample.warm));
        ledger.record(peer, Over::Direct(Transport::Tcp), warm, sample.at, sample.at);
        let stamp = StampSample {
            clock: StampClock::Kernel,
            network: Duration::from_nanos(sample.network),
            own_host: Duration::from_nanos(sample.own_host),
            peer_host: Duration::from_nanos(sample.peer_host),
            lateness: Duration::ZERO,
        };
        ledger.record_stamp(peer, StampNews::Sample(stamp), sample.at);
    }
    let now = WINDOW - Duration::from_nanos(1);
    ledgers
        .iter()
        .map(|ledger| (sent(&ledger.rows(now)), sent(&ledger.host(now))))
        .collect()
}

fn sent<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

fn merged<'a>(parts: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut sum = Histogram::new();
    for part in parts {
        sum.merge(part);
    }
    sum
}

fn check(what: &str, merged: &Histogram, mut exact: Vec<u64>) -> Result<(), TestCaseError> {
    exact.sort_unstable();
    prop_assert_eq!(merged.count(), exact.len() as u64, "{}", what);
    for permille in [500, 900, 990, 999] {
        let rank = (exact.len() * usize::from(permille)).div_ceil(1000).max(1);
        let (got, exact) = (merged.quantile(permille), exact.get(rank - 1).copied());
        let near = match (got, exact) {
            (Some(got), Some(exact)) => got.abs_diff(exact) * 100 <= exact,
            (got, exact) => got == exact,
        };
        prop_assert!(
            near,
            "{what}: {permille} thousandths are below {exact:?}, not {got:?}"
        );
    }
    Ok(())
}

type OfRow = fn(&PeerReport) -> &Histogram;
type OfSample = fn(&Sample) -> u64;

fn network(row: &PeerReport) -> &NetworkReport {
    static NONE: std::sync::LazyLock<NetworkReport> = std::sync::LazyLock::new(NetworkReport::default);
    row.network.as_ref().unwrap_or(&NONE)
}

const NUMBERS: [(&str, OfRow, OfSample); 5] = [
    ("cold", |row| &row.rtt, |sample| sample.cold),
    ("warm", |row| &row.warm, |sample| sample.warm),
    ("network", |row| &network(row).rtt, |sample| sample.network),
    (
        "hosts",
        |row| &network(row).hosts,
        |sample| sample.own_host + sample.peer_host,
    ),
    (
        "peer's host",
        |row| &network(row).peer_host,
        |sample| sample.peer_host,
    ),
];

proptest! {
    #[test]
    fn merged_percentiles_are_those_of_all_samples_together(samples in prop::collection::vec(sample(), 0..500)) {
        let reports = reports(&samples);
        for (what, of_row, of_sample) in NUMBERS {
            let rows = reports.iter().flat_map(|(rows, _)| rows);
            check(what, &merged(rows.map(of_row)), samples.iter().map(of_sample).collect())?;
            for (agent, (rows, _)) in reports.iter().enumerate() {
                let mine = samples.iter().filter(|sample| sample.agent == agent);
                check(what, &merged(rows.iter().map(of_row)), mine.map(of_sample).collect())?;
            }
            for peer in 0..PEERS {
                let name = format!("mesh-{peer}");
                let rows = reports.iter().flat_map(|(rows, _)| rows).filter(|row| row.name == name);
                let seen = samples.iter().filter(|sample| sample.peer == peer);
                check(what, &merged(rows.map(of_row)), seen.map(of_sample).collect())?;
            }
        }
        let delay = merged(reports.iter().map(|(_, host)| &host.delay));
        check("host delay", &delay, samples.iter().map(|sample| sample.own_host).collect())?;
    }
}

/// What PeerNet never does, on the same data: one agent of six has a bad second in fifty.
#[test]
fn the_average_of_the_agents_p99s_is_not_the_p99() {
    let samples: Vec<Sample> = (0..6_000_u64)
        .map(|n| {
            let agent = (n % 6) as usize;
            let cold = if agent == 0 && (n / 6) % 50 == 0 {
                80_000_000
            } else {
                200_000
            };
            Sample {
                agent,
                peer: (n % 4) as usize,
                at: Duration::from_millis(n * 16),
                cold,
                warm: cold,
                network: 40_000,
                own_host: 1_000,
                peer_host: 1_000,
            }
        })
        .collect();
    let reports = reports(&samples);
    let of_agent = |rows: &Vec<PeerReport>| merged(rows.iter().map(|row| &row.rtt));
    let p99s: Vec<u64> = reports
        .iter()
        .map(|(rows, _)| of_agent(rows).quantile(990).unwrap())
        .collect();
    let average = p99s.iter().sum::<u64>() / 6;
    let all = merged(reports.iter().flat_map(|(rows, _)| rows).map(|row| &row.rtt));
    check("cold", &all, samples.iter().map(|sample| sample.cold).collect()).unwrap();
    // One probe in three hundred was slow: the p99 of all is a fast one. The average is off by a factor of sixty.
    assert!(all.quantile(990).unwrap() < 202_000);
    assert!(average > 13_000_000, "{average}");
}
