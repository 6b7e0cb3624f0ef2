//! The status that a network should show, and whether it says something new. Pure: `now` is an argument.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peernet_api::{
    duration::display_micros,
    v1alpha1::{Columns, MAX_NODE_ROWS, NodeStatus, PeerNetworkStatus, PeersStatus, ReportOutcome},
};

use crate::{
    conditions::{self, Facts},
    measure::MemberMeasurements,
    pull::Pulled,
    roster::Member,
};

/// A status whose numbers moved only a little is written at most this often.
const REFRESH: Duration = Duration::from_secs(30);

/// Everything that a status is made of.
pub struct Input<'a> {
    /// Facts for the conditions: the roster, the reports and the measurements among them.
    pub facts: Facts<'a>,
    /// Label selector of the pods.
    pub selector: String,
    /// Image that the nodes are to run, if known.
    pub image: Option<String>,
    /// Generation of the spec that this is about.
    pub generation: Option<i64>,
    /// The status that stands.
    pub previous: &'a PeerNetworkStatus,
    /// The time.
    pub now: Timestamp,
}

/// Makes the status.
#[must_use]
pub fn compose(input: &Input<'_>) -> PeerNetworkStatus {
    let Input {
        facts, previous, now, ..
    } = input;
    let (roster, measured) = (facts.roster, facts.measured);
    let mut nodes: Vec<_> = roster
        .members
        .iter()
        .zip(facts.pulled)
        .zip(&measured.members)
        .map(|((member, pulled), measured)| node_row(member, pulled, measured.as_ref()))
        .collect();
    let ready = nodes.iter().filter(|node| node.ready).count();
    nodes.sort_by_key(|node| {
        let connected = node.connected_peers.unwrap_or(0);
        (
            node.ready,
            node.report == ReportOutcome::Accepted,
            connected,
            node.name.clone(),
        )
    });
    let omitted = nodes.len().saturating_sub(MAX_NODE_ROWS);
    nodes.truncate(MAX_NODE_ROWS);
    let peers = measured.fewest_connected.map(|fewest| PeersStatus {
        expected: count(measured.expected_peers),
        fewest_connected: count(fewest),
    });
    let columns = Columns {
        nodes: format!("{ready}/{}", roster.wanted),
        peers: peers.as_ref().map(|peers| {
            format!(
                "{}/{}",
                peers.fewest_connected.min(peers.expected),
                peers.expected
            )
        }),
        rtt_p50: measured.rtt.as_ref().map(|rtt| display(rtt.p50_micros)),
        rtt_p99: measured.rtt.as_ref().map(|rtt| display(rtt.p99_micros)),
        loss: measured.loss_ppm.map(display_loss),
        worst_link: measured
            .worst_links
            .first()
            .map(|link| format!("{} -> {} {}", link.from, link.to, display(link.rtt_p99_micros))),
        image: input.image.clone(),
    };
    PeerNetworkStatus {
        observed_generation: input.generation,
        conditions: conditions::all(facts, &previous.conditions, input.generation, *now),
        replicas: count(roster.existing),
        desired_replicas: count(roster.wanted),
        ready_replicas: count(ready),
        selector: Some(input.selector.clone()),
        peers,
        rtt: measured.rtt.clone(),
        loss_ppm: measured.loss_ppm,
        worst_links: measured.worst_links.clone(),
        nodes,
        nodes_omitted: (omitted > 0).then(|| count(omitted)),
        last_sample_time: measured
            .newest_sample_age
            .and_then(|age| now.checked_sub(age).ok())
            .map(whole_second),
        columns: Some(columns),
    }
}

/// Whether `next` is worth a write over `previous`: at once if anything but a number moved, or a number by more than a
/// tenth; else only now and then. Each write wakes everyone who watches the network.
#[must_use]
pub fn says_something_new(previous: &PeerNetworkStatus, next: &PeerNetworkStatus, now: Timestamp) -> bool {
    if without_numbers(previous) != without_numbers(next) || numbers_moved(previous, next) {
        return true;
    }
    let written = previous
        .last_sample_time
        .as_ref()
        .map_or(Timestamp::MIN, |time| time.0);
    previous != next && now.duration_since(written).unsigned_abs() >= REFRESH
}

fn without_numbers(status: &PeerNetworkStatus) -> PeerNetworkStatus {
    let mut status = status.clone();
    status.rtt = status.rtt.map(|_| Default::default());
    status.loss_ppm = status.loss_ppm.map(|_| 0);
    status.worst_links.clear();
    status.last_sample_time = status.last_sample_time.map(|_| Time(Timestamp::MIN));
    for node in &mut status.nodes {
        node.rtt_p99_micros = node.rtt_p99_micros.map(|_| 0);
    }
    if let Some(columns) = &mut status.columns {
        for text in [
            &mut columns.rtt_p50,
            &mut columns.rtt_p99,
            &mut columns.loss,
            &mut columns.worst_link,
        ] {
            *text = text.take().map(|_| String::new());
        }
    }
    status
}

fn numbers_moved(previous: &PeerNetworkStatus, next: &PeerNetworkStatus) -> bool {
    let moved = |before: i64, after: i64| before.abs_diff(after) * 10 > before.unsigned_abs().max(1);
    let rtt = previous
        .rtt
        .as_ref()
        .zip(next.rtt.as_ref())
        .is_some_and(|(before, after)| {
            moved(before.p50_micros, after.p50_micros) || moved(before.p99_micros, after.p99_micros)
        });
    let loss = previous
        .loss_ppm
        .zip(next.loss_ppm)
        .is_some_and(|(before, after)| moved(i64::from(before).max(1_000), i64::from(after).max(1_000)));
    rtt || loss
}

fn node_row(member: &Member, pulled: &Pulled, measured: Option<&MemberMeasurements>) -> NodeStatus {
    NodeStatus {
        name: member.name.clone(),
        pod: member.pod.as_ref().map(|pod| pod.name.clone()),
        node_name: member.pod.as_ref().and_then(|pod| pod.node_name.clone()),
        peer_id: member.peer_id.clone(),
        ready: member.pod.as_ref().is_some_and(|pod| pod.ready),
        report: pulled.as_ref().err().copied().unwrap_or(ReportOutcome::Accepted),
        connected_peers: measured.map(|measured| count(measured.connected)),
        rtt_p99_micros: measured.and_then(|measured| measured.rtt_p99_micros),
    }
}

fn display(micros: i64) -> String {
    display_micros(micros.unsigned_abs())
}

/// Loss in percent with two significant digits. A little loss is never shown as none.
fn display_loss(ppm: i32) -> String {
    match ppm {
        0 => "0%".to_owned(),
        1..100 => "<0.01%".to_owned(),
        100..10_000 => format!("{}.{:02}%", ppm / 10_000, ppm % 10_000 / 100),
        10_000..100_000 => format!("{}.{}%", ppm / 10_000, ppm % 10_000 / 1_000),
        _ => format!("{}%", ppm / 10_000),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn whole_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests;
