//! The numbers are true, and nothing hostile is in them.

use peernet_api::v1alpha1::conditions::{READY, reason};
use peernet_api::v1alpha1::{Clock, ReportOutcome};
use peernet_e2e::network::{Network, condition, is, nodes_column, yaml};
use peernet_e2e::note;
use peernet_e2e::scenario::{scenario, tool_image};
use serde_json::json;

#[test]
fn what_the_network_did_stands_beside_what_the_hosts_did() {
    scenario("network-and-hosts", async |scenario| {
        // The namespace enforces Pod Security `restricted`: the kernel's stamps need no right beyond that.
        let network = Network::create(scenario, "mesh", json!({})).await?;
        network.until_ready(3).await?;
        let status = network
            .until("the network's own time and the hosts'", |status| {
                let columns = status.columns.clone().unwrap_or_default();
                columns.net_p50.is_some()
                    && columns.net_p99.is_some()
                    && columns.host_p99.is_some()
                    && columns.breakdown.is_some()
            })
            .await?;
        let found = status.network.clone().ok_or("no network")?;
        assert_eq!(found.clock, Clock::Kernel, "{}", yaml(&status));
        assert!(
            found.times.samples > 0
                && found.times.p50_micros > 0
                && found.times.p50_micros <= found.times.p99_micros,
            "{}",
            yaml(&status)
        );
        let (rtt, hosts) = (status.rtt.as_ref(), status.hosts.as_ref());
        assert!(
            hosts.is_some_and(|hosts| hosts.p50_micros > 0) && rtt.is_some_and(|rtt| rtt.samples > 0),
            "{}",
            yaml(&status)
        );
        let breakdown = status
            .columns
            .as_ref()
            .and_then(|columns| columns.breakdown.clone());
        let breakdown = breakdown.ok_or("no breakdown")?;
        assert!(
            breakdown.starts_with("network ") && breakdown.contains(", hosts "),
            "{breakdown}"
        );
        // Every number tells its age.
        for time in [
            &status.last_sample_time,
            &found.times.newest_sample_time,
            &rtt.and_then(|rtt| rtt.newest_sample_time.clone()),
        ] {
            assert!(time.is_some(), "{}", yaml(&status));
        }
        let shown = scenario.kubectl(&["get", "peernetworks", "-o", "wide"]).await?;
        for column in [
            "RTT P99",
            "NET P99",
            "SAMPLED",
            "NET P50",
            "HOST P99",
            "BREAKDOWN",
        ] {
            assert!(shown.contains(column), "{shown}");
        }
        assert!(
            shown.contains(&breakdown) || shown.contains("network "),
            "{shown}"
        );
        note(shown.trim_end());
        Ok(())
    });
}

#[test]
fn hostile_agents_are_named_and_in_no_number() {
    scenario("hostile", async |scenario| {
        let Some(image) = tool_image("the test of hostile agents") else {
            return Ok(());
        };
        let honest = Network::create(scenario, "honest", json!({"replicas": 2})).await?;
        honest.until_ready(2).await?;
        let spec = json!({"replicas": 6, "image": image, "imagePullPolicy": "IfNotPresent"});
        let hostile = Network::create(scenario, "hostile", spec).await?;
        let expected = [
            ReportOutcome::Undecodable,
            ReportOutcome::TooLarge,
            ReportOutcome::TimedOut,
            ReportOutcome::Unreachable,
            ReportOutcome::WrongPeer,
            ReportOutcome::WrongSignature,
        ];
        let status = hostile
            .until("every outcome named", |status| {
                nodes_column(status) == "6/6"
                    && expected.iter().enumerate().all(|(n, outcome)| {
                        let name = format!("hostile-{n}");
                        status
                            .nodes
                            .iter()
                            .any(|node| node.name == name && node.report == *outcome)
                    })
            })
            .await?;
        let ready = condition(&status, READY).ok_or("no condition")?;
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason::REPORTS_MISSING)
        );
        assert!(
            ready.message.contains("hostile-0") && ready.message.contains("can't be decoded"),
            "{}",
            ready.message
        );
        assert!(is(&status, "Connected", "Unknown"), "{}", yaml(&status));
        assert!(
            status.rtt.is_none() && status.peers.is_none() && status.loss_ppm.is_none(),
            "{}",
            yaml(&status)
        );
        assert!(
            status.nodes.iter().all(|node| node.connected_peers.is_none()),
            "{}",
            yaml(&status)
        );
        // The one whose reports were borrowed is none the worse for it.
        honest.until_ready(2).await.map(drop)
    });
}
