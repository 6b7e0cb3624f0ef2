//! Who should be there: the network's members, their peer ids, and the pods that run them. Pure.

use peernet_api::{identity::NetworkSecret, v1alpha1::Workload};

use crate::observe::ObservedPod;

/// A member that the network wants, or, in a DaemonSet, that a pod stands for.
#[derive(Clone, Debug)]
pub struct Member {
    /// The name that its identity follows from.
    pub name: String,
    /// The peer id that it must have; `None` while the network's secret is not at hand.
    pub peer_id: Option<String>,
    /// Its pod, if there is one.
    pub pod: Option<ObservedPod>,
}

/// All members.
#[derive(Clone, Debug)]
pub struct Roster {
    /// What runs them.
    pub kind: Workload,
    /// The members, by name.
    pub members: Vec<Member>,
    /// How many there should be. A DaemonSet's pod that does not exist yet has no name, so that this can be more.
    pub wanted: usize,
    /// Pods that exist and are not being deleted, members or not.
    pub existing: usize,
}

/// Lists the members of a network of this kind and size.
#[must_use]
pub fn roster(
    network: &str,
    kind: Workload,
    wanted: i32,
    secret: Option<&NetworkSecret>,
    pods: &[ObservedPod],
) -> Roster {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let mut pods: Vec<_> = pods.iter().filter(|pod| pod.kind == Some(kind)).collect();
    let existing = pods.iter().filter(|pod| !pod.terminating).count();
    // Of two pods for one member (an old one that is still stopping) the living one counts.
    pods.sort_by_key(|pod| pod.terminating);
    let names: Vec<String> = match kind {
        Workload::StatefulSet => (0..wanted)
            .map(|ordinal| format!("{network}-{ordinal}"))
            .collect(),
        Workload::DaemonSet => {
            let mut nodes: Vec<_> = pods.iter().filter_map(|pod| pod.node_name.clone()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        }
    };
    let members = names
        .into_iter()
        .map(|name| Member {
            peer_id: secret.map(|secret| secret.peer_id(&name).to_string()),
            pod: pods
                .iter()
                .find(|pod| member_name(pod, kind) == Some(&name))
                .map(|pod| (*pod).clone()),
            name,
        })
        .collect();
    Roster {
        kind,
        members,
        wanted,
        existing,
    }
}

fn member_name(pod: &ObservedPod, kind: Workload) -> Option<&String> {
    match kind {
        Workload::StatefulSet => Some(&pod.name),
        Workload::DaemonSet => pod.node_name.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, kind: Workload, terminating: bool) -> ObservedPod {
        ObservedPod {
            name: name.into(),
            kind: Some(kind),
            node_name: Some(node.into()),
            zone: None,
            ip: None,
            ready: !terminating,
            terminating,
            http_port: 8080,
            problem: None,
            ports_taken: false,
        }
    }

    fn names(roster: &Roster) -> Vec<&str> {
        roster.members.iter().map(|member| member.name.as_str()).collect()
    }

    #[test]
    fn a_stateful_set_has_members_before_it_has_pods() {
        let secret = NetworkSecret::new(&[5; 32]).unwrap();
        let pods = [
            pod("mesh-0", "n1", Workload::StatefulSet, false),
            pod("mesh-7", "n2", Workload::StatefulSet, false),
        ];
        let roster = roster("mesh", Workload::StatefulSet, 2, Some(&secret), &pods);
        assert_eq!(names(&roster), ["mesh-0", "mesh-1"]);
        assert!(roster.members[0].pod.is_some() && roster.members[1].pod.is_none());
        assert_eq!(
            roster.members[1].peer_id,
            Some(secret.peer_id("mesh-1").to_string())
        );
        // A pod of a larger past exists, and is no member.
        assert_eq!((roster.wanted, roster.existing), (2, 2));
    }

    #[test]
    fn a_daemon_sets_members_are_its_nodes() {
        let secret = NetworkSecret::new(&[5; 32]).unwrap();
        let pods = [
            pod("mesh-old", "n1", Workload::DaemonSet, true),
            pod("mesh-new", "n1", Workload::DaemonSet, false),
            pod("mesh-2", "n2", Workload::DaemonSet, false),
            pod("mesh-0", "n3", Workload::StatefulSet, false),
        ];
        let roster = roster("mesh", Workload::DaemonSet, 3, Some(&secret), &pods);
        assert_eq!(names(&roster), ["n1", "n2"]);
        assert_eq!(roster.members[0].pod.as_ref().unwrap().name, "mesh-new");
        assert_eq!((roster.wanted, roster.existing), (3, 2));
    }
}
