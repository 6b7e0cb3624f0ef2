//! The networks' newest numbers, for alerts that don't want to read resources. Percentiles are those of the merged
//! distributions; a Prometheus histogram could not follow them, since what leaves the window would make it fall.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{
    clock::Moment,
    measure::{Measurements, Spread},
};

/// Numbers that were measured longer ago than this are not told any more. Rounds come every few seconds.
const MAX_AGE: Duration = Duration::from_secs(30);
/// Most networks that are told, the first by name.
const MAX_NETWORKS: usize = 256;

/// The newest numbers of each network.
#[derive(Debug, Default)]
pub(super) struct Numbers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The time of the scrape.
    now: Moment,
    networks: BTreeMap<String, Noted>,
}

#[derive(Debug)]
struct Noted {
    measured: Measurements,
    at: Moment,
}

impl Numbers {
    pub(super) fn note(&self, network: &str, measured: &Measurements, at: Moment) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = Measurements {
            // What no metric tells is not kept.
            members: Vec::new(),
            missing_links: Vec::new(),
            worst_links: Vec::new(),
            zones: Vec::new(),
            ..measured.clone()
        };
        state.networks.insert(network.to_owned(), Noted { measured, at });
    }

    pub(super) fn forget(&self, network: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.networks.remove(network);
    }

    /// Drops what is too old to be told at `now`.
    pub(super) fn expire(&self, now: Moment) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.now = now;
        state
            .networks
            .retain(|_, noted| now.saturating_sub(noted.at) <= MAX_AGE);
    }
}

/// A distribution, what it is called, and what it is.
type Times = (&'static str, &'static str, fn(&Measurements) -> Option<&Spread>);

const TIMES: [Times; 6] = [
    (
        "rtt_seconds",
        "Cold round-trip times of libp2p ping, by network and quantile",
        |measured| measured.numbers.rtt.as_ref(),
    ),
    (
        "warm_rtt_seconds",
        "Warm round-trip times of libp2p ping, by network and quantile",
        |measured| measured.numbers.warm.as_ref(),
    ),
    (
        "network_rtt_seconds",
        "The network's own round-trip times, by network and quantile",
        |measured| measured.numbers.network.as_ref(),
    ),
    (
        "hosts_seconds",
        "Time that the same probes spent in both hosts, by network and quantile",
        |measured| measured.numbers.hosts.as_ref(),
    ),
    (
        "host_delay_seconds",
        "Time that probes waited in one host, by network and quantile",
        |measured| measured.host_delay.as_ref(),
    ),
    (
        "loop_lag_seconds",
        "How late agents' event loops were served, by network and quantile",
        |measured| measured.loop_lag.as_ref(),
    ),
];

/// A share, what it is called, and what it is in millionths.
type Share = (&'static str, &'static str, fn(&Measurements) -> Option<i32>);

const SHARES: [Share; 4] = [
    (
        "loss_ratio",
        "Share of the libp2p probes that got no answer in time, by network",
        |measured| measured.numbers.loss.ppm,
    ),
    (
        "forward_loss_ratio",
        "Share of the STAMP probes that were lost on the way there, by network",
        |measured| measured.numbers.loss.forward_ppm,
    ),
    (
        "backward_loss_ratio",
        "Share of the answers to STAMP probes that were lost on the way back, by network",
        |measured| measured.numbers.loss.backward_ppm,
    ),
    (
        "undirected_loss_ratio",
        "Share of the STAMP probes that nobody knows of where they were lost, by network",
        |measured| measured.numbers.loss.undirected_ppm,
    ),
];

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let networks = || state.networks.iter().take(MAX_NETWORKS);
        for (name, help, spread) in TIMES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (network, noted) in networks() {
                let Some(spread) = spread(&noted.measured) else {
                    continue;
                };
                for (quantile, micros) in [
                    ("0.5", spread.p50_micros),
                    ("0.9", spread.p90_micros),
                    ("0.99", spread.p99_micros),
                    ("1", spread.max_micros),
                ] {
                    let labels = [("network", network.as_str()), ("quantile", quantile)];
                    ConstGauge::new(micros as f64 / 1e6).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        for (name, help, share) in SHARES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (network, noted) in networks() {
                if let Some(ppm) = share(&noted.measured) {
                    let labels = [("network", network.as_str())];
                    ConstGauge::new(f64::from(ppm) / 1e6).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Guests with a connection, summed over the agents that reported, by network";
        let mut family = encoder.encode_descriptor("guests", help, None, MetricType::Gauge)?;
        for (network, noted) in networks() {
            if let Some(guests) = noted.measured.guests {
                let labels = [("network", network.as_str())];
                let guests = i64::try_from(guests).unwrap_or(i64::MAX);
                ConstGauge::new(guests).encode(family.encode_family(&labels)?)?;
            }
        }
        encode_transports(&mut encoder, &networks().collect::<Vec<_>>())?;
        let help = "Age of the newest sample behind these numbers, by network";
        let mut family =
            encoder.encode_descriptor("newest_sample_age_seconds", help, None, MetricType::Gauge)?;
        for (network, noted) in networks() {
            if let Some(age) = noted.measured.newest_sample_age() {
                let age = age.saturating_add(state.now.saturating_sub(noted.at));
                let labels = [("network", network.as_str())];
                ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// The same links over each transport. There are no more transports than three.
fn encode_transports(
    encoder: &mut DescriptorEncoder<'_>,
    networks: &[(&String, &Noted)],
) -> Result<(), fmt::Error> {
    let all = || {
        networks.iter().flat_map(|(network, noted)| {
            let transports = noted.measured.transports.iter();
            transports.map(|over| (network.as_str(), over.transport.name(), over))
        })
    };
    let help = "Cold round-trip times of libp2p ping, by network, transport and quantile";
    let mut family = encoder.encode_descriptor("transport_rtt_seconds", help, None, MetricType::Gauge)?;
    for (network, transport, over) in all() {
        let Some(spread) = &over.rtt else { continue };
        for (quantile, micros) in [
            ("0.5", spread.p50_micros),
            ("0.9", spread.p90_micros),
            ("0.99", spread.p99_micros),
            ("1", spread.max_micros),
        ] {
            let labels = [
                ("network", network),
                ("transport", transport),
                ("quantile", quantile),
            ];
            ConstGauge::new(micros as f64 / 1e6).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Share of the libp2p probes that got no answer in time, by network and transport";
    let mut family = encoder.encode_descriptor("transport_loss_ratio", help, None, MetricType::Gauge)?;
    for (network, transport, over) in all() {
        if let Some(ppm) = over.loss_ppm {
            let labels = [("network", network), ("transport", transport)];
            ConstGauge::new(f64::from(ppm) / 1e6).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Links from node to node by network and transport: those that should stand, and those that do";
    let mut family = encoder.encode_descriptor("transport_links", help, None, MetricType::Gauge)?;
    for (network, transport, over) in all() {
        for (state, links) in [("expected", over.expected), ("connected", over.connected)] {
            let labels = [("network", network), ("transport", transport), ("state", state)];
            let links = i64::try_from(links).unwrap_or(i64::MAX);
            ConstGauge::new(links).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{Loss, Numbers as Measured},
        metrics::Metrics,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn measured() -> Measurements {
        let spread = Spread {
            p50_micros: 27,
            p90_micros: 80,
            p99_micros: 100,
            max_micros: 256,
            samples: 60,
            newest: SECOND,
        };
        Measurements {
            guests: Some(2),
            numbers: Measured {
                network: Some(spread),
                loss: Loss {
                    forward_ppm: Some(10_000),
                    ..Loss::default()
                },
                ..Measured::default()
            },
            ..Measurements::default()
        }
    }

    #[test]
    fn what_is_known_is_told_in_seconds() {
        let metrics = Metrics::default();
        metrics.note_numbers("lab/mesh", &measured(), SECOND * 10);
        let text = metrics.encode(SECOND * 12).unwrap();
        for line in [
            "# TYPE peernet_network_rtt_seconds gauge",
            r#"peernet_network_rtt_seconds{network="lab/mesh",quantile="0.99"} 0.0001"#,
            r#"peernet_forward_loss_ratio{network="lab/mesh"} 0.01"#,
            r#"peernet_guests{network="lab/mesh"} 2"#,
            r#"peernet_newest_sample_age_seconds{network="lab/mesh"} 3.0"#,
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in:\n{text}"
            );
        }
        assert!(
            !text.contains("peernet_rtt_seconds{") && !text.contains("backward_loss_ratio{"),
            "unknown is not zero"
        );
    }

    #[test]
    fn what_is_old_or_gone_is_told_no_more() {
        let metrics = Metrics::default();
        let told = |at| {
            metrics
                .encode(at)
                .unwrap()
                .contains("peernet_network_rtt_seconds{")
        };
        metrics.note_numbers("lab/mesh", &measured(), SECOND * 10);
        assert!(told(SECOND * 40) && !told(SECOND * 41));
        metrics.note_numbers("lab/mesh", &measured(), SECOND * 50);
        metrics.forget_network("lab/mesh");
        assert!(!told(SECOND * 50));
    }
}
