//! The agents' pods.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private function"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Affinity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::schema;

/// The part of the agents' pods that users shape.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.labels) || self.labels.all(key, !key.startsWith('peernet.dev/') && !key.startsWith('app.kubernetes.io/'))")
        .message("spec.podTemplate.labels: labels under peernet.dev/ and app.kubernetes.io/ are set by the operator, use other keys"),
)]
pub struct PodTemplate {
    /// Labels to add to the pods, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,

    /// Annotations to add to the pods, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run an agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pods tolerate, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Affinity and anti-affinity of the pods, as in a Pod's `spec.affinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded::<Affinity>")]
    pub affinity: Option<Affinity>,

    /// How the pods spread over nodes and zones, at most 8 rules. Without any, they spread over nodes and zones as evenly
    /// as the scheduler can, which is what a measurement of the network wants. A DaemonSet has no use for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into(), "whenUnsatisfiable".into()]))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// CPU and memory of an agent. Without it: requests of 10m CPU and 24Mi, a limit of 64Mi memory, and no CPU limit,
    /// since a throttled agent measures its own throttling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Name of the PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A taint that the pods tolerate.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Empty with operator `Exists`: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,
    /// `Equal` (the default): the value must be the same. `Exists`: any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint. Without it: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,
    /// How long the pods stay when a `NoExecute` taint comes. Without it: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TolerationOperator {
    /// The taint's value must be the same.
    Equal,
    /// Any value.
    Exists,
}

/// Effect of a taint.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TolerationEffect {
    /// New pods don't come.
    NoSchedule,
    /// New pods rather don't come.
    PreferNoSchedule,
    /// Running pods leave, too.
    NoExecute,
}

/// How the pods spread over one kind of place.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpreadConstraint {
    /// Label of nodes that names the place, like `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Largest difference in the number of pods between two places.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 500))]
    pub max_skew: i32,
    /// What to do with a pod that would exceed it.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// What to do with a pod that no place suits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// Schedule it all the same, where it does the least harm.
    #[default]
    ScheduleAnyway,
    /// Leave it pending.
    DoNotSchedule,
}

/// Requests and limits of CPU and memory.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub struct Resources {
    /// What is set aside for an agent, like `cpu: 10m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, String>,
    /// What an agent may use at most, like `memory: 64Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, String>,
}

fn one() -> i32 {
    1
}
