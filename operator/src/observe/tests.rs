use serde_json::{Value, json};

use super::*;
use crate::network::fixtures::resource;

fn pod(status: Value) -> ObservedPod {
    observed_pod(
        &serde_json::from_value(json!({
            "metadata": {"name": "mesh-0", "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "mesh", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": []}, "status": status,
        }))
        .unwrap(),
    )
}

#[test]
fn a_secret_must_hold_32_bytes_under_its_key() {
    let identity = Identity::of(&resource(json!({}))).unwrap();
    let state = |data: Value| {
        secret_state(
            Some(&serde_json::from_value(json!({"data": data})).unwrap()),
            &identity,
        )
    };
    assert!(matches!(secret_state(None, &identity), SecretState::Missing));
    assert!(matches!(state(json!({})), SecretState::Damaged(why) if why.contains("no key network-secret")));
    assert!(
        matches!(state(json!({"network-secret": "AAAA"})), SecretState::Damaged(why) if why.contains("has 3"))
    );
    let whole = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(matches!(
        state(json!({"network-secret": whole})),
        SecretState::Valid(_)
    ));
}

#[test]
fn what_an_earlier_network_of_the_same_name_left_is_not_ours() {
    let identity = Identity::of(&resource(json!({}))).unwrap();
    let owned_by = |kind: &str, name: &str, uid: &str| -> Service {
        serde_json::from_value(json!({"metadata": {"ownerReferences":
            [{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]}}))
        .unwrap()
    };
    let ours = owned_by("PeerNetwork", "mesh", &identity.uid);
    assert!(belongs_to(&ours, &identity) && !is_leaving(&ours, &identity));
    let earlier = owned_by("PeerNetwork", "mesh", "earlier");
    assert!(!belongs_to(&earlier, &identity) && is_leaving(&earlier, &identity));
    let foreign = owned_by("Deployment", "mesh", "other");
    assert!(!belongs_to(&foreign, &identity) && !is_leaving(&foreign, &identity));
}

#[test]
fn a_pod_tells_why_it_does_not_run() {
    let waiting = pod(
        json!({"containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}),
    );
    assert_eq!(waiting.problem.as_deref(), Some("ErrImagePull: not found"));
    let pending =
        pod(json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]}));
    assert_eq!(pending.problem.as_deref(), Some("no room"));
    assert_eq!(
        pod(json!({"conditions": [{"type": "Ready", "status": "True"}]})).problem,
        None
    );
}

#[test]
fn taken_ports_are_told_by_the_agent_or_by_the_scheduler() {
    let said = "failed to open the HTTP port 20001: Address already in use";
    let ended = |code: i32| {
        pod(
            json!({"containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
            "lastState": {"terminated": {"exitCode": code, "message": said}}}]}),
        )
    };
    let taken = ended(3);
    assert_eq!((taken.ports_taken, taken.problem.as_deref()), (true, Some(said)));
    let other = ended(1);
    assert_eq!(
        (other.ports_taken, other.problem.as_deref()),
        (false, Some("CrashLoopBackOff: back-off 40s"))
    );
    let pending = pod(json!({"conditions": [{"type": "PodScheduled", "status": "False",
        "message": "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports."}]}));
    assert!(pending.ports_taken);
    let back = pod(
        json!({"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "node",
        "image": "", "imageID": "", "ready": true, "restartCount": 1,
        "lastState": {"terminated": {"exitCode": 3, "message": said}}}]}),
    );
    assert_eq!((back.ports_taken, back.problem), (false, None));
}

#[test]
fn a_pod_is_asked_at_the_port_that_it_was_made_with() {
    let port = |labels: Value, env: Value| {
        http_port(
            &serde_json::from_value(json!({"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "node", "env": env}]}}))
            .unwrap(),
        )
    };
    assert_eq!(port(json!({}), json!([])), HTTP_PORT);
    let env =
        json!([{"name": "PEERNET_HTTP_PORT", "value": "20001"}, {"name": "PEERNET_PORT_STEP", "value": "8"}]);
    assert_eq!(port(json!({"apps.kubernetes.io/pod-index": "3"}), env), 20_025);
    let every = json!([{"name": "PEERNET_HTTP_PORT", "value": "20001"}]);
    assert_eq!(port(json!({}), every), 20_001);
}

#[test]
fn a_pods_zone_is_its_label() {
    let zone = |labels: Value| {
        observed_pod(
            &serde_json::from_value(json!({"metadata": {"name": "mesh-0", "labels": labels}})).unwrap(),
        )
        .zone
    };
    assert_eq!(
        zone(json!({"topology.kubernetes.io/zone": "a"})).as_deref(),
        Some("a")
    );
    assert_eq!(zone(json!({"topology.kubernetes.io/zone": ""})), None);
    assert_eq!(zone(json!({})), None);
}

#[test]
fn a_workload_is_settled_when_every_pod_exists_in_its_newest_form() {
    let set = |status: Value| {
        stateful_set(
            &serde_json::from_value(json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "serviceName": "", "selector": {}, "template": {}}, "status": status,
            }))
            .unwrap(),
        )
    };
    assert!(set(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3})).settled);
    assert!(!set(json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3})).settled);
    assert!(!set(json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3})).settled);
    assert!(!set(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1})).settled);
}
