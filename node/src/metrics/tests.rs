use std::time::Duration;

use super::*;
use crate::{host::Usage, ledger::StampTotals, stamp::Counts};

#[test]
fn all_numbers_are_there_with_closed_sets_of_labels() {
    let mut rtt = TimeBuckets::default();
    rtt.counts[3] = 5;
    rtt.counts[19] = 1;
    rtt.sum = 20.0005;
    let mut network = TimeBuckets::default();
    network.counts[0] = 4;
    let totals = Totals {
        rtt,
        network,
        timed_out: 2,
        reset: 1,
        closed: 3,
        unheard: 4,
        host_limited: 6,
        retransmitted: 11,
        stamp: StampTotals {
            answered: 4,
            voided: 12,
            lost_forward: 13,
            lost_backward: 14,
            lost_undirected: 15,
            located_forward: 16,
            ..StampTotals::default()
        },
        further: [(
            Transport::Quic,
            PingTotals {
                timed_out: 26,
                ..PingTotals::default()
            },
        )]
        .into(),
        host: Usage {
            throttled: Some(Duration::from_millis(1_500)),
            throttled_periods: Some(17),
            ..Usage::default()
        },
        ..Totals::default()
    };
    let counters = Counters {
        events_dropped: 7,
        strangers_rejected: 8,
        guests_refused: 26,
        dials_connected: 9,
        connections_refused: 10,
        handshakes_to_validate: 34,
        stamp: Counts {
            reflected: 21,
            refused: 22,
            replayed: 23,
            limited: 24,
            unexpected: 25,
            dropped: 0,
        },
        dht: crate::dht::Counts {
            records_refused: 31,
            records: 32,
            record_bytes: 33,
            providers: 34,
        },
        ..Default::default()
    };
    let text = encode(Snapshot {
        transports: vec![Transport::Tcp, Transport::Quic],
        totals,
        counters,
        without_key: 31,
        another_key: 32,
        peers: 2,
        guests: Some(5),
        relayed_peers: 1,
        relaying: relay::Counts {
            circuits: 31,
            circuits_granted: 32,
            strangers: 33,
            upgrades: 34,
            ..relay::Counts::default()
        },
        connections: 3,
    })
    .unwrap();
    for line in [
        "# TYPE peernet_rtt_seconds histogram",
        r#"peernet_rtt_seconds_bucket{le="0.0001"} 5"#,
        r#"peernet_rtt_seconds_bucket{le="+Inf"} 6"#,
        "peernet_rtt_seconds_count 6",
        r#"peernet_transport_rtt_seconds_bucket{le="0.0001",transport="TCP"} 5"#,
        r#"peernet_transport_rtt_seconds_count{transport="QUIC"} 0"#,
        r#"peernet_transport_probes_total{transport="TCP",result="failed"} 4"#,
        r#"peernet_transport_probes_total{transport="QUIC",result="timeout"} 26"#,
        r#"peernet_probes_total{result="answered"} 6"#,
        r#"peernet_probes_total{result="timeout"} 2"#,
        r#"peernet_probes_total{result="failed"} 4"#,
        r#"peernet_probes_total{result="unheard"} 4"#,
        r#"peernet_probe_failures_total{cause="closed"} 3"#,
        "peernet_warm_rtt_seconds_count 0",
        r#"peernet_network_rtt_seconds_bucket{le="0.00001"} 4"#,
        "peernet_host_delay_seconds_count 0",
        "peernet_loop_lag_seconds_count 0",
        r#"peernet_stamp_probes_total{result="answered"} 4"#,
        r#"peernet_stamp_probes_total{result="voided"} 12"#,
        r#"peernet_stamp_probes_total{result="lost_forward"} 13"#,
        r#"peernet_stamp_probes_total{result="lost_backward"} 14"#,
        r#"peernet_stamp_probes_total{result="lost_undirected"} 15"#,
        r#"peernet_stamp_located_total{direction="forward"} 16"#,
        "peernet_host_limited_total 6",
        "peernet_tcp_retransmissions_total 11",
        "peernet_throttled_seconds_total 1.5",
        "peernet_throttled_periods_total 17",
        r#"peernet_dials_total{result="connected"} 9"#,
        r#"peernet_stamp_requests_total{result="answered"} 21"#,
        r#"peernet_stamp_requests_total{result="refused"} 22"#,
        r#"peernet_stamp_requests_total{result="replayed"} 23"#,
        r#"peernet_stamp_requests_total{result="limited"} 24"#,
        "peernet_stamp_unexpected_total 25",
        "peernet_strangers_rejected_total 8",
        r#"peernet_private_network_refused_total{reason="without_key"} 31"#,
        r#"peernet_private_network_refused_total{reason="another_key"} 32"#,
        "peernet_handshakes_to_validate_total 34",
        "peernet_dht_records_refused_total 31",
        "peernet_dht_records 32",
        "peernet_dht_record_bytes 33",
        "peernet_dht_providers 34",
        "peernet_connections_refused_total 10",
        "peernet_events_dropped_total 7",
        "peernet_guests_refused_total 26",
        "peernet_peers 2",
        "peernet_guests 5",
        "peernet_relayed_peers 1",
        "peernet_relayed_rtt_seconds_count 0",
        r#"peernet_relayed_probes_total{result="answered"} 0"#,
        "peernet_relay_circuits 31",
        r#"peernet_relay_circuit_requests_total{result="granted"} 32"#,
        "peernet_relay_strangers_total 33",
        "peernet_relay_upgrades_total 34",
        "peernet_connections 3",
        &format!(r#"peernet_build_info{{version="{}"}} 1"#, peernet_api::VERSION),
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line} is missing in:\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(
        !text.contains("run_delay"),
        "what is unknown has no line:\n{text}"
    );
}
