//! Numbers that can be trusted: what is the network's fault is told from what is the hosts', and nothing old looks fresh.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::time::Duration;

use peernet_api::{
    report::NetworkReport,
    v1alpha1::{PeerNetworkStatus, ReportOutcome, conditions::READY},
};
use peernet_e2e::{
    Outcome,
    busy::BusyPods,
    faults::{self, Fault},
    network::{Network, is, yaml},
    note,
    processes::{Stopped, agents_of},
    round_trip,
    scenario::{scenario, testbed_scenario, tool_image},
    waiting::{ensure, eventually},
};
use serde_json::json;
use tokio::time::sleep;

const MILLISECOND: u64 = 1_000_000;
/// Far beyond what the network between two pods of this machine takes, and far below what a wait for a CPU beside busy pods
/// takes at its worst.
const SLOW_NETWORK: i64 = 5_000;

/// Agents' median over the median of raw TCP, on the same pair at the same time, at most this many times; also the inverse.
const TRUTH: f64 = 3.0;

#[test]
fn from_nothing_to_true_numbers() {
    scenario("true-numbers", async |scenario| {
        let Some(image) = tool_image("the comparison with raw TCP round trips") else {
            return Network::create(scenario, "mesh", json!({}))
                .await?
                .until_ready(3)
                .await
                .map(drop);
        };
        // The shortest window: what the agents report is of the seconds in which raw TCP was measured, too.
        let spec = json!({"replicas": 2, "probe": {"interval": "100ms", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(2).await?;
        let (from, to) = ("mesh-0", "mesh-1");
        let pods = network.pods().await?;
        let node = |name: &str| pods[name].spec.as_ref().and_then(|spec| spec.node_name.clone());
        assert_ne!(
            node(from),
            node(to),
            "two agents of a network are spread over nodes"
        );
        let comparisons = round_trip::compare(&network, from, to, &image, 3).await?;
        for found in &comparisons {
            note(&format!(
                "round trip {from} -> {to}, p50: agents {} us, raw TCP {} us, ratio {:.2}",
                found.agents / 1_000,
                found.raw / 1_000,
                found.ratio()
            ));
        }
        let ratio = round_trip::median(comparisons.clone())
            .ok_or("no comparison")?
            .ratio();
        assert!(
            (1.0 / TRUTH..=TRUTH).contains(&ratio),
            "the agents' median is {ratio:.2} of raw TCP's: {comparisons:?}"
        );

        // What the resource says is what the agents say.
        let truth = network.row(from, to).await?.rtt.quantile(500);
        let truth = truth.ok_or("the agent measured nothing")? as f64 / 1_000.0;
        let status = network
            .until("an RTT that fits the agents' reports", |status| {
                status.rtt.as_ref().is_some_and(|rtt| {
                    (truth / TRUTH..=truth * TRUTH).contains(&(rtt.p50_micros as f64))
                        && rtt.p50_micros <= rtt.p99_micros
                })
            })
            .await?;
        let rtt = status.rtt.ok_or("no rtt")?;
        assert!(
            rtt.p50_micros > 0 && rtt.p50_micros <= rtt.p90_micros && rtt.p99_micros <= rtt.max_micros,
            "{rtt:?}"
        );
        assert!(rtt.samples > 0 && status.last_sample_time.is_some() && status.loss_ppm.is_some());
        Ok(())
    });
}

#[test]
fn busy_neighbours_are_the_hosts_fault_and_not_the_networks() {
    testbed_scenario("the test beside busy pods", "busy", async |scenario| {
        let Some(image) = tool_image("the test beside busy pods") else {
            return Ok(());
        };
        let spec = json!({"replicas": 2, "probe": {"interval": "100ms", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(2).await?;
        let quiet = network
            .until("a window of samples", |status| network_samples(status) > 100)
            .await?;
        let busy = BusyPods::start(scenario, &image, 4).await?;
        let status = network
            .until("a network that is well, beside hosts that are late", |status| {
                let late = status.worst_links.iter().any(|link| link.late_end.is_some());
                let (Some(found), Some(hosts), Some(rtt)) = (&status.network, &status.hosts, &status.rtt)
                else {
                    return false;
                };
                late && network_samples(status) > 100
                    && found.times.p99_micros < SLOW_NETWORK
                    && found.times.p99_micros < hosts.p99_micros
                    && found.times.p99_micros < rtt.p99_micros
            })
            .await?;
        let words = |status: &PeerNetworkStatus| {
            let columns = status.columns.clone().unwrap_or_default();
            format!(
                "RTT P99 {}, NET P50 {}, NET P99 {}, HOST P99 {}",
                columns.rtt_p99.unwrap_or_default(),
                columns.net_p50.unwrap_or_default(),
                columns.net_p99.unwrap_or_default(),
                columns.host_p99.unwrap_or_default()
            )
        };
        note(&format!(
            "quiet: {}; beside 4 busy pods: {}",
            words(&quiet),
            words(&status)
        ));
        busy.end().await
    });
}

#[test]
fn a_delay_on_the_way_is_the_networks_and_only_that_pairs() {
    testbed_scenario("the delay", "delay", async |scenario| {
        let spec = json!({"probe": {"interval": "200ms", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(3).await?;
        let [a, b] = network.addresses(["mesh-0", "mesh-1"]).await?;
        let delay = Fault::delay(&a, &b, 5, 0).await?;
        for (from, to) in [("mesh-0", "mesh-1"), ("mesh-1", "mesh-0")] {
            eventually(format!("5 ms from {from} to {to}"), async || {
                let found = stamped(&network, from, to).await?;
                let (network, hosts) = (found.rtt.quantile(500), found.hosts.quantile(500));
                ensure(
                    network
                        .is_some_and(|p50| (5 * MILLISECOND..50 * MILLISECOND).contains(&(p50 + p50 / 100)))
                        && hosts.is_some_and(|p50| p50 < 5 * MILLISECOND),
                    || format!("network {network:?} ns, hosts {hosts:?} ns"),
                )
            })
            .await?;
        }
        let others = stamped(&network, "mesh-0", "mesh-2").await?.rtt.quantile(500);
        assert!(others.is_some_and(|p50| p50 < 5 * MILLISECOND), "{others:?}");
        let status = network
            .until("the pair in the status", |status| {
                status.worst_links.iter().take(2).all(|link| {
                    link.to != "mesh-2"
                        && link.from != "mesh-2"
                        && link.network_p99_micros.is_some_and(|p99| p99 >= 4_950)
                })
            })
            .await?;
        let said = status.worst_links.first().and_then(|link| link.breakdown.clone());
        note(&format!(
            "with 5 ms on the way between two pods: {}",
            said.unwrap_or_default()
        ));
        delay.mend().await
    });
}

#[test]
fn loss_one_way_has_its_direction() {
    testbed_scenario("the loss in one direction", "loss-one-way", async |scenario| {
        let spec = json!({"replicas": 2, "probe": {"interval": "200ms", "timeout": "1s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(2).await?;
        let [a, b] = network.addresses(["mesh-0", "mesh-1"]).await?;
        for (from, to) in [("mesh-0", "mesh-1"), ("mesh-1", "mesh-0")] {
            eventually("answers to STAMP", async || {
                let found = stamped(&network, from, to).await?;
                ensure(found.answered > 0, || format!("{found:?}"))
            })
            .await?;
        }
        // What was lost before, if anything, is no news.
        let before = losses(&network).await?;
        let loss = Fault::loss_one_way(&a, &b, 30, "udp").await?;
        eventually("enough losses", async || {
            let dropped = faults::dropped(&a, &b).await?;
            ensure(dropped >= 40, || format!("{dropped} dropped"))
        })
        .await?;
        let dropped = faults::dropped(&a, &b).await?;
        loss.mend().await?;
        // The next answers tell where the last ones got lost.
        let found = eventually("every loss to have its direction", async || {
            let now = losses(&network).await?;
            let found: Vec<u64> = now
                .iter()
                .zip(&before)
                .map(|(now, before)| now - before)
                .collect();
            // The counter is read a moment before the rule goes.
            ensure(found[0] + found[3] >= dropped, || {
                format!("{dropped} dropped, found {found:?}")
            })?;
            Ok(found)
        })
        .await?;
        note(&format!(
            "of {dropped} datagrams dropped from mesh-0 to mesh-1, mesh-0 found {} lost forward and mesh-1 {} lost backward",
            found[0], found[3]
        ));
        assert_eq!(
            (found[1], found[2]),
            (0, 0),
            "no loss in the other direction: {found:?}"
        );
        assert!(
            found[0] + found[3] <= dropped + 5,
            "{dropped} dropped, found {found:?}"
        );
        assert!(found[0] > 0 && found[3] > 0, "{found:?}");
        let row = network.row("mesh-0", "mesh-1").await?;
        assert_eq!(row.timed_out + row.failed, 0, "libp2p lost nothing: {row:?}");
        Ok(())
    });
}

#[test]
fn a_stopped_agent_leaves_no_number_behind() {
    testbed_scenario("the stopped agent", "stopped", async |scenario| {
        let spec = json!({"probe": {"interval": "200ms", "timeout": "1s", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(3).await?;
        network
            .until("the network's own time", |status| network_samples(status) > 100)
            .await?;
        let agents = agents_of(&format!("{}/mesh", scenario.namespace))?;
        let stopped = Stopped::process(*agents.get("mesh-0").ok_or("no process of mesh-0")?)?;
        let status = network
            .until("no number of or about the stopped agent", |status| {
                let row = status.nodes.iter().find(|node| node.name == "mesh-0");
                row.is_some_and(|row| row.report != ReportOutcome::Accepted && row.rtt_p99_micros.is_none())
                    && status
                        .worst_links
                        .iter()
                        .all(|link| link.from != "mesh-0" && link.to != "mesh-0")
                    && status.rtt.is_some()
            })
            .await?;
        // An agent that does not run is no slow network.
        assert!(
            status
                .network
                .as_ref()
                .is_some_and(|found| found.times.p99_micros < SLOW_NETWORK),
            "{}",
            yaml(&status)
        );
        // Past the window: all that it had measured has become old.
        sleep(Duration::from_secs(10)).await;
        drop(stopped);
        let after = eventually("the agent to go on", async || {
            Ok(network.report("mesh-0").await?.0)
        })
        .await?;
        for peer in &after.peers {
            // The time that it stood still is nobody's round trip.
            let longest = peer.rtt.max().max(peer.warm.max());
            assert!(longest <= Some(1_010 * MILLISECOND), "{peer:?}");
            let of_network = peer.network.as_ref().and_then(|found| found.rtt.max());
            assert!(of_network <= Some(1_010 * MILLISECOND), "{peer:?}");
            if let Some(age) = peer.newest_sample_age_millis {
                assert!(
                    peer.rtt.count() > 0,
                    "an age of {age} ms without a sample: {peer:?}"
                );
            }
        }
        let status = network.until_ready(3).await?;
        assert!(
            status
                .network
                .as_ref()
                .is_none_or(|found| found.times.p99_micros < SLOW_NETWORK),
            "{}",
            yaml(&status)
        );
        Ok(())
    });
}

#[test]
fn without_udp_the_network_is_unknown_and_the_rest_stands() {
    testbed_scenario("the test without UDP", "no-udp", async |scenario| {
        let spec = json!({"replicas": 2, "probe": {"interval": "200ms", "timeout": "1s", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(2).await?;
        let shows_network = |status: &PeerNetworkStatus| {
            status
                .columns
                .as_ref()
                .is_some_and(|columns| columns.net_p99.is_some())
        };
        network.until("the network's own time", shows_network).await?;
        let [a, b] = network.addresses(["mesh-0", "mesh-1"]).await?;
        let there = Fault::loss_one_way(&a, &b, 100, "udp").await?;
        let back = Fault::loss_one_way(&b, &a, 100, "udp").await?;
        let status = network
            .until("no network's time, and round trips all the same", |status| {
                !shows_network(status)
                    && status.network.is_none()
                    && status.rtt.is_some()
                    && status.loss_ppm == Some(0)
                    && is(status, READY, "True")
            })
            .await?;
        assert!(status.hosts.is_none(), "{}", yaml(&status));
        back.mend().await?;
        there.mend().await?;
        network
            .until("the network's own time again", shows_network)
            .await
            .map(drop)
    });
}

fn network_samples(status: &PeerNetworkStatus) -> i64 {
    status.network.as_ref().map_or(0, |found| found.times.samples)
}

async fn stamped(network: &Network, from: &str, to: &str) -> Outcome<NetworkReport> {
    let found = network.row(from, to).await?.network;
    Ok(found.ok_or_else(|| format!("{from} has no STAMP session with {to}"))?)
}

/// Lost forward and backward, by mesh-0 and by mesh-1.
async fn losses(network: &Network) -> Outcome<[u64; 4]> {
    let (first, second) = (
        stamped(network, "mesh-0", "mesh-1").await?,
        stamped(network, "mesh-1", "mesh-0").await?,
    );
    Ok([
        first.lost_forward,
        first.lost_backward,
        second.lost_forward,
        second.lost_backward,
    ])
}
