//! What measuring costs: CPU time and bytes of a probe, memory by the number of peers.

use std::{net::Ipv4Addr, time::Duration};

use peernet_e2e::{
    Outcome,
    processes::resident_kib,
    waiting::{ensure, eventually_within},
};
use tokio::time::sleep;

use crate::{
    bare::{Agent, Lab},
    bare_scenarios::observe,
    place::cpu_nanos,
    programs,
    side_by_side::PORT,
    tables::{Table, ratio, time},
};

const PACE: Duration = Duration::from_millis(20);
const WHILE: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 500;
/// Peers that a network of so many nodes less one has.
const PEERS: [usize; 3] = [2, 50, 200];
const SLOW: Duration = Duration::from_millis(500);
const SETTLING: Duration = Duration::from_secs(45);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(lab: &Lab) -> Outcome<Vec<Table>> {
    Ok(vec![of_probes(lab).await?, memory(lab).await?])
}

async fn of_probes(lab: &Lab) -> Outcome<Table> {
    let mut table = Table::new(
        "Cost of a probe, in two bare network namespaces",
        "CPU time of both ends together, all threads, beside a program in C that makes the same round trips with the same system calls and \
         does nothing else (testbed/e2e/truth/bare-probe.c); bytes on the wire in both directions, headers from Ethernet's on and \
         acknowledgements included. A pace of 20 ms; what an agent uses at a pace of 10 s is taken off.",
        &["what", "CPU time", "the bare program's", "ratio", "bytes"],
    );
    let idle = {
        let agents = lab
            .agents(
                PACE,
                &[
                    ("PEERNET_PROBE_INTERVAL", "10s"),
                    ("PEERNET_STAMP", "false"),
                    ("RUST_LOG", "warn"),
                ],
            )
            .await?;
        let before = cpu_of(&agents)?;
        sleep(WHILE).await;
        (cpu_of(&agents)? - before) as f64 / WHILE.as_secs_f64()
    };
    for (what, burst, stamp) in [
        ("a ping alone (burst of 1, STAMP off)", "1", "false"),
        ("a burst of 5 pings, STAMP off", "5", "false"),
        ("a whole probe: a burst of 5 pings and STAMP", "5", "true"),
    ] {
        let further = [
            ("PEERNET_PROBE_BURST", burst),
            ("PEERNET_STAMP", stamp),
            ("RUST_LOG", "warn"),
        ];
        let agents = lab.agents(PACE, &further).await?;
        let before = cpu_of(&agents)?;
        let begun = std::time::Instant::now();
        let found = observe(lab, &agents, WHILE).await?;
        let used = (cpu_of(&agents)? - before) as f64 - idle * begun.elapsed().as_secs_f64();
        let probes = found.numbers.probes.max(1);
        // The capture began and ended a little around the probes that were counted.
        let share = begun.elapsed().as_secs_f64() / WHILE.as_secs_f64();
        let per_probe = used / share / probes as f64;
        drop(agents);
        let bare = bare_probe(lab, burst, stamp).await?;
        table.row(vec![
            what.to_owned(),
            time(Some(per_probe as i64)),
            time(Some(bare)),
            ratio(Some(per_probe as i64), Some(bare)),
            format!(
                "{} TCP, {} UDP",
                found.tcp_bytes as u64 / probes,
                found.udp_bytes as u64 / probes
            ),
        ]);
    }
    Ok(table)
}

/// CPU time of both ends for one round of the bare program.
async fn bare_probe(lab: &Lab, burst: &str, stamp: &str) -> Outcome<i64> {
    let program = programs::bare_probe()?;
    let server = lab
        .b
        .start(&program, &["serve", PORT], &lab.folder.join("bare-probe.log"))?;
    let id = server.id().ok_or("the server ended")?;
    // Until it listens.
    sleep(Duration::from_millis(300)).await;
    let (to, rounds) = (lab.b.ip.to_string(), ROUNDS.to_string());
    let (pace, stamp) = (
        PACE.as_millis().to_string(),
        if stamp == "true" { "1" } else { "0" },
    );
    let mut asking = lab
        .a
        .command(&program, &["ask", &to, PORT, &rounds, &pace, burst, stamp]);
    let asking = asking.stdout(std::process::Stdio::piped()).spawn()?;
    // It ends when the asking program does; its time is read just before.
    let mut answered = 0;
    let asked = asking.wait_with_output();
    tokio::pin!(asked);
    let output = loop {
        tokio::select! {
            output = &mut asked => break output?,
            () = sleep(Duration::from_millis(20)) => answered = cpu_nanos(id).unwrap_or(answered),
        }
    };
    ensure(output.status.success(), || "bare-probe failed".to_owned())?;
    let used = String::from_utf8(output.stdout)?.trim().parse::<u64>()? + answered;
    Ok(i64::try_from(used)? / i64::from(ROUNDS))
}

fn cpu_of(agents: &[Agent; 2]) -> Outcome<u64> {
    let [a, b] = agents;
    Ok(cpu_nanos(a.id()?)? + cpu_nanos(b.id()?)?)
}

/// One agent with many peers, which know nobody but that one: its memory is that of an agent in a full mesh.
async fn memory(lab: &Lab) -> Outcome<Table> {
    let mut table = Table::new(
        "Memory of an agent by its peers",
        "Resident memory of the one agent that all the others are connected to, in one namespace, after 45 s of a burst of 5 and a STAMP \
         probe to each peer every 500 ms.",
        &["peers", "memory"],
    );
    lab.a.output("sh", &["-c", "ip link set lo up"]).await?;
    for peers in PEERS {
        let at = |number: usize| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number as u32);
        let agent = |number: usize, seeds: &[Ipv4Addr]| {
            let mut place = lab.a.clone();
            place.ip = at(number);
            // HTTP is served on all addresses.
            let http_port = (8_080 + number).to_string();
            let further = [
                ("RUST_LOG", "warn"),
                ("PEERNET_HTTP_PORT", http_port.as_str()),
                ("PEERNET_PROBE_WINDOW", "5m"),
                ("PEERNET_PEERS_PER_NODE", "500"),
            ];
            lab.agent(&place, &format!("star-{number}"), seeds, SLOW, &further)
        };
        let hub = agent(0, &[])?;
        let leaves: Vec<Agent> = (1..=peers)
            .map(|number| agent(number, &[at(0)]))
            .collect::<Outcome<_>>()?;
        eventually_within(PATIENCE, format!("{peers} peers"), async || {
            let report = hub.report().await?;
            let measured = report.peers.iter().filter(|row| row.answered > 0).count();
            ensure(measured == peers, || {
                format!("{measured} of {peers} peers measured")
            })
        })
        .await?;
        sleep(SETTLING).await;
        let kib = resident_kib(hub.id()?)?;
        table.row(vec![peers.to_string(), format!("{:.1} MiB", kib as f64 / 1024.0)]);
        drop(leaves);
    }
    Ok(table)
}
