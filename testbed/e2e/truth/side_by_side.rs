//! Other ways to measure the same pair of pods at the same time, beside the agents.

use std::time::Duration;

use peernet_e2e::{Outcome, truth::samples::Samples};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    numbers::Numbers,
    observation::Observation,
    place::Place,
    pods::kernel_tcp,
    programs,
    tables::{Table, ratio, time},
};

/// Where `yardstick` answers.
pub(crate) const PORT: &str = "7007";

/// What `yardstick` prints of its round trips.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Raw {
    #[serde(default)]
    pub(crate) p50_ns: Option<i64>,
    #[serde(default)]
    pub(crate) p99_ns: Option<i64>,
}

/// Ways to measure that take turns within one pace.
const WAYS: u32 = 5;

/// p50 and p99, in nanoseconds.
type Shown = (Option<i64>, Option<i64>);

/// What the other tools found.
#[derive(Debug)]
pub(crate) struct Tools {
    icmp: Shown,
    kernel: Shown,
    tcp: Shown,
    udp: Shown,
    http: Shown,
    http_close: Shown,
}

/// All of them in the same time, from the first place to the second, for so long. They run in the agents' own pods: in their
/// network namespace and with their share of CPU time. Each has the agents' pace and moments of its own: round trips that
/// begin together would find the CPUs awake that the first one woke, and each would be compared with another's.
pub(crate) async fn measure(places: &[Place; 2], span: Duration, pace: Duration) -> Outcome<Tools> {
    let [from, to] = places;
    let rounds = (span.as_millis() / pace.as_millis()) as u32;
    let address = to.ip.to_string();
    let (count, interval) = (rounds.to_string(), format!("{}", pace.as_secs_f64()));
    let ping = ["-n", "-c", &count, "-i", &interval, "-W", "2", &address];
    let in_turn = async |turn, kind| {
        sleep(pace * turn / WAYS).await;
        yardstick(from, to, kind, rounds, pace).await
    };
    let (icmp, tcp, udp, http, http_close) = tokio::try_join!(
        from.output("ping", &ping),
        in_turn(1, "tcp"),
        in_turn(2, "udp"),
        in_turn(3, "http"),
        in_turn(4, "http-close"),
    )?;
    let icmp = icmp_samples(&String::from_utf8(icmp)?);
    Ok(Tools {
        icmp: (icmp.percentile(50.0), icmp.percentile(99.0)),
        kernel: (kernel_tcp(from).await?, None),
        tcp: shown(tcp),
        udp: shown(udp),
        http: shown(http),
        http_close: shown(http_close),
    })
}

/// So many round trips of a kind, from one place to another where `yardstick` answers.
pub(crate) async fn yardstick(
    from: &Place,
    to: &Place,
    kind: &str,
    rounds: u32,
    pace: Duration,
) -> Outcome<Raw> {
    let program = programs::yardstick()?;
    let to = format!("{}:{PORT}", to.ip);
    let (rounds, pace) = (rounds.to_string(), pace.as_millis().to_string());
    let printed = from
        .output(&program.to_string_lossy(), &[kind, &to, &rounds, &pace])
        .await?;
    Ok(serde_json::from_slice(&printed)?)
}

fn shown(raw: Raw) -> Shown {
    (raw.p50_ns, raw.p99_ns)
}

/// The times that `ping` prints, each as `time=0.106 ms`.
fn icmp_samples(printed: &str) -> Samples {
    printed
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse::<f64>().ok())
        .map(|millis| (millis * 1e6) as i64)
        .collect()
}

/// Each way to measure as a ratio to what the capture says of the network.
pub(crate) fn table(situations: &[(&str, Observation, Tools)]) -> Table {
    let mut head = vec!["what".to_owned()];
    for (situation, ..) in situations {
        head.extend([format!("{situation}: p50 / p99"), "to the capture".to_owned()]);
    }
    head.push("goal".to_owned());
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(
        "Side by side, in the same two pods at the same time",
        "As a ratio to the network's round trip by the capture of the same minute, p50 / p99. Every tool runs in the agents' pods with \
         their share of CPU time, at the agents' pace and at moments of its own. *HTTP check* is a plain GET, answered 200 by a program without any framework: what goldpinger and \
         kubenurse time, at its cheapest.",
        &head,
    );
    if situations.is_empty() {
        return table;
    }
    type Pick = fn(&Observation, &Tools) -> Shown;
    let ways: [(&str, Pick); 10] = [
        ("capture: the network's round trip", |found, _| {
            let network = found.network();
            (network.percentile(50.0), network.percentile(99.0))
        }),
        ("**PeerNet: network** (NET)", |found, _| {
            of(&found.numbers.network)
        }),
        ("**PeerNet: warm** ping", |found, _| of(&found.numbers.warm)),
        ("**PeerNet: cold** ping (RTT)", |found, _| of(&found.numbers.cold)),
        ("ICMP ping", |_, tools| tools.icmp),
        (
            "kernel's estimate for the agents' TCP connection (`ss -ti`)",
            |_, tools| tools.kernel,
        ),
        ("raw UDP round trip", |_, tools| tools.udp),
        ("raw TCP round trip", |_, tools| tools.tcp),
        ("HTTP check, keep-alive", |_, tools| tools.http),
        ("HTTP check, a connection each", |_, tools| tools.http_close),
    ];
    for (number, (way, pick)) in ways.iter().enumerate() {
        let mut row = vec![(*way).to_owned()];
        for (_, found, tools) in situations {
            let capture = found.network();
            let (p50, p99) = pick(found, tools);
            row.push(format!("{} / {}", time(p50), time(p99)));
            let ratios = (
                ratio(p50, capture.percentile(50.0)),
                ratio(p99, capture.percentile(99.0)),
            );
            row.push(format!("{} / {}", ratios.0, ratios.1));
        }
        row.push(
            situations
                .first()
                .map_or_else(String::new, |(_, found, tools)| goal(number, found, tools)),
        );
        table.row(row);
    }
    table
}

/// The goals for a quiet pair, by the row's number.
fn goal(number: usize, found: &Observation, tools: &Tools) -> String {
    let (what, value, of_what, largest) = match number {
        1 => (
            "p50, capture",
            of(&found.numbers.network).0,
            found.network().percentile(50.0),
            1.1,
        ),
        2 => ("p50, raw TCP", of(&found.numbers.warm).0, tools.tcp.0, 1.0),
        3 => ("p50, raw TCP", of(&found.numbers.cold).0, tools.tcp.0, 2.0),
        _ => return String::new(),
    };
    let met =
        matches!((value, of_what), (Some(value), Some(of_what)) if value as f64 <= of_what as f64 * largest);
    let verdict = if met { "met" } else { "MISSED" };
    format!(
        "at most {largest:.1}x of {what}: {}, {verdict}",
        ratio(value, of_what)
    )
}

fn of(counts: &crate::numbers::Counts) -> Shown {
    (counts.percentile(50.0), counts.percentile(99.0))
}

/// What two agents count of the datagrams from the first to the second that a rule dropped.
pub(crate) fn loss_row(
    loss: &str,
    rule: &str,
    dropped: u64,
    first: &Numbers,
    second: &Numbers,
) -> Vec<String> {
    let counted = first.lost_forward + second.lost_backward;
    let wrong = first.lost_backward + second.lost_forward;
    let undirected = first.lost_undirected + second.lost_undirected;
    // A packet at the edge of the time may be dropped just before the rule's counter is read.
    let off = (counted + undirected).abs_diff(dropped);
    let goal = if off <= 1 && wrong == 0 {
        "met".to_owned()
    } else {
        format!("MISSED: {off} off, {wrong} wrong")
    };
    vec![
        loss.to_owned(),
        rule.to_owned(),
        first.lost_forward.to_string(),
        first.lost_backward.to_string(),
        second.lost_forward.to_string(),
        second.lost_backward.to_string(),
        undirected.to_string(),
        goal,
    ]
}
