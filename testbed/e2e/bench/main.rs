//! Measures what PeerNet promises, and prints tables: `make bench`. Nothing here passes or fails but by an error.
//!
//! Its argument says what: `cluster` (on the cluster), `dht PROGRAM` or `sizes FOLDER` (bare processes on loopback).

#![allow(clippy::print_stdout, reason = "the table is what this is for")]

mod bare;
mod dht;
mod sizes;
mod table;

use std::{collections::BTreeMap, path::Path, time::Duration};

use peernet_e2e::{
    Outcome,
    network::{Network, is_whole},
    processes, round_trip,
    scenario::{Scenario, scenario, tool_image},
    settings::SETTINGS,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::table::row;

const ROUNDS: usize = 5;
/// Agents' memory is read after so long at work: the window's samples are in, whatever its length does to them.
const SETTLING: Duration = Duration::from_secs(60);
const GIVE_UP: Duration = Duration::from_secs(180);

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["cluster"] => scenario("bench", on_cluster),
        ["dht", program] => table::print(&on_loopback(dht::measure(Path::new(program)))?),
        ["sizes", folder] => table::print(&on_loopback(sizes::measure(Path::new(folder)))?),
        _ => return Err("usage: bench cluster | dht PROGRAM | sizes FOLDER".into()),
    }
    Ok(())
}

fn on_loopback<T>(measurement: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measurement)
}

async fn on_cluster(scenario: &Scenario) -> Outcome {
    let mut rows = vec![apply_to_ready(scenario).await?];
    for (nodes, goal) in [(3, "under 16 MiB"), (21, "under 16 MiB")] {
        rows.extend(memory(scenario, nodes, goal).await?);
    }
    rows.extend(ratio(scenario).await?);
    rows.extend(private_network(scenario).await?);
    table::print(&rows);
    Ok(())
}

/// From `kubectl apply` to Ready with every column filled.
async fn apply_to_ready(scenario: &Scenario) -> Outcome<[String; 5]> {
    let mut seconds = Vec::new();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let network = Network::create(scenario, &format!("mesh-{round}"), json!({})).await?;
        while !network.status().await.is_ok_and(|status| is_whole(&status, 3)) {
            if begun.elapsed() > GIVE_UP {
                return Err("no network became Ready".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        seconds.push(begun.elapsed().as_secs_f64());
        network.delete().await?;
        gone(&network).await?;
    }
    Ok(row("apply to Ready, 3 nodes, all columns", &seconds, "s", "15 s"))
}

/// Memory of the agents at work, if their processes run on this machine.
async fn memory(scenario: &Scenario, nodes: i32, goal: &str) -> Outcome<Option<[String; 5]>> {
    if SETTINGS.testbed.is_none() {
        return Ok(None);
    }
    let name = format!("memory-{nodes}");
    let network = Network::create(scenario, &name, json!({"replicas": nodes})).await?;
    network.until_ready(nodes).await?;
    sleep(SETTLING).await;
    let memory: Vec<f64> = resident_kib(&format!("{}/{name}", scenario.namespace))?
        .into_values()
        .map(|kib| kib as f64 / 1024.0)
        .collect();
    network.delete().await?;
    gone(&network).await?;
    let what = format!("agent's memory (RSS) at {} peers", nodes - 1);
    Ok(Some(row(&what, &memory, "MiB", goal)))
}

/// Resident memory of a network's agents by their name, in KiB.
fn resident_kib(network: &str) -> Outcome<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for (name, id) in processes::agents_of(network)? {
        found.insert(name, processes::resident_kib(id)?);
    }
    Ok(found)
}

/// The agents' median over the median of raw TCP, for the same pair of pods at the same time.
async fn ratio(scenario: &Scenario) -> Outcome<Vec<[String; 5]>> {
    let Some(image) = tool_image("the comparison with raw TCP") else {
        return Ok(Vec::new());
    };
    let spec = json!({"replicas": 2, "probe": {"interval": "100ms", "window": "10s"}});
    let network = Network::create(scenario, "ratio", spec).await?;
    network.until_ready(2).await?;
    let comparisons = round_trip::compare(&network, "ratio-0", "ratio-1", &image, 5).await?;
    let of = |value: fn(&round_trip::Comparison) -> f64| comparisons.iter().map(value).collect::<Vec<_>>();
    Ok(vec![
        row(
            "agents' round trip, p50",
            &of(|found| found.agents as f64 / 1_000.0),
            "us",
            "",
        ),
        row(
            "raw TCP round trip on the same pair, p50",
            &of(|found| found.raw as f64 / 1_000.0),
            "us",
            "",
        ),
        row(
            "ratio of the two",
            &of(round_trip::Comparison::ratio),
            "",
            "under 3",
        ),
    ])
}

/// The agents' median with the key of a private network over the one without, for two pairs on the same two nodes at the
/// same time.
async fn private_network(scenario: &Scenario) -> Outcome<Vec<[String; 5]>> {
    let spec = |enabled: bool| {
        json!({
            "replicas": 2, "probe": {"interval": "100ms", "window": "10s"}, "privateNetwork": {"enabled": enabled},
        })
    };
    let plain = Network::create(scenario, "plain", spec(false)).await?;
    let private = Network::create(scenario, "private", spec(true)).await?;
    plain.until_ready(2).await?;
    private.until_ready(2).await?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sleep(Duration::from_secs(10)).await;
        let without = plain.row("plain-0", "plain-1").await?;
        let with = private.row("private-0", "private-1").await?;
        for (ratios, without, with) in [
            (&mut cold, without.rtt, with.rtt),
            (&mut warm, without.warm, with.warm),
        ] {
            let medians = without.quantile(500).zip(with.quantile(500));
            let (without, with) = medians.ok_or("the agents measured nothing")?;
            ratios.push(with as f64 / without as f64);
        }
    }
    Ok(vec![
        row("round trip with the key, over without", &cold, "", "under 1.2"),
        row("warm round trip with the key, over without", &warm, "", ""),
    ])
}

async fn gone(network: &Network) -> Outcome {
    let begun = Instant::now();
    while !network.pods().await?.is_empty() {
        if begun.elapsed() > GIVE_UP {
            return Err("the network's pods don't go".into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
