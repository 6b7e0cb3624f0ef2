//! The DHT of 3, 10 and 30 agents on loopback: how long a put, a get and a search for a peer take and how often they succeed,
//! how long one more agent needs, and when a provider that was killed is forgotten.

#![expect(clippy::indexing_slicing, reason = "a field that JSON does not have is null")]

use std::path::Path;

use peernet_e2e::{
    Outcome,
    waiting::{ensure, eventually_within},
};
use tokio::time::Instant;

use crate::{
    bare::{Agent, Bare, PATIENCE},
    table::row,
};

const NETWORKS: [usize; 3] = [3, 10, 30];
const ROUNDS: usize = 60;
/// Agents that each connects to by itself: in a large network, searches have a way to go.
const PEERS_PER_NODE: usize = 8;
/// Times that one more agent joins.
const JOINS: usize = 5;

pub(crate) async fn measure(program: &Path) -> Outcome<Vec<[String; 5]>> {
    let mut rows = Vec::new();
    for number in NETWORKS {
        let mut bare = Bare::new(program, &format!("bench/dht-{number}"))?;
        bare.variables = vec![
            ("PEERNET_PEERS_PER_NODE", PEERS_PER_NODE.to_string()),
            ("PEERNET_STAMP", "false".to_owned()),
        ];
        let agents = bare.start_all(number - 1, PEERS_PER_NODE.min(number - 2)).await?;
        let (joined, last) = joins(&bare, &agents, number - 1).await?;
        rows.push(row(
            &format!("{number} agents: start of one more to its first record"),
            &joined,
            "ms",
            "",
        ));
        let mut agents = agents;
        agents.push(last);
        rows.extend(records(&agents).await?);
        rows.extend(peers(&agents).await?);
        rows.push(provider(&mut agents).await?);
    }
    Ok(rows)
}

/// Starts an agent several times, each time until it finds what another one has put. The last one stays.
async fn joins(bare: &Bare<'_>, agents: &[Agent], number: usize) -> Outcome<(Vec<f64>, Agent)> {
    let first = agents.first().ok_or("no agent")?;
    let (code, stored) = first.ask("PUT", "/v1/records/before?quorum=all", b"x").await?;
    ensure(code == 200, || stored.to_string())?;
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        let agent = bare.start(number)?;
        eventually_within(PATIENCE, "a new agent to find a record", async || {
            let (code, got) = agent.ask("GET", "/v1/records/before", b"").await?;
            ensure(code == 200, || got.to_string())
        })
        .await?;
        took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        if took.len() == JOINS {
            return Ok((took, agent));
        }
    }
}

async fn records(agents: &[Agent]) -> Outcome<[[String; 5]; 3]> {
    let number = agents.len();
    let agent = |n: usize| agents.get(n % number).ok_or("no agent");
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        let path = format!("/v1/records/key-{n}");
        let begun = Instant::now();
        if agent(n)?.ask("PUT", &path, &[b'x'; 1024]).await?.0 == 200 {
            puts.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        // From two others at least, and not from the agent's own store alone.
        let path = format!("{path}?quorum=2");
        let begun = Instant::now();
        if agent(n * 7 + 1)?.ask("GET", &path, b"").await?.0 == 200 {
            gets.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    let share = |times: &[f64]| times.len() as f64 * 100.0 / ROUNDS as f64;
    let succeeded = [share(&puts), share(&gets)];
    Ok([
        row(
            &format!("{number} agents: put of 1 KiB, majority"),
            &puts,
            "ms",
            "",
        ),
        row(
            &format!("{number} agents: get of it, two copies"),
            &gets,
            "ms",
            "",
        ),
        row(
            &format!("{number} agents: puts and gets that succeeded"),
            &succeeded,
            "%",
            "",
        ),
    ])
}

/// Searches for each agent from each other that is not connected to it. In a network of three there is none.
async fn peers(agents: &[Agent]) -> Outcome<Vec<[String; 5]>> {
    let number = agents.len();
    let mut ids = Vec::new();
    for agent in agents {
        let found = agent.ask("GET", "/v1/peers", b"").await?.1;
        for peer in found["peers"].as_array().into_iter().flatten() {
            ids.extend(peer["peerId"].as_str().map(ToOwned::to_owned));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    let (mut asked, mut took) = (Vec::new(), Vec::new());
    for agent in agents {
        for id in &ids {
            let (code, found) = agent.ask("GET", &format!("/v1/peers/{id}"), b"").await?;
            if code == 200 && found["connected"] == false {
                asked.extend(found["asked"].as_f64());
                took.extend(found["tookMicros"].as_f64().map(|micros| micros / 1_000.0));
            }
        }
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![
        row(
            &format!("{number} agents: asked on the way to a peer not connected"),
            &asked,
            "",
            "",
        ),
        row(&format!("{number} agents: time for that"), &took, "ms", ""),
    ])
}

/// How long a provider that was killed is still found.
async fn provider(agents: &mut Vec<Agent>) -> Outcome<[String; 5]> {
    let number = agents.len();
    let last = agents.pop().ok_or("no agent")?;
    let first = agents.first().ok_or("no agent")?;
    let (code, advertised) = last.ask("PUT", "/v1/services/bench", b"").await?;
    ensure(code == 200, || advertised.to_string())?;
    let until = async |wanted: usize| {
        eventually_within(PATIENCE, format!("{wanted} providers"), async || {
            let found = first.ask("GET", "/v1/services/bench", b"").await?.1;
            let found = found["providers"].as_array().map_or(0, Vec::len);
            ensure(found == wanted, || format!("{found} providers"))
        })
        .await
    };
    until(1).await?;
    drop(last);
    let begun = Instant::now();
    until(0).await?;
    Ok(row(
        &format!("{number} agents: a killed provider was found for"),
        &[begun.elapsed().as_secs_f64()],
        "s",
        "120 s",
    ))
}
