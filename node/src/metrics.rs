//! The agent's numbers for Prometheus, written anew for each scrape. No label grows with the number of peers.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    ledger::{RttBuckets, Totals},
    telemetry::Counters,
};

/// What [`encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The numbers of one scrape.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Probes since the start.
    pub totals: Totals,
    /// Other counts since the start.
    pub counters: Counters,
    /// Members with a connection.
    pub peers: usize,
    /// Connections.
    pub connections: usize,
}

/// Writes the numbers in the OpenMetrics text format.
///
/// # Errors
/// Never in practice: a string can be written to.
pub fn encode(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("peernet");
    registry.register_collector(Box::new(snapshot));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Totals {
            rtt,
            timed_out,
            reset,
            unsupported,
            closed,
        } = &self.totals;
        let mut buckets: Vec<(f64, u64)> = RttBuckets::BOUNDS.into_iter().zip(rtt.counts).collect();
        buckets.push((f64::INFINITY, rtt.counts.last().copied().unwrap_or_default()));
        encoder
            .encode_descriptor(
                "rtt_seconds",
                "Round-trip times of answered probes over libp2p",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(rtt.sum, rtt.count(), &buckets, None)?;
        let failed = reset + unsupported + closed;
        counters(
            &mut encoder,
            "probes",
            "Probes by what became of them",
            "result",
            &[
                ("answered", rtt.count()),
                ("timeout", *timed_out),
                ("failed", failed),
            ],
        )?;
        counters(
            &mut encoder,
            "probe_failures",
            "Failed probes by cause",
            "cause",
            &[
                ("reset", *reset),
                ("unsupported", *unsupported),
                ("closed", *closed),
            ],
        )?;
        let Counters {
            events_dropped,
            strangers_rejected,
            dials_connected,
            dials_failed,
            dials_refused,
        } = self.counters;
        counters(
            &mut encoder,
            "dials",
            "Dials by what they led to",
            "result",
            &[
                ("connected", dials_connected),
                ("failed", dials_failed),
                ("refused", dials_refused),
            ],
        )?;
        for (name, help, value) in [
            (
                "strangers_rejected",
                "Peers turned away because they are no members",
                strangers_rejected,
            ),
            (
                "events_dropped",
                "Measurements lost inside the agent because it could not keep up",
                events_dropped,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, value) in [
            ("peers", "Members with a connection", self.peers),
            (
                "connections",
                "Connections, also to peers that are no members",
                self.connections,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let mut info =
            encoder.encode_descriptor("build_info", "The agent's version", None, MetricType::Gauge)?;
        let labels = [("version", peernet_api::VERSION)];
        ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)
    }
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        let labels = [(label, *value)];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_numbers_are_there_with_closed_sets_of_labels() {
        let mut rtt = RttBuckets::default();
        rtt.counts[3] = 5;
        rtt.counts[19] = 1;
        rtt.sum = 20.0005;
        let totals = Totals {
            rtt,
            timed_out: 2,
            reset: 1,
            unsupported: 0,
            closed: 3,
        };
        let counters = Counters {
            events_dropped: 7,
            strangers_rejected: 8,
            dials_connected: 9,
            ..Default::default()
        };
        let text = encode(Snapshot {
            totals,
            counters,
            peers: 2,
            connections: 3,
        })
        .unwrap();
        for line in [
            "# TYPE peernet_rtt_seconds histogram",
            r#"peernet_rtt_seconds_bucket{le="0.0001"} 5"#,
            r#"peernet_rtt_seconds_bucket{le="+Inf"} 6"#,
            "peernet_rtt_seconds_count 6",
            r#"peernet_probes_total{result="answered"} 6"#,
            r#"peernet_probes_total{result="timeout"} 2"#,
            r#"peernet_probes_total{result="failed"} 4"#,
            r#"peernet_probe_failures_total{cause="closed"} 3"#,
            r#"peernet_dials_total{result="connected"} 9"#,
            "peernet_strangers_rejected_total 8",
            "peernet_events_dropped_total 7",
            "peernet_peers 2",
            "peernet_connections 3",
            &format!(r#"peernet_build_info{{version="{}"}} 1"#, peernet_api::VERSION),
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in:\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
