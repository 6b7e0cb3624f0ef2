//! The network's conditions: an ordered chain of checks, of which the first that fails is what the condition says. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use peernet_api::v1alpha1::{
    ReportOutcome, Workload,
    conditions::{CONNECTED, READY, RECONCILING, STALLED, reason},
};

use crate::{decide::Stall, measure::Measurements, pull::Pulled, roster::Roster};

/// Most members that a message names.
const MAX_NAMED: usize = 3;
/// Longest message, in characters. Kubernetes allows 32,768; people read less.
const MAX_MESSAGE: usize = 1024;

/// What the conditions are judged from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Why the operator can't go on, if so.
    pub stall: Option<&'a Stall>,
    /// Whether what the spec asks for is there: the workload applied, and every pod in its newest form.
    pub settled: bool,
    /// Who should be there.
    pub roster: &'a Roster,
    /// What became of each member's report, in the roster's order.
    pub pulled: &'a [Pulled],
    /// What they measured.
    pub measured: &'a Measurements,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    True,
    False,
    Unknown,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

type Finding = (Verdict, &'static str, String);

/// All four conditions. A condition whose status stays the same keeps its time of transition.
#[must_use]
pub fn all(
    facts: &Facts<'_>,
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    [
        (READY, ready(facts)),
        (CONNECTED, connected(facts)),
        (RECONCILING, reconciling(facts)),
        (STALLED, stalled(facts)),
    ]
    .into_iter()
    .map(|(type_, (verdict, reason, message))| {
        let status = verdict.text().to_owned();
        let since = previous
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status)
            .map_or(Time(now), |condition| condition.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            observed_generation: generation,
            last_transition_time: since,
        }
    })
    .collect()
}

/// Whether a condition has this status.
#[must_use]
pub fn is(conditions: &[Condition], type_: &str, status: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == type_ && condition.status == status)
}

fn ready(facts: &Facts<'_>) -> Finding {
    if let Some(stall) = facts.stall {
        return (Verdict::False, stall.reason, stall.message.clone());
    }
    let roster = facts.roster;
    if roster.wanted == 0 {
        return match (facts.settled, roster.kind) {
            (false, _) if roster.existing == 0 => (
                Verdict::False,
                reason::ROLLING_OUT,
                "objects are being created".to_owned(),
            ),
            (false, _) => (
                Verdict::False,
                reason::ROLLING_OUT,
                format!("{} pods are still stopping", roster.existing),
            ),
            (true, Workload::StatefulSet) => (
                Verdict::True,
                reason::SCALED_TO_ZERO,
                "the network is scaled to no nodes".to_owned(),
            ),
            (true, Workload::DaemonSet) => {
                let message = "no node of the cluster fits the pod template's node selector and tolerations";
                (Verdict::False, reason::NODES_NOT_READY, message.to_owned())
            }
        };
    }
    not_ready_nodes(roster)
        .or_else(|| missing_reports(facts))
        .or_else(|| missing_peers(facts))
        .or_else(|| missing_samples(facts))
        .or_else(|| {
            (!facts.settled).then(|| {
                (
                    Verdict::False,
                    reason::ROLLING_OUT,
                    "pods are being created or replaced".to_owned(),
                )
            })
        })
        .unwrap_or_else(|| {
            let message = format!(
                "all {} nodes are ready, report and are connected{}",
                roster.wanted,
                missing_transports(facts)
            );
            (Verdict::True, reason::ALL_NODES_CONNECTED, message)
        })
}

fn not_ready_nodes(roster: &Roster) -> Option<Finding> {
    let ready = roster
        .members
        .iter()
        .filter(|member| member.pod.as_ref().is_some_and(|pod| pod.ready))
        .count();
    if ready == roster.wanted {
        return None;
    }
    let troubled = roster
        .members
        .iter()
        .filter(|member| !member.pod.as_ref().is_some_and(|pod| pod.ready));
    let named = named(troubled.map(|member| match &member.pod {
        None => format!("{} has no pod yet", member.name),
        Some(pod) => {
            let place = pod
                .node_name
                .as_ref()
                .map(|node| format!(" on node {node}"))
                .unwrap_or_default();
            let state = if pod.terminating {
                "is stopping"
            } else {
                "is not ready"
            };
            let problem = pod
                .problem
                .as_ref()
                .map(|problem| format!(" ({problem})"))
                .unwrap_or_default();
            format!("pod {}{place} {state}{problem}", pod.name)
        }
    }));
    let ports_taken = roster.members.iter().any(|member| {
        let pod = member.pod.as_ref();
        pod.is_some_and(|pod| pod.ports_taken && !pod.ready)
    });
    let missing = roster.wanted.saturating_sub(roster.members.len());
    let detail = match (named.is_empty(), missing) {
        (true, missing) => format!("{missing} nodes have no pod yet"),
        (false, 0) => named,
        (false, missing) => format!("{named}, {missing} nodes have no pod yet"),
    };
    let message = format!("{ready} of {} nodes are ready: {detail}", roster.wanted);
    Some(if ports_taken {
        let cure = "free the ports, or choose others by spec.hostPortBase";
        (Verdict::False, reason::PORTS_TAKEN, format!("{message}; {cure}"))
    } else {
        (Verdict::False, reason::NODES_NOT_READY, message)
    })
}

fn missing_reports(facts: &Facts<'_>) -> Option<Finding> {
    let missing: Vec<_> = facts
        .roster
        .members
        .iter()
        .zip(facts.pulled)
        .filter_map(|(member, pulled)| Some((member, pulled.as_ref().err()?)))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let named = named(missing.iter().map(|(member, outcome)| {
        let place = member.pod.as_ref().and_then(|pod| pod.node_name.as_ref());
        let place = place.map(|node| format!(" on node {node}")).unwrap_or_default();
        format!("{}{place}: {}", member.name, explain(**outcome))
    }));
    let message = format!(
        "{} of {} nodes gave no report: {named}",
        missing.len(),
        facts.roster.wanted
    );
    Some((Verdict::False, reason::REPORTS_MISSING, message))
}

fn missing_peers(facts: &Facts<'_>) -> Option<Finding> {
    let measured = facts.measured;
    let fewest = measured.fewest_connected?;
    if fewest >= measured.expected_peers {
        return None;
    }
    let links = measured
        .missing_links
        .iter()
        .map(|(from, to)| format!("{from} -> {to}"));
    let mut message = format!(
        "a node is connected to {fewest} of {} peers",
        measured.expected_peers
    );
    if measured.missing_links_total > 0 {
        let more = measured
            .missing_links_total
            .saturating_sub(measured.missing_links.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        message = format!(
            "{message}; not connected: {}{more}",
            links.collect::<Vec<_>>().join(", ")
        );
    }
    Some((Verdict::False, reason::PEERS_MISSING, message))
}

fn missing_samples(facts: &Facts<'_>) -> Option<Finding> {
    (facts.measured.expected_peers > 0 && !facts.measured.has_round_trips()).then(|| {
        let message = "the nodes are connected, and no round trip was measured lately".to_owned();
        (Verdict::Unknown, reason::AWAITING_SAMPLES, message)
    })
}

/// What transports don't connect of what they should. Nodes that are connected over one transport are connected: this is
/// for the message alone.
fn missing_transports(facts: &Facts<'_>) -> String {
    let missing: Vec<String> = facts
        .measured
        .transports
        .iter()
        .filter(|over| over.connected < over.expected)
        .map(|over| {
            format!(
                "{} connects {} of {} links",
                over.transport, over.connected, over.expected
            )
        })
        .collect();
    if missing.is_empty() {
        return String::new();
    }
    format!("; {}", missing.join(", "))
}

fn connected(facts: &Facts<'_>) -> Finding {
    if facts.measured.fewest_connected.is_none() {
        return (
            Verdict::Unknown,
            reason::NO_REPORTS,
            "no node's report is at hand".to_owned(),
        );
    }
    missing_peers(facts).unwrap_or_else(|| {
        let message = format!(
            "every reporting node is connected to {} peers{}",
            facts.measured.expected_peers,
            relayed_pairs(facts) + &missing_transports(facts)
        );
        (Verdict::True, reason::FULLY_CONNECTED, message)
    })
}

fn reconciling(facts: &Facts<'_>) -> Finding {
    // Never true together with Stalled: kstatus takes the first that it meets.
    if facts.settled || facts.stall.is_some() {
        (
            Verdict::False,
            reason::UP_TO_DATE,
            "nothing is being changed".to_owned(),
        )
    } else {
        (
            Verdict::True,
            reason::ROLLING_OUT,
            "objects are being changed or pods replaced".to_owned(),
        )
    }
}

fn stalled(facts: &Facts<'_>) -> Finding {
    match facts.stall {
        Some(stall) => (Verdict::True, stall.reason, stall.message.clone()),
        None => (
            Verdict::False,
            reason::NOT_STALLED,
            "nothing hinders the operator".to_owned(),
        ),
    }
}

/// The pairs that are connected through relays alone, if there are any. Not by their round trips: the message must not change
/// with them.
fn relayed_pairs(facts: &Facts<'_>) -> String {
    let paths = &facts.measured.paths;
    if paths.relayed == 0 {
        return String::new();
    }
    let mut pairs: Vec<_> = paths
        .pairs
        .iter()
        .map(|pair| match &pair.relay {
            Some(relay) => format!("{} <-> {} (through {relay})", pair.from, pair.to),
            None => format!("{} <-> {}", pair.from, pair.to),
        })
        .collect();
    let noun = if paths.relayed == 1 { "pair" } else { "pairs" };
    if paths.relayed > MAX_NAMED {
        // Which of many are named would change with their round trips.
        return format!(", {} {noun} through relays alone", paths.relayed);
    }
    pairs.sort_unstable();
    format!(
        ", {} {noun} through relays alone: {}",
        paths.relayed,
        pairs.join(", ")
    )
}

/// What an outcome means, for people.
fn explain(outcome: ReportOutcome) -> &'static str {
    match outcome {
        ReportOutcome::NotAsked => "its pod has no address",
        ReportOutcome::Accepted => "accepted",
        ReportOutcome::Unreachable => "it can't be reached",
        ReportOutcome::TimedOut => "no answer in time",
        ReportOutcome::TooLarge => "its report is too large",
        ReportOutcome::Undecodable => "its report can't be decoded",
        ReportOutcome::WrongSignature => "its report's signature is wrong",
        ReportOutcome::WrongPeer => "its report is another peer's",
        ReportOutcome::Stale => "its report is old, or its agent has stopped measuring",
    }
}

fn named(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<_> = texts.collect();
    let more = texts.len().saturating_sub(MAX_NAMED);
    let mut text = texts.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
