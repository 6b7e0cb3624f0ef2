//! The objects that a network wants, as plain data. Pure: a [`Network`] in, objects out.

mod pod;
mod service;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, StatefulSet},
        core::v1::Service,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use crate::network::{Identity, Network};

/// Label that names an object's network. Selectors use it, so it never changes.
pub const NETWORK_LABEL: &str = "peernet.dev/network";
/// Annotation of a workload with the fingerprint of the secret that its pods run with.
pub const FINGERPRINT_ANNOTATION: &str = "peernet.dev/secret-fingerprint";
/// Selects every object that an operator made, of whatever network.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=peernet-operator";
/// Name of the agents' container.
pub const CONTAINER: &str = "node";

const APP_NAME: &str = "peernet-node";

/// Everything that a network wants beside its Secret.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Through which agents find each other.
    pub service: Service,
    /// Keeps a drain from taking more than one agent at a time. A DaemonSet's pods are never drained.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// What runs the agents.
    pub workload: DesiredWorkload,
}

/// What runs the agents.
#[derive(Clone, Debug)]
pub enum DesiredWorkload {
    /// A number of them.
    StatefulSet(Box<StatefulSet>),
    /// One on each node.
    DaemonSet(Box<DaemonSet>),
}

/// Builds what `network` wants, for agents that run with the secret of this fingerprint.
#[must_use]
pub fn desired(network: &Network, fingerprint: &str) -> Desired {
    Desired {
        service: service::headless(network),
        disruption_budget: workload::disruption_budget(network),
        workload: workload::workload(network, fingerprint),
    }
}

/// Name and labels of an object of this network, owned by it.
#[must_use]
pub fn metadata(identity: &Identity, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(identity.namespace.clone()),
        labels: Some(labels(identity)),
        owner_references: Some(vec![identity.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// The label selector of the network's pods, as text.
#[must_use]
pub fn selector_text(identity: &Identity) -> String {
    let pairs: Vec<_> = selector_labels(identity)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

fn labels(identity: &Identity) -> BTreeMap<String, String> {
    let mut labels = selector_labels(identity);
    for (key, value) in [
        ("app.kubernetes.io/component", "node"),
        ("app.kubernetes.io/instance", identity.name.as_str()),
        ("app.kubernetes.io/managed-by", "peernet-operator"),
        ("app.kubernetes.io/part-of", "peernet"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// Labels that a workload's selector holds. It can't be changed, so nothing here may depend on a version or a setting.
fn selector_labels(identity: &Identity) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", APP_NAME),
        (NETWORK_LABEL, identity.name.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn selector(identity: &Identity) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector_labels(identity)),
        ..LabelSelector::default()
    }
}

#[cfg(test)]
mod tests;
