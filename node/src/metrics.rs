//! The agent's numbers for Prometheus, written anew for each scrape. No label grows with the number of peers.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use peernet_api::transport::Transport;

use crate::{
    ledger::{PingTotals, TimeBuckets, Totals},
    relay,
    telemetry::Counters,
};

/// What [`encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The numbers of one scrape.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The agent's transports. What is told of libp2p without naming one is of the first.
    pub transports: Vec<Transport>,
    /// Probes since the start.
    pub totals: Totals,
    /// Other counts since the start.
    pub counters: Counters,
    /// Connections that began without the private network's key.
    pub without_key: u64,
    /// Connections that began with another key.
    pub another_key: u64,
    /// Members with a connection.
    pub peers: usize,
    /// Guests with a connection, if there may be any.
    pub guests: Option<usize>,
    /// Those among them that only a circuit leads to.
    pub relayed_peers: usize,
    /// What was done with relays.
    pub relaying: relay::Counts,
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
        encode_times(&mut encoder, &self.totals)?;
        encode_probes(&mut encoder, &self.totals)?;
        encode_transports(&mut encoder, self)?;
        encode_host(&mut encoder, &self.totals)?;
        encode_swarm(&mut encoder, self)
    }
}

fn encode_times(encoder: &mut DescriptorEncoder<'_>, totals: &Totals) -> Result<(), fmt::Error> {
    for (name, help, times) in [
        (
            "rtt_seconds",
            "Cold round-trip times over libp2p: the first answer of each probe",
            &totals.rtt,
        ),
        (
            "warm_rtt_seconds",
            "Warm round-trip times over libp2p: the smallest of each probe's burst",
            &totals.warm,
        ),
        (
            "relayed_rtt_seconds",
            "Cold round-trip times over libp2p through relays: in none of the other numbers",
            &totals.relayed,
        ),
        (
            "network_rtt_seconds",
            "The network's own round-trip times, by STAMP",
            &totals.network,
        ),
        (
            "host_delay_seconds",
            "Time that STAMP probes of this agent spent in its own host",
            &totals.host_delay,
        ),
        (
            "loop_lag_seconds",
            "How late the event loop's timer was served",
            &totals.loop_lag,
        ),
    ] {
        encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(times.sum, times.count(), &buckets(times), None)?;
    }
    Ok(())
}

fn buckets(times: &TimeBuckets) -> Vec<(f64, u64)> {
    let mut buckets: Vec<(f64, u64)> = TimeBuckets::BOUNDS.into_iter().zip(times.counts).collect();
    buckets.push((f64::INFINITY, times.counts.last().copied().unwrap_or_default()));
    buckets
}

/// Times of a transport, what they are called, and what they are.
type TransportTimes = (&'static str, &'static str, fn(&PingTotals) -> &TimeBuckets);

/// The pings of each transport, the first one's included, so that they stand side by side.
fn encode_transports(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let totals = &snapshot.totals;
    let of_first = PingTotals {
        rtt: totals.rtt.clone(),
        warm: totals.warm.clone(),
        timed_out: totals.timed_out,
        failed: totals.reset + totals.unsupported + totals.closed,
        unheard: totals.unheard,
    };
    let further = |transport: &Transport| totals.further.get(transport).cloned().unwrap_or_default();
    let mut by_transport: Vec<(&str, PingTotals)> = Vec::new();
    for (at, transport) in snapshot.transports.iter().enumerate() {
        let pings = if at == 0 {
            of_first.clone()
        } else {
            further(transport)
        };
        by_transport.push((transport.name(), pings));
    }
    let times: [TransportTimes; 2] = [
        (
            "transport_rtt_seconds",
            "Cold round-trip times over libp2p by transport",
            |pings| &pings.rtt,
        ),
        (
            "transport_warm_rtt_seconds",
            "Warm round-trip times over libp2p by transport",
            |pings| &pings.warm,
        ),
    ];
    for (name, help, times) in times {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (transport, pings) in &by_transport {
            let (labels, times) = ([("transport", *transport)], times(pings));
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                times.sum,
                times.count(),
                &buckets(times),
                None,
            )?;
        }
    }
    let help = "Probes over libp2p by transport and by what became of them";
    let mut family = encoder.encode_descriptor("transport_probes", help, None, MetricType::Counter)?;
    for (transport, pings) in &by_transport {
        for (result, count) in [
            ("answered", pings.rtt.count()),
            ("timeout", pings.timed_out),
            ("failed", pings.failed),
            ("unheard", pings.unheard),
        ] {
            let labels = [("transport", *transport), ("result", result)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_probes(encoder: &mut DescriptorEncoder<'_>, totals: &Totals) -> Result<(), fmt::Error> {
    let Totals {
        rtt,
        timed_out,
        reset,
        unsupported,
        closed,
        unheard,
        stamp,
        ..
    } = totals;
    counters(
        encoder,
        "probes",
        "Probes over libp2p by what became of them",
        "result",
        &[
            ("answered", rtt.count()),
            ("timeout", *timed_out),
            ("failed", reset + unsupported + closed),
            ("unheard", *unheard),
        ],
    )?;
    counters(
        encoder,
        "relayed_probes",
        "Probes over libp2p through relays by what became of them",
        "result",
        &[
            ("answered", totals.relayed.count()),
            ("timeout", totals.relayed_timed_out),
            ("failed", totals.relayed_failed),
        ],
    )?;
    counters(
        encoder,
        "probe_failures",
        "Failed probes over libp2p by cause",
        "cause",
        &[
            ("reset", *reset),
            ("unsupported", *unsupported),
            ("closed", *closed),
        ],
    )?;
    counters(
        encoder,
        "stamp_probes",
        "STAMP probes by what became of them",
        "result",
        &[
            ("answered", stamp.answered),
            ("voided", stamp.voided),
            ("lost_forward", stamp.lost_forward),
            ("lost_backward", stamp.lost_backward),
            ("lost_undirected", stamp.lost_undirected),
        ],
    )?;
    counters(
        encoder,
        "stamp_located",
        "STAMP probes counted as lost_undirected of which a later answer told where they were lost",
        "direction",
        &[
            ("forward", stamp.located_forward),
            ("backward", stamp.located_backward),
        ],
    )?;
    for (name, help, value) in [
        (
            "stamp_duplicated",
            "Further copies of answers to STAMP probes",
            stamp.duplicated,
        ),
        (
            "stamp_reordered",
            "Answers to STAMP probes that a later one overtook",
            stamp.reordered,
        ),
        (
            "host_limited",
            "Probes, over libp2p and by STAMP, that a host delayed",
            totals.host_limited,
        ),
        (
            "tcp_retransmissions",
            "Segments that TCP sent again on measured connections",
            totals.retransmitted,
        ),
    ] {
        counter(encoder, name, help, value)?;
    }
    Ok(())
}

/// What the kernel does not tell has no line.
fn encode_host(encoder: &mut DescriptorEncoder<'_>, totals: &Totals) -> Result<(), fmt::Error> {
    let host = &totals.host;
    for (name, help, time) in [
        ("cpu_seconds", "CPU time that the agent used", host.cpu),
        (
            "run_delay_seconds",
            "Time that the agent's threads were ready to run and waited for a CPU",
            host.run_delay,
        ),
        (
            "throttled_seconds",
            "Time that the agent was kept from running by its CPU limit",
            host.throttled,
        ),
    ] {
        if let Some(time) = time {
            let counter = ConstCounter::new(time.as_secs_f64());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
    }
    match host.throttled_periods {
        Some(periods) => counter(
            encoder,
            "throttled_periods",
            "Periods in which the agent was kept from running by its CPU limit",
            periods,
        ),
        None => Ok(()),
    }
}

fn encode_swarm(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let Counters {
        events_dropped,
        strangers_rejected,
        guests_refused,
        dials_connected,
        dials_failed,
        dials_refused,
        connections_refused,
        handshakes_to_validate,
        stamp,
        dht,
    } = snapshot.counters;
    counters(
        encoder,
        "stamp_requests",
        "STAMP requests that came, by what they got: an answer, or silence for one of three reasons",
        "result",
        &[
            ("answered", stamp.reflected),
            ("refused", stamp.refused),
            ("replayed", stamp.replayed),
            ("limited", stamp.limited),
        ],
    )?;
    counters(
        encoder,
        "dials",
        "Dials by what they led to",
        "result",
        &[
            ("connected", dials_connected),
            ("failed", dials_failed),
            ("refused", dials_refused),
        ],
    )?;
    counters(
        encoder,
        "private_network_refused",
        "Connections refused since they began without the private network's key, or with another",
        "reason",
        &[
            ("without_key", snapshot.without_key),
            ("another_key", snapshot.another_key),
        ],
    )?;
    for (name, help, value) in [
        (
            "stamp_unexpected",
            "Packets that came to the STAMP senders and are no reply to them",
            stamp.unexpected,
        ),
        (
            "strangers_rejected",
            "Peers turned away because they are no members",
            strangers_rejected,
        ),
        (
            "guests_refused",
            "Guests turned away because there were as many as there may be",
            guests_refused,
        ),
        (
            "dht_records_refused",
            "Records that others brought and that were not stored",
            dht.records_refused,
        ),
        (
            "connections_refused",
            "Connections refused since a limit was reached or memory was short",
            connections_refused,
        ),
        (
            "handshakes_to_validate",
            "QUIC handshakes that were not begun before their sender had shown that it is where it says",
            handshakes_to_validate,
        ),
        (
            "events_dropped",
            "Measurements lost inside the agent because it could not keep up",
            events_dropped,
        ),
    ] {
        counter(encoder, name, help, value)?;
    }
    encode_relaying(encoder, &snapshot.relaying)?;
    for (name, help, value) in [
        ("peers", "Members with a connection", Some(snapshot.peers)),
        ("guests", "Guests with a connection", snapshot.guests),
        (
            "relayed_peers",
            "Members that only a circuit through a relay leads to",
            Some(snapshot.relayed_peers),
        ),
        (
            "relay_reservations",
            "Members that can be reached through this agent",
            Some(snapshot.relaying.reservations),
        ),
        (
            "relay_circuits",
            "Circuits through this agent",
            Some(snapshot.relaying.circuits),
        ),
        (
            "connections",
            "Connections, also to peers that are no members",
            Some(snapshot.connections),
        ),
        ("dht_records", "Records stored for the network", Some(dht.records)),
        (
            "dht_record_bytes",
            "Bytes of the keys and values of these records",
            Some(dht.record_bytes),
        ),
        (
            "dht_providers",
            "Providers stored for the network",
            Some(dht.providers),
        ),
    ] {
        let Some(value) = value else { continue };
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    let mut info = encoder.encode_descriptor("build_info", "The agent's version", None, MetricType::Gauge)?;
    let labels = [("version", peernet_api::VERSION)];
    ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)
}

fn encode_relaying(encoder: &mut DescriptorEncoder<'_>, relaying: &relay::Counts) -> Result<(), fmt::Error> {
    counters(
        encoder,
        "relay_reservation_requests",
        "Requests of members to be reached through this agent, by what they got",
        "result",
        &[
            ("granted", relaying.reservations_granted),
            ("refused", relaying.reservations_refused),
        ],
    )?;
    counters(
        encoder,
        "relay_circuit_requests",
        "Requests of members for a circuit through this agent, by what they got",
        "result",
        &[
            ("granted", relaying.circuits_granted),
            ("refused", relaying.circuits_refused),
        ],
    )?;
    for (name, help, value) in [
        (
            "relay_strangers",
            "Requests to this agent's relay by peers that are no members",
            relaying.strangers,
        ),
        (
            "relay_upgrades",
            "Circuits of this agent that a direct connection replaced",
            relaying.upgrades,
        ),
        (
            "relay_hole_punches",
            "Direct connections that hole punching made",
            relaying.punched,
        ),
    ] {
        counter(encoder, name, help, value)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
    value: u64,
) -> Result<(), fmt::Error> {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
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
mod tests;
