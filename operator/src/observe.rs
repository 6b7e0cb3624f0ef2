//! What is in the cluster: the Secrets by one read each, all else from watched copies. The conversions are pure.

use std::net::IpAddr;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    core::v1::{Pod, PodStatus, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};
use peernet_api::{
    identity::{NetworkSecret, SECRET_KEY},
    ports::{self, Block, EXIT_PORT_TAKEN},
    report::HTTP_PORT,
    v1alpha1::{PeerNetworkSpec, Workload},
};

use crate::{
    api_call::{ApiCallError, with_deadline},
    host_ports::{Claim, Claims, HTTP_PORT_VARIABLE, ORDINAL_LABEL, PORT_STEP_VARIABLE, claimed},
    network::Identity,
    private_network::{self, KeyState},
    resources::{FINGERPRINT_ANNOTATION, NETWORK_LABEL},
};

/// The label that names a zone. Kubernetes copies it from the node to the pods that are bound to it, so that the zones are
/// known without any right to nodes. See
/// [KEP-4742](https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/4742-expose-node-labels-via-downward-api).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The scheduler's words for a pod whose ports are taken on a node.
const NO_FREE_PORT: &str = "didn't have free ports";

/// Copies of the operator's objects and their pods, kept up to date by watches.
#[derive(Clone)]
pub struct Stores {
    /// Agents' pods.
    pub pods: Store<Pod>,
    /// Headless Services.
    pub services: Store<Service>,
    /// StatefulSets.
    pub stateful_sets: Store<StatefulSet>,
    /// DaemonSets.
    pub daemon_sets: Store<DaemonSet>,
    /// Disruption budgets.
    pub budgets: Store<PodDisruptionBudget>,
}

impl Stores {
    /// Waits until each copy has its first list.
    ///
    /// # Errors
    /// If the watches have ended.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        self.pods.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.stateful_sets.wait_until_ready().await?;
        self.daemon_sets.wait_until_ready().await?;
        self.budgets.wait_until_ready().await
    }
}

/// What is there of one network.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Secret of the network's identities.
    pub secret: SecretState,
    /// The key of the private network.
    pub key: KeyState,
    /// What runs the agents, if it exists. While one kind replaces the other, the one that is wanted.
    pub workload: Option<ObservedWorkload>,
    /// The pods of the network, of either kind of workload.
    pub pods: Vec<ObservedPod>,
    /// The ports that networks have on their nodes.
    pub claims: Claims,
}

/// State of the Secret.
#[derive(Clone, Debug)]
pub enum SecretState {
    /// It holds what it should.
    Valid(NetworkSecret),
    /// It does not exist.
    Missing,
    /// It belongs to an earlier network of the same name, and is about to be deleted with it.
    Leaving,
    /// It exists and does not hold what it should; the text says why.
    Damaged(String),
}

/// A StatefulSet or DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedWorkload {
    /// Which of the two.
    pub kind: Workload,
    /// Fingerprint of the secret that it was made for.
    pub fingerprint: Option<String>,
    /// Pods that it wants.
    pub wanted: i32,
    /// Whether Kubernetes has done with it what its spec says: every pod exists in its newest form.
    pub settled: bool,
    /// The ports that its pods have on their nodes.
    pub block: Option<Block>,
}

/// An agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// Kind of workload that made it.
    pub kind: Option<Workload>,
    /// The node that it was scheduled to.
    pub node_name: Option<String>,
    /// The zone of that node, if the pod carries its label.
    pub zone: Option<String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Whether Kubernetes calls it ready and it is not being deleted.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The TCP port that its agent speaks HTTP at. A pod keeps the one that it was made with.
    pub http_port: u16,
    /// Why it does not run, if Kubernetes says.
    pub problem: Option<String>,
    /// Whether it does not run since something else has its ports.
    pub ports_taken: bool,
}

/// Reads the Secrets and gathers what the watches know about a network of this spec.
///
/// # Errors
/// If the Secret can't be read.
pub async fn observe(
    client: &Client,
    stores: &Stores,
    identity: &Identity,
    spec: &PeerNetworkSpec,
) -> Result<Observed, ApiCallError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &identity.namespace);
    let secret = with_deadline("get the Secret", secrets.get_opt(&identity.secret_name())).await?;
    let key_secret = match private_network::wanted(&spec.private_network) {
        Some(wanted) => {
            with_deadline("get the private network's Secret", secrets.get_opt(&wanted.name)).await?
        }
        None => None,
    };
    let mut workloads: Vec<ObservedWorkload> = [
        owned(&stores.stateful_sets, identity).map(|set| stateful_set(&set)),
        owned(&stores.daemon_sets, identity).map(|set| daemon_set(&set)),
    ]
    .into_iter()
    .flatten()
    .collect();
    workloads.sort_by_key(|workload| workload.kind != spec.workload);
    let mut pods: Vec<_> = stores
        .pods
        .state()
        .iter()
        .filter(|pod| pod.namespace().as_deref() == Some(identity.namespace.as_str()))
        .filter(|pod| pod.labels().get(NETWORK_LABEL) == Some(&identity.name))
        .map(|pod| observed_pod(pod))
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Observed {
        secret: secret_state(secret.as_ref(), identity),
        key: private_network::key_state(&spec.private_network, key_secret.as_ref()),
        workload: workloads.into_iter().next(),
        pods,
        claims: claims(stores, identity),
    })
}

/// The ports that all networks have on their nodes, as far as this operator sees.
fn claims(stores: &Stores, identity: &Identity) -> Claims {
    let sets = stores.stateful_sets.state();
    let daemons = stores.daemon_sets.state();
    let all = sets
        .iter()
        .map(|set| claim(set.as_ref(), identity))
        .chain(daemons.iter().map(|set| claim(set.as_ref(), identity)));
    let mut claims = Claims::default();
    for (is_own, claim) in all.flatten() {
        if is_own {
            claims.own = Some(claim);
        } else {
            claims.others.push(claim);
        }
    }
    claims
}

/// The ports that a workload has on its nodes, and whether it is this network's.
fn claim(workload: &impl Resource, identity: &Identity) -> Option<(bool, Claim)> {
    let created = workload.meta().creation_timestamp.as_ref().map(|time| time.0);
    let claim = Claim {
        block: claimed(workload.annotations())?,
        age: (created, workload.uid().unwrap_or_default()),
    };
    Some((belongs_to(workload, identity), claim))
}

/// The object that has the network's name and belongs to it.
pub fn owned<K>(store: &Store<K>, identity: &Identity) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .get(&ObjectRef::new(&identity.name).within(&identity.namespace))
        .filter(|object| belongs_to(object.as_ref(), identity))
}

/// Whether the object is controlled by this network, not by another of the same name.
pub fn belongs_to(object: &impl Resource, identity: &Identity) -> bool {
    object
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == identity.uid)
}

/// Whether the object is controlled by an earlier network of the same name: Kubernetes is about to delete it.
pub fn is_leaving(object: &impl Resource, identity: &Identity) -> bool {
    object.owner_references().iter().any(|owner| {
        owner.controller == Some(true)
            && owner.kind == identity.owner.kind
            && owner.name == identity.name
            && owner.uid != identity.uid
    })
}

/// Whether the Secret holds what it should.
#[must_use]
pub fn secret_state(secret: Option<&Secret>, identity: &Identity) -> SecretState {
    let Some(secret) = secret else {
        return SecretState::Missing;
    };
    if is_leaving(secret, identity) {
        return SecretState::Leaving;
    }
    match secret.data.as_ref().and_then(|data| data.get(SECRET_KEY)) {
        None => SecretState::Damaged(format!("it has no key {SECRET_KEY}")),
        Some(bytes) => match NetworkSecret::new(&bytes.0) {
            Ok(secret) => SecretState::Valid(secret),
            Err(error) => SecretState::Damaged(error.to_string()),
        },
    }
}

fn stateful_set(set: &StatefulSet) -> ObservedWorkload {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = set.status.clone().unwrap_or_default();
    ObservedWorkload {
        kind: Workload::StatefulSet,
        fingerprint: set.annotations().get(FINGERPRINT_ANNOTATION).cloned(),
        wanted,
        settled: status.observed_generation >= set.metadata.generation
            && status.replicas == wanted
            && status.updated_replicas.unwrap_or(0) == wanted,
        block: claimed(set.annotations()),
    }
}

fn daemon_set(set: &DaemonSet) -> ObservedWorkload {
    let status = set.status.clone().unwrap_or_default();
    ObservedWorkload {
        kind: Workload::DaemonSet,
        fingerprint: set.annotations().get(FINGERPRINT_ANNOTATION).cloned(),
        wanted: status.desired_number_scheduled,
        settled: status.observed_generation >= set.metadata.generation
            && status.current_number_scheduled == status.desired_number_scheduled
            && status.updated_number_scheduled.unwrap_or(0) == status.desired_number_scheduled,
        block: claimed(set.annotations()),
    }
}

fn observed_pod(pod: &Pod) -> ObservedPod {
    let status = pod.status.clone().unwrap_or_default();
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let condition = |type_: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == type_)
    };
    let is_ready = condition("Ready").is_some_and(|ready| ready.status == "True");
    let unscheduled = condition("PodScheduled")
        .filter(|scheduled| scheduled.status == "False")
        .map(|scheduled| {
            scheduled
                .message
                .clone()
                .unwrap_or_else(|| "not scheduled".to_owned())
        });
    let no_free_port = unscheduled
        .as_ref()
        .is_some_and(|message| message.contains(NO_FREE_PORT));
    let port_in_use = port_in_use(&status);
    let ports_taken = (no_free_port || port_in_use.is_some()) && !is_ready;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        match (&waiting.reason, &waiting.message) {
            (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
            (Some(reason), None) => Some(reason.clone()),
            _ => None,
        }
    });
    let kind = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))
        .and_then(|owner| match owner.kind.as_str() {
            "StatefulSet" => Some(Workload::StatefulSet),
            "DaemonSet" => Some(Workload::DaemonSet),
            _ => None,
        });
    ObservedPod {
        name: pod.name_any(),
        kind,
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        zone: pod
            .labels()
            .get(ZONE_LABEL)
            .filter(|zone| !zone.is_empty())
            .cloned(),
        ip: status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
        ready: is_ready && !terminating,
        terminating,
        http_port: http_port(pod),
        problem: unscheduled.or(port_in_use).or(waiting).filter(|_| !is_ready),
        ports_taken,
    }
}

/// What an agent said that ended since it could not have one of its ports.
fn port_in_use(status: &PodStatus) -> Option<String> {
    status.container_statuses.iter().flatten().find_map(|container| {
        let states = [container.state.as_ref(), container.last_state.as_ref()];
        let mut ends = states
            .into_iter()
            .flatten()
            .filter_map(|state| state.terminated.as_ref());
        let end = ends.find(|end| end.exit_code == i32::from(EXIT_PORT_TAKEN))?;
        let said = end.message.as_deref().map(str::trim).unwrap_or_default();
        Some(if said.is_empty() { "a port is taken" } else { said }.to_owned())
    })
}

/// The port that the pod's template and its ordinal say.
fn http_port(pod: &Pod) -> u16 {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let variable = |name: &str| -> Option<u16> {
        let mut variables = containers?
            .iter()
            .flat_map(|container| container.env.iter().flatten());
        variables
            .find(|variable| variable.name == name)?
            .value
            .as_ref()?
            .parse()
            .ok()
    };
    let step = variable(PORT_STEP_VARIABLE).unwrap_or(0);
    let ordinal = pod.labels().get(ORDINAL_LABEL).and_then(|text| text.parse().ok());
    variable(HTTP_PORT_VARIABLE)
        .and_then(|first| ports::of_ordinal(first, step, ordinal.unwrap_or(0)))
        .unwrap_or(HTTP_PORT)
}

#[cfg(test)]
mod tests;
