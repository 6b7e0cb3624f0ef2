//! Events: what is told once, when a condition changes. Choosing them is pure.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::events::{Event, EventType, Recorder};
use peernet_api::v1alpha1::conditions::{CONNECTED, READY, RECONCILING, STALLED};

use crate::{api_call::namespace_is_ending, conditions::is};

/// Longest note of an event that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;

/// A change that is worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whether somebody should look.
    pub warning: bool,
    /// The condition's reason.
    pub reason: String,
    /// What the condition says.
    pub note: String,
}

/// What changed from `before` to `after`. A network's first look at itself is no change. `was_whole` is whether it was
/// Ready once: until then nodes and peers are missing because they are still to come.
#[must_use]
pub fn transitions(before: &[Condition], after: &[Condition], was_whole: bool) -> Vec<Transition> {
    let find =
        |list: &[Condition], type_: &str| list.iter().find(|condition| condition.type_ == type_).cloned();
    // While a rollout goes on, nodes come and go: that is expected, and told without alarm.
    let expected = is(after, RECONCILING, "True") || !(was_whole || is(after, STALLED, "True"));
    let mut transitions = Vec::new();
    for type_ in [READY, CONNECTED, STALLED] {
        let Some(now) = find(after, type_) else { continue };
        let then = find(before, type_);
        let changed = then
            .as_ref()
            .is_none_or(|then| then.status != now.status || then.reason != now.reason);
        let bad = is_bad(&now);
        let was_bad = then.as_ref().is_some_and(is_bad);
        if !changed || !(bad || was_bad) {
            continue;
        }
        let transition = Transition {
            warning: bad && !expected,
            reason: now.reason.clone(),
            note: shorten(&now.message),
        };
        // Several conditions often say the same thing in the same words.
        if !transitions
            .iter()
            .any(|told: &Transition| told.reason == transition.reason)
        {
            transitions.push(transition);
        }
    }
    transitions
}

/// Whether somebody may want to know. That nobody reports is told by `Ready`.
fn is_bad(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        STALLED => condition.status == "True",
        READY => condition.status != "True",
        _ => condition.status == "False",
    }
}

/// Publishes events. A failure is logged: an event is a courtesy, and must not hold up the work.
pub async fn publish(recorder: &Recorder, regarding: &ObjectReference, transitions: Vec<Transition>) {
    for transition in transitions {
        let event = Event {
            type_: if transition.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: transition.reason,
            note: Some(transition.note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let published = tokio::time::timeout(
            std::time::Duration::from_secs(5),
            recorder.publish(&event, regarding),
        );
        match published.await {
            Ok(Ok(())) => {}
            Ok(Err(kube::Error::Api(status))) if namespace_is_ending(&status) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to publish an event"),
            Err(_) => tracing::warn!("failed to publish an event: no answer in time"),
        }
    }
}

fn shorten(note: &str) -> String {
    let mut end = note.len().min(MAX_NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: format!("{reason} it is"),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    fn reasons(before: &[Condition], after: &[Condition]) -> Vec<(bool, String)> {
        told(before, after, true)
    }

    fn told(before: &[Condition], after: &[Condition], was_whole: bool) -> Vec<(bool, String)> {
        transitions(before, after, was_whole)
            .into_iter()
            .map(|told| (told.warning, told.reason))
            .collect()
    }

    #[test]
    fn a_change_is_told_once() {
        let good = [condition(READY, "True", "AllNodesConnected")];
        let bad = [condition(READY, "False", "NodesNotReady")];
        assert_eq!(reasons(&good, &bad), [(true, "NodesNotReady".to_owned())]);
        assert_eq!(reasons(&bad, &bad), []);
        assert_eq!(reasons(&bad, &good), [(false, "AllNodesConnected".to_owned())]);
    }

    #[test]
    fn a_rollout_raises_no_alarm() {
        let after = [
            condition(READY, "False", "NodesNotReady"),
            condition(RECONCILING, "True", "RollingOut"),
        ];
        assert_eq!(reasons(&[], &after), [(false, "NodesNotReady".to_owned())]);
    }

    #[test]
    fn what_is_still_to_come_raises_no_alarm() {
        let before = [condition(READY, "False", "NodesNotReady")];
        let after = [
            condition(READY, "False", "PeersMissing"),
            condition(CONNECTED, "False", "PeersMissing"),
        ];
        assert_eq!(told(&before, &after, false), [(false, "PeersMissing".to_owned())]);
        assert_eq!(told(&before, &after, true), [(true, "PeersMissing".to_owned())]);
        let stalled = [
            condition(READY, "False", "InvalidSpec"),
            condition(STALLED, "True", "InvalidSpec"),
        ];
        assert_eq!(told(&before, &stalled, false), [(true, "InvalidSpec".to_owned())]);
    }

    #[test]
    fn that_samples_ceased_is_told() {
        let well = [condition(READY, "True", "AllNodesConnected")];
        let unknown = [condition(READY, "Unknown", "AwaitingSamples")];
        assert_eq!(reasons(&well, &unknown), [(true, "AwaitingSamples".to_owned())]);
        assert_eq!(
            reasons(&unknown, &well),
            [(false, "AllNodesConnected".to_owned())]
        );
    }

    #[test]
    fn one_cause_is_told_once() {
        let after = [
            condition(READY, "False", "InvalidSpec"),
            condition(STALLED, "True", "InvalidSpec"),
        ];
        assert_eq!(reasons(&[], &after), [(true, "InvalidSpec".to_owned())]);
    }

    #[test]
    fn notes_are_cut_between_characters() {
        let long = "é".repeat(1_000);
        assert!(shorten(&long).len() <= MAX_NOTE && long.starts_with(&shorten(&long)));
    }
}
