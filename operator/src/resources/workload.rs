//! The StatefulSet or DaemonSet that runs the agents, and its disruption budget.

use k8s_openapi::{
    api::{
        apps::v1::{
            DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet, StatefulSet,
            StatefulSetSpec, StatefulSetUpdateStrategy,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{DesiredWorkload, FINGERPRINT_ANNOTATION, metadata, pod, selector};
use crate::{host_ports::BLOCK_ANNOTATION, network::Network};

/// A rollout goes on to the next pod when the last one has been ready for so long. By then it has met other members (whoever waits to
/// be dialed dials by itself after three seconds) and was given its records: it may be the last one that is to keep them.
const MIN_READY_SECONDS: i32 = 5;

pub(super) fn workload(network: &Network, fingerprint: &str) -> DesiredWorkload {
    let identity = &network.identity;
    // Not in the pod template: a secret that was exchanged is for people to look at, not a reason for a rollout.
    let fingerprint = (FINGERPRINT_ANNOTATION.to_owned(), fingerprint.to_owned());
    let block = network
        .block
        .map(|block| (BLOCK_ANNOTATION.to_owned(), block.to_string()));
    let metadata = ObjectMeta {
        annotations: Some([fingerprint].into_iter().chain(block).collect()),
        ..metadata(identity, identity.name.clone())
    };
    let template = pod::template(network);
    if network.is_stateful() {
        DesiredWorkload::StatefulSet(Box::new(StatefulSet {
            metadata,
            spec: Some(StatefulSetSpec {
                service_name: Some(identity.name.clone()),
                replicas: Some(network.spec.replicas),
                selector: selector(identity),
                // Agents don't wait for each other.
                pod_management_policy: Some("Parallel".to_owned()),
                update_strategy: Some(StatefulSetUpdateStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    ..StatefulSetUpdateStrategy::default()
                }),
                min_ready_seconds: Some(MIN_READY_SECONDS),
                revision_history_limit: Some(3),
                template,
                ..StatefulSetSpec::default()
            }),
            status: None,
        }))
    } else {
        DesiredWorkload::DaemonSet(Box::new(DaemonSet {
            metadata,
            spec: Some(DaemonSetSpec {
                selector: selector(identity),
                update_strategy: Some(DaemonSetUpdateStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDaemonSet {
                        // One at a time would take hours on a large cluster, and a tenth of the mesh still measures the rest.
                        max_unavailable: Some(IntOrString::String("10%".to_owned())),
                        max_surge: None,
                    }),
                }),
                min_ready_seconds: Some(MIN_READY_SECONDS),
                revision_history_limit: Some(3),
                template,
            }),
            status: None,
        }))
    }
}

pub(super) fn disruption_budget(network: &Network) -> Option<PodDisruptionBudget> {
    if !network.is_stateful() || network.spec.replicas < 2 {
        return None;
    }
    let identity = &network.identity;
    Some(PodDisruptionBudget {
        metadata: metadata(identity, identity.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(identity)),
            // An agent that is not ready measures nothing: it must not hold up a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
