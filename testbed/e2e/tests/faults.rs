//! Bad days: power, links, packets, the API server and the operator fail, one at a time, and come back.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    ResourceExt,
    api::{ListParams, ObjectList},
};
use peernet_api::{
    report::Report,
    v1alpha1::conditions::{CONNECTED, READY, reason},
};
use peernet_e2e::{
    faults::Fault,
    history::History,
    network::{
        Network, address_of, condition, is, message, nodes_column, peers_column, report_directly, yaml,
    },
    note, operator,
    scenario::{scenario, testbed_scenario},
    waiting::{ensure, eventually},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

#[test]
fn a_node_without_power_is_named_and_returns() {
    testbed_scenario("the power cut", "power-cut", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"probe": {"window": "10s"}})).await?;
        let before = network.until_ready(3).await?;
        let peer_ids: BTreeMap<_, _> = before
            .nodes
            .iter()
            .map(|node| (&node.name, &node.peer_id))
            .collect();
        let operator_node = node_of(&operator::pod(&scenario.client).await?);
        let pods = network.pods().await?;
        let (lost, pod) = pods
            .iter()
            .find(|(_, pod)| node_of(pod) != operator_node)
            .ok_or("no other node")?;
        let node = node_of(pod).ok_or("not scheduled")?;
        let ip = address_of(pod)?;

        let fault = Fault::node_cut(&node).await?;
        let cut = Timestamp::now();
        let status = network
            .until("NODES, PEERS and Ready say that a node is lost", |status| {
                nodes_column(status) == "2/3"
                    && peers_column(status) == "1/2"
                    && is(status, READY, "False")
                    && message(status, READY).contains(&node)
            })
            .await?;
        let row = status.nodes.first().ok_or("no rows")?;
        assert_eq!(
            &row.name,
            lost,
            "the one in trouble comes first: {}",
            yaml(&status)
        );
        assert!(
            !row.ready && row.connected_peers.is_none() && row.rtt_p99_micros.is_none(),
            "{}",
            yaml(&status)
        );
        note(&format!(
            "a power cut was in NODES, PEERS and Ready after {:.1} s",
            seconds_since(cut)
        ));
        network.until_event("Warning", reason::NODES_NOT_READY).await?;
        // The rest is measured on: samples from well after the cut, and none from the lost one.
        let later = cut + Duration::from_secs(10);
        let status = network
            .until("fresh round trips of the rest", |status| {
                status
                    .last_sample_time
                    .as_ref()
                    .is_some_and(|time| time.0 > later)
                    && status.rtt.is_some()
                    && status
                        .worst_links
                        .iter()
                        .all(|link| &link.from != lost && &link.to != lost)
            })
            .await?;
        assert_eq!(
            (nodes_column(&status), peers_column(&status)),
            ("2/3", "1/2"),
            "{}",
            yaml(&status)
        );
        assert!(!is(&status, "Stalled", "True"), "{}", yaml(&status));

        let back = Instant::now();
        fault.mend().await?;
        let after = network.until_ready(3).await?;
        note(&format!(
            "Ready {:.1} s after the power's return began",
            back.elapsed().as_secs_f64()
        ));
        let peer_ids_after: BTreeMap<_, _> = after
            .nodes
            .iter()
            .map(|node| (&node.name, &node.peer_id))
            .collect();
        assert_eq!(
            peer_ids_after, peer_ids,
            "the same peer ids; {lost} had the address {ip}"
        );
        Ok(())
    });
}

#[test]
fn a_cut_between_two_pods_names_the_pair_and_heals() {
    testbed_scenario("the partition", "partition", async |scenario| {
        let network = Network::create(scenario, "mesh", json!({"probe": {"window": "10s"}})).await?;
        network.until_ready(3).await?;
        let lives = network.lives().await?;
        let [a, b] = network.addresses(["mesh-0", "mesh-1"]).await?;
        let fault = Fault::partition(&a, &b).await?;
        let status = network
            .until("the pair is named", |status| {
                let said = message(status, CONNECTED);
                is(status, CONNECTED, "False")
                    && said.contains("mesh-0 -> mesh-1")
                    && said.contains("mesh-1 -> mesh-0")
            })
            .await?;
        let ready = condition(&status, READY).ok_or("no condition")?;
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason::PEERS_MISSING),
            "{}",
            yaml(&status)
        );
        // The pods are well, so NODES says so; the one that both reach is connected to both.
        assert_eq!(
            (nodes_column(&status), peers_column(&status)),
            ("3/3", "1/2"),
            "{}",
            yaml(&status)
        );
        let connected: BTreeMap<_, _> = status
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.connected_peers))
            .collect();
        assert_eq!(
            connected,
            [("mesh-0", Some(1)), ("mesh-1", Some(1)), ("mesh-2", Some(2))].into(),
            "{}",
            yaml(&status)
        );
        let said = message(&status, CONNECTED);
        assert!(!said.contains("mesh-2"), "only the pair is named: {said}");
        network.until_event("Warning", reason::PEERS_MISSING).await?;
        fault.mend().await?;
        network.until_ready(3).await?;
        assert_eq!(network.lives().await?, lives, "no agent restarted");
        Ok(())
    });
}

#[test]
fn lost_packets_are_seen_as_loss_on_their_link() {
    testbed_scenario("the lost packets", "loss", async |scenario| {
        // A packet that is sent again comes after the timeout: TCP waits at least 200 ms for that.
        let spec = json!({"probe": {"interval": "200ms", "timeout": "100ms", "window": "10s"}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(3).await?;
        let [a, b] = network.addresses(["mesh-0", "mesh-1"]).await?;
        let fault = Fault::loss(&a, &b, 10).await?;
        eventually("loss between mesh-0 and mesh-1", async || {
            let lost = lost(&network.report("mesh-0").await?.0, "mesh-1");
            ensure(lost >= 6, || format!("{lost} lost"))
        })
        .await?;
        let status = network
            .until("loss in the status", |status| {
                status.loss_ppm.is_some_and(|ppm| ppm > 10_000)
            })
            .await?;
        let loss = status
            .columns
            .as_ref()
            .and_then(|columns| columns.loss.clone())
            .ok_or("no column")?;
        assert_ne!(loss, "0%");
        let reports = [
            network.report("mesh-0").await?.0,
            network.report("mesh-1").await?.0,
        ];
        let (bad, good) = (
            lost(&reports[0], "mesh-1") + lost(&reports[1], "mesh-0"),
            lost(&reports[0], "mesh-2") + lost(&reports[1], "mesh-2"),
        );
        note(&format!(
            "with 10 % of the packets lost between two of three agents: LOSS {loss}, {bad} probes on that link, {good} on the others"
        ));
        assert!(
            bad > 4 * good,
            "{bad} lost on the bad link, {good} on the good ones"
        );
        fault.mend().await?;
        network
            .until("loss to end", |status| {
                status.loss_ppm.is_some_and(|ppm| ppm < 5_000) && is(status, READY, "True")
            })
            .await?;
        Ok(())
    });
}

#[test]
fn agents_measure_on_while_the_api_server_is_away() {
    testbed_scenario("the outage of the API server", "api-outage", async |scenario| {
        let tolerations: serde_json::Value = serde_json::from_str(operator::PATIENT)?;
        let spec = json!({"probe": {"window": "10s"}, "podTemplate": {"tolerations": tolerations}});
        let network = Network::create(scenario, "mesh", spec).await?;
        network.until_ready(3).await?;
        let pods = network.pods().await?;
        let lives = network.lives().await?;
        let operator_before = operator::pod(&scenario.client).await?;

        let fault = Fault::stopped("kube-apiserver").await?;
        sleep(Duration::from_secs(30)).await;
        for (name, pod) in &pods {
            let report = report_directly(pod)
                .await
                .map_err(|failure| format!("{name}: {failure}"))?;
            assert_eq!(report.peers.len(), 2, "{name}");
            for peer in &report.peers {
                // All of the window's samples are of the time without an API server.
                assert!(peer.connected && peer.answered > 0, "{name}: {peer:?}");
                assert!(
                    peer.newest_sample_age_millis.is_some_and(|age| age < 5_000),
                    "{name}: {peer:?}"
                );
            }
        }
        fault.mend().await?;
        let returned = Timestamp::now();
        let begun = Instant::now();
        network
            .until("a status written after the API server's return", |status| {
                status
                    .last_sample_time
                    .as_ref()
                    .is_some_and(|time| time.0 >= returned)
                    || condition(status, READY).is_some_and(|ready| ready.last_transition_time.0 >= returned)
            })
            .await?;
        note(&format!(
            "status was written {:.1} s after the API server's return",
            begun.elapsed().as_secs_f64()
        ));
        network.until_ready(3).await?;
        assert_eq!(network.lives().await?, lives, "no agent restarted");
        let operator_now = operator::pod(&scenario.client).await?;
        assert_eq!(
            (operator_now.uid(), restarts(&operator_now)),
            (operator_before.uid(), restarts(&operator_before))
        );
        Ok(())
    });
}

#[test]
fn an_operator_killed_at_work_goes_on() {
    scenario("operator-killed", async |scenario| {
        let secrets = scenario.api::<Secret>();
        let mut made = BTreeMap::new();
        let mut networks = Vec::new();
        for n in 0..4 {
            networks.push(Network::create(scenario, &format!("mesh-{n}"), json!({"replicas": 2})).await?);
            if n % 2 == 1 {
                operator::kill(&scenario.client).await?;
                remember(&secrets.list(&ListParams::default()).await?, &mut made);
            }
        }
        for network in &networks {
            network.until_ready(2).await?;
        }
        remember(&secrets.list(&ListParams::default()).await?, &mut made);
        assert_eq!(made.len(), 4, "{made:?}");
        for (name, uids) in &made {
            assert_eq!(uids.len(), 1, "{name} was made more than once");
        }

        // Nothing that runs feels it, and nothing is told anew.
        let network = &networks[0];
        let lives = network.lives().await?;
        let history = History::of(network);
        let killed = Timestamp::now();
        operator::kill(&scenario.client).await?;
        network
            .until("a status by the next operator", |status| {
                status
                    .last_sample_time
                    .as_ref()
                    .is_some_and(|time| time.0 >= killed)
            })
            .await?;
        assert_eq!(network.lives().await?, lives);
        for status in history.seen() {
            assert!(is(&status, READY, "True"), "{}", yaml(&status));
        }
        Ok(())
    });
}

fn remember(secrets: &ObjectList<Secret>, into: &mut BTreeMap<String, BTreeSet<Option<String>>>) {
    for secret in secrets {
        into.entry(secret.name_any()).or_default().insert(secret.uid());
    }
}

fn lost(report: &Report, peer: &str) -> u64 {
    report
        .peers
        .iter()
        .filter(|found| found.name == peer)
        .map(|found| found.timed_out + found.failed)
        .sum()
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .map(|container| container.restart_count)
        .sum()
}

fn seconds_since(time: Timestamp) -> f64 {
    Timestamp::now().duration_since(time).as_secs_f64()
}
