//! What is measured between two bare network namespaces.

use std::time::Duration;

use peernet_e2e::{
    Outcome,
    truth::{
        held::{self, Holds},
        samples::Samples,
    },
};
use tokio::time::sleep;

use crate::{
    Selection,
    bare::{self, Agent, Busy, Delay, Lab},
    cost,
    numbers::Numbers,
    observation::{Observation, network_row, network_table, sample_row, sample_table, wall_clock},
    side_by_side, stepped_clock,
    tables::{Table, time, within},
};

/// A fast pace, to have many samples: ten times what a pod's agent may have.
const PACE: Duration = Duration::from_millis(20);
const WHILE: Duration = Duration::from_secs(20);
const DELAYED: Duration = Duration::from_secs(6);
/// The fastest pace, for few losses among many probes.
const LOSS_PACE: Duration = Duration::from_millis(10);
const LOSS_TIMEOUT: &str = "1s";
/// A held packet comes to the router so soon after it left, unless the machine is in trouble.
const TO_THE_ROUTER: i64 = 400_000;

pub(crate) async fn run(selection: &Selection) -> Outcome<Vec<Table>> {
    bare::possible()?;
    let lab = Lab::build().await?;
    let mut tables = Vec::new();
    let mut network = network_table("Network, in two bare network namespaces");
    let mut samples = sample_table();
    for loops in [0, 2, 4, 8] {
        let wanted = if loops == 0 { "quiet" } else { "busy" };
        if selection.has(wanted) {
            let agents = lab.agents(PACE, &[]).await?;
            let busy = Busy::loops(&lab.router, loops)?;
            let found = observe(&lab, &agents, WHILE).await?;
            let situation = if loops == 0 {
                "quiet".to_owned()
            } else {
                format!("{loops} busy loops")
            };
            network.row(network_row(&situation, &found));
            samples.row(sample_row(&situation, &found));
            if loops == 0 {
                // What a capture does with a leaving packet lies between its stamp and the packet's departure.
                let file = |end: &str| lab.folder.join(format!("second-{end}.pcap"));
                let second = (lab.a.capture(file("a")).await?, lab.b.capture(file("b")).await?);
                let found = observe(&lab, &agents, WHILE).await?;
                network.row(network_row("quiet, captured twice", &found));
                second.0.end().await?;
                second.1.end().await?;
            }
            drop(busy);
        }
    }
    tables.extend([network, samples]);
    if selection.has("delay") {
        tables.push(delays(&lab).await?);
    }
    if selection.has("loss") {
        tables.push(losses(&lab).await?);
    }
    if selection.has("clock") {
        tables.push(stepped_clock::run(&lab).await?);
    }
    if selection.has("cost") {
        tables.extend(cost::run(&lab).await?);
    }
    tables.retain(|table| !table.is_empty());
    Ok(tables)
}

/// Both agents over a while, with captures of both ends.
pub(crate) async fn observe(lab: &Lab, agents: &[Agent; 2], span: Duration) -> Outcome<Observation> {
    let [a, b] = agents;
    let file = |end: &str| lab.folder.join(format!("{end}.pcap"));
    let (at_a, at_b) = (
        a.place.capture(file("a")).await?,
        b.place.capture(file("b")).await?,
    );
    let begun = wall_clock()?;
    let before = [a.report().await?, b.report().await?];
    sleep(span).await;
    let after = [a.report().await?, b.report().await?];
    let ended = wall_clock()?;
    // The last replies' departures are told with the next ones.
    sleep(Duration::from_millis(500)).await;
    let packets = [at_a.end().await?, at_b.end().await?];
    let mut found = Observation::default();
    let [packets_a, packets_b] = &packets;
    found.add_captures([(a.place.ip, packets_a), (b.place.ip, packets_b)], (begun, ended));
    let [before_a, before_b] = &before;
    let [after_a, after_b] = &after;
    found.numbers.add(before_a, after_a, &b.name)?;
    found.numbers.add(before_b, after_b, &a.name)?;
    for agent in agents {
        let traces = agent.traces()?;
        let during = traces
            .into_iter()
            .filter(|trace| (begun..=ended).contains(&trace.t1));
        found.traces.extend(during.map(|trace| (agent.place.ip, trace)));
    }
    Ok(found)
}

/// The network's round trip less its round trip without delay, beside what the delaying program says it held.
async fn delays(lab: &Lab) -> Outcome<Table> {
    let mut table = Table::new(
        "Delay on the way, in two bare network namespaces",
        "p50 / p99. *Held* is what the delaying program says it held the packets of a round trip, *recovered* the network's round \
         trip less its median without delay; both probe by probe. Goal: the median and the 99th percentile of the difference within \
         max(2 %, 20 us) of the delay held.",
        &["delay", "probes", "held", "recovered", "difference", "goal"],
    );
    let agents = lab.agents(PACE, &[]).await?;
    let found = observe(lab, &agents, DELAYED).await?;
    let network: Samples = found.traces.iter().map(|(_, trace)| trace.network_ns).collect();
    let baseline = network.percentile(50.0).ok_or("no samples without delay")?;
    for millis in [1, 5, 25] {
        for jitter in [0, millis] {
            for both in [false, true] {
                let there = Delay::begin(lab, &lab.a, &lab.b, millis, jitter).await?;
                let back = if both {
                    Some(Delay::begin(lab, &lab.b, &lab.a, millis, jitter).await?)
                } else {
                    None
                };
                let found = observe(lab, &agents, DELAYED).await?;
                let mut log = held::read(&there.held()?)?;
                if let Some(back) = &back {
                    log.extend(held::read(&back.held()?)?);
                }
                bare::clear(lab).await?;
                table.row(delay_row(lab, (millis, jitter, both), &found, &log, baseline));
            }
        }
    }
    Ok(table)
}

fn delay_row(
    lab: &Lab,
    (millis, jitter, both): (u32, u32, bool),
    found: &Observation,
    log: &[held::Held],
    baseline: i64,
) -> Vec<String> {
    let there = Holds::datagrams(log, lab.a.ip, lab.b.ip);
    let back = Holds::datagrams(log, lab.b.ip, lab.a.ip);
    let mut pairs = Vec::new();
    for (ip, trace) in &found.traces {
        let (out, home) = if *ip == lab.a.ip {
            (&there, &back)
        } else {
            (&back, &there)
        };
        let hold = |holds: &Holds, left: i64| {
            holds
                .between(left - 2_000, left + TO_THE_ROUTER)
                .map(|held| held.held)
        };
        // One way, there is one hold a round trip; both ways, two.
        let holds = [hold(out, trace.t1), hold(home, trace.t3)];
        let known: Vec<i64> = holds.into_iter().flatten().collect();
        if known.len() == 1 + usize::from(both) {
            pairs.push((known.iter().sum::<i64>(), trace.network_ns - baseline));
        }
    }
    let held: Samples = pairs.iter().map(|pair| pair.0).collect();
    let recovered: Samples = pairs.iter().map(|pair| pair.1).collect();
    let off: Samples = pairs.iter().map(|pair| pair.1 - pair.0).collect();
    let show = |of: &Samples| format!("{} / {}", time(of.percentile(50.0)), time(of.percentile(99.0)));
    let largest = held.percentile(50.0).unwrap_or_default() / 50;
    let goals = [50.0, 99.0].map(|at| within(off.percentile(at), Some(0), |_| largest.max(20_000)));
    let way = if both { "both ways" } else { "one way" };
    let jitter = if jitter == 0 {
        String::new()
    } else {
        format!(" + 0-{jitter} ms")
    };
    vec![
        format!("{millis} ms{jitter}, {way}"),
        format!("{} of {}", pairs.len(), found.traces.len()),
        show(&held),
        show(&recovered),
        show(&off),
        goals.join(" / "),
    ]
}

/// Loss by direction, beside the counters of the rule that drops the packets.
async fn losses(lab: &Lab) -> Outcome<Table> {
    let mut table = Table::new(
        "Loss by direction, in two bare network namespaces",
        "Datagrams of one end are dropped at random by a rule in the router, whose own counters are the truth: they are that end's \
         requests and its replies, so it must find its probes lost forward, and the other one its own lost backward. Goal: what \
         the agents count is what the rule counts, and no probe is given the wrong direction.",
        &[
            "loss",
            "the rule: dropped of seen",
            "its own: forward",
            "its own: backward",
            "the other's: forward",
            "the other's: backward",
            "not known where",
            "goal",
        ],
    );
    let [a, b] = &lab
        .agents(LOSS_PACE, &[("PEERNET_PROBE_TIMEOUT", LOSS_TIMEOUT)])
        .await?;
    for (percent, seconds) in [(0.1, 45), (1.0, 20), (5.0, 10), (30.0, 10)] {
        for (from, to) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
            let before = [a.report().await?, b.report().await?];
            bare::lose(lab, from, to, percent).await?;
            sleep(Duration::from_secs(seconds)).await;
            let (all, dropped) = bare::lost(lab).await?;
            bare::clear(lab).await?;
            // What is lost is known after the timeout, and its direction with the next answer.
            sleep(Duration::from_secs(2)).await;
            let after = [a.report().await?, b.report().await?];
            let (mut of_a, mut of_b) = (Numbers::default(), Numbers::default());
            let ([before_a, before_b], [after_a, after_b]) = (&before, &after);
            of_a.add(before_a, after_a, &b.name)?;
            of_b.add(before_b, after_b, &a.name)?;
            let a_to_b = from.ip == lab.a.ip;
            let way = if a_to_b { "a to b" } else { "b to a" };
            let (sender, other) = if a_to_b { (&of_a, &of_b) } else { (&of_b, &of_a) };
            let rule = format!("{dropped} of {all}");
            table.row(side_by_side::loss_row(
                &format!("{percent} % {way}"),
                &rule,
                dropped,
                sender,
                other,
            ));
        }
    }
    Ok(table)
}
