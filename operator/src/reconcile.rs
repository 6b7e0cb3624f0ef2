//! One round for one network: observe, decide, build, apply, measure, status. Only the outer steps touch the world.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{controller::Action, events::Recorder},
};
use peernet_api::{
    duration,
    ports::Block,
    v1alpha1::{PeerNetwork, PeerNetworkStatus, Probe, Workload},
};

use crate::{
    api_call::{ApiCallError, with_deadline},
    apply::{Applied, Applier, ApplyError, FIELD_MANAGER},
    backoff::{Backoff, jitter},
    clock::{Moment, Monotonic, ServerClock},
    conditions::Facts,
    decide::{Decision, Stall, decide},
    measure::{ProbeSettings, external, measure},
    metrics::Metrics,
    network::{Identity, Network, NodeDefaults},
    observe::{Observed, SecretState, Stores, observe},
    private_network,
    pull::Puller,
    reports::expire,
    resources::{desired, selector_text},
    roster::{Roster, roster},
    status::{Input, compose, says_something_new, was_whole},
    strangers,
    transitions::{publish, transitions},
};

/// Time from one look at a network to the next.
const ROUND: Duration = Duration::from_secs(5);

/// What a round works with.
pub struct Context {
    /// Talks to the API server.
    pub client: Client,
    /// Watched copies of objects.
    pub stores: Stores,
    /// What networks get that don't say otherwise.
    pub defaults: NodeDefaults,
    /// Pulls reports.
    pub puller: Puller,
    /// Ages are counted by it.
    pub clock: Monotonic,
    /// Times in a status are told by it.
    pub server_clock: ServerClock,
    /// Publishes events.
    pub recorder: Recorder,
    /// The operator's own metrics.
    pub metrics: Arc<Metrics>,
    /// What was applied before.
    pub applied: Applied,
    /// How long to wait after an error.
    pub backoff: Backoff,
    /// When each network's status was written.
    pub writes: Writes,
}

/// When each network's status was last written, since the operator's start.
#[derive(Debug, Default)]
pub struct Writes(Mutex<HashMap<String, Moment>>);

impl Writes {
    fn since(&self, network: &str, now: Moment) -> Option<Duration> {
        let writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.get(network).map(|written| now.saturating_sub(*written))
    }

    fn note(&self, network: &str, now: Moment) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.insert(network.to_owned(), now);
    }

    fn forget(&self, network: &str) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.remove(network);
    }
}

/// Why a round was not finished. The next one begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource has no name, namespace or uid.
    #[error("the resource was never stored in a cluster")]
    NotStored,
    /// The cluster could not be read.
    #[error("failed to observe the network")]
    Observe(#[source] ApiCallError),
    /// An object could not be written.
    #[error("failed to apply the network's objects")]
    Apply(#[source] ApplyError),
    /// The status could not be written.
    #[error("failed to write the status")]
    Status(#[source] ApiCallError),
    /// The round took longer than its deadlines should allow.
    #[error("the round took too long")]
    TimedOut,
}

/// Brings one network nearer to what its spec says, and its status nearer to what is.
///
/// # Errors
/// [`Error`] names the step. Everything that people have to mend is a condition, not an error.
pub async fn reconcile(resource: Arc<PeerNetwork>, context: Arc<Context>) -> Result<Action, Error> {
    let identity = Identity::of(&resource).ok_or(Error::NotStored)?;
    if resource.metadata.deletion_timestamp.is_some() {
        // Owner references see to everything.
        return Ok(Action::await_change());
    }
    let spec = &resource.spec;
    let mut observed = observe(&context.client, &context.stores, &identity, spec)
        .await
        .map_err(Error::Observe)?;
    let progress = build(&context, &identity, &resource, &mut observed).await?;

    let roster = expected(
        &identity,
        spec.workload,
        spec.replicas,
        progress.stall.is_some(),
        &observed,
    );
    context.server_clock.refresh(&context.client, context.clock).await;
    let mut pulled = context.puller.pull(&identity.path(), &roster).await;
    // In this order: if the operator is stopped between the two, the labels are too old, and never too young.
    let (own, moment) = (Timestamp::now(), context.clock.now());
    let now = context.server_clock.at(moment, own);
    expire(&mut pulled, moment);
    context.metrics.count_reports(&pulled);
    let measured = measure(&roster, &pulled, probe_settings(&spec.probe), moment);
    let external = external(
        &roster,
        &pulled,
        &spec.discovery.bootstrap_peers,
        probe_settings(&spec.probe),
        moment,
    );
    context.metrics.note_numbers(&identity.path(), &measured, moment);

    let settled = !progress.changed
        && observed
            .workload
            .as_ref()
            .is_some_and(|workload| workload.settled);
    let secret = match &observed.secret {
        SecretState::Valid(secret) => Some(secret),
        _ => None,
    };
    let facts = Facts {
        stall: progress.stall.as_ref(),
        settled,
        roster: &roster,
        pulled: &pulled,
        measured: &measured,
    };
    let nothing = PeerNetworkStatus::default();
    let previous = resource.status.as_ref().unwrap_or(&nothing);
    let next = compose(&Input {
        facts,
        external: &external,
        selector: selector_text(&identity),
        image: progress
            .image
            .or_else(|| previous.columns.as_ref()?.image.clone()),
        services: &resource.spec.services,
        host_ports: progress
            .block
            .or_else(|| observed.workload.as_ref().and_then(|workload| workload.block)),
        generation: resource.metadata.generation,
        private_network: private_network::status(&observed.key, secret, &pulled),
        strangers: strangers::gather(&roster, &pulled, moment),
        previous,
        now,
    });
    context.metrics.note_network(&identity.path(), &next.conditions);
    let since_write = context.writes.since(&identity.path(), moment);
    if says_something_new(previous, &next, since_write) {
        write_status(&context, &identity, &next)
            .await
            .map_err(Error::Status)?;
        context.writes.note(&identity.path(), moment);
        let mut told = transitions(&previous.conditions, &next.conditions, was_whole(previous));
        told.extend(strangers::knocked(previous, &next));
        for transition in &told {
            tracing::info!(
                reason = transition.reason,
                message = transition.note,
                "network changed"
            );
        }
        publish(&context.recorder, &resource.object_ref(&()), told).await;
    }
    context.backoff.reset(&identity.path());
    Ok(Action::requeue(jitter(ROUND)))
}

/// How far building came.
struct Progress {
    stall: Option<Stall>,
    changed: bool,
    image: Option<String>,
    block: Option<Block>,
}

/// Decides, and writes what was decided. After this, `observed` knows the secret that counts.
async fn build(
    context: &Context,
    identity: &Identity,
    resource: &PeerNetwork,
    observed: &mut Observed,
) -> Result<Progress, Error> {
    let applier = Applier {
        client: &context.client,
        stores: &context.stores,
        identity,
        applied: &context.applied,
    };
    let (network, result) = match decide(identity, &resource.spec, &context.defaults, observed) {
        Decision::Wait => {
            return Ok(Progress {
                stall: None,
                changed: true,
                image: None,
                block: None,
            });
        }
        Decision::Stall(stall) => {
            return Ok(Progress {
                stall: Some(stall),
                changed: false,
                image: None,
                block: None,
            });
        }
        Decision::Build(network, secret) => {
            let result = applier.apply(&desired(&network, &secret.fingerprint())).await;
            (network, result)
        }
        Decision::CreateSecret(network) => {
            let result = create_and_apply(&applier, &network, observed).await;
            (network, result)
        }
    };
    let (image, block) = (Some(network.image.clone()), network.block);
    match result {
        Ok(changed) => Ok(Progress {
            stall: None,
            changed,
            image,
            block,
        }),
        Err(waiting @ ApplyError::Waiting(_)) => {
            tracing::info!(network = identity.path(), "{waiting}");
            Ok(Progress {
                stall: None,
                changed: true,
                image,
                block,
            })
        }
        Err(ApplyError::Stalled(stall)) => Ok(Progress {
            stall: Some(stall),
            changed: false,
            image,
            block,
        }),
        Err(error) => Err(Error::Apply(error)),
    }
}

async fn create_and_apply(
    applier: &Applier<'_>,
    network: &Network,
    observed: &mut Observed,
) -> Result<bool, ApplyError> {
    let secret = applier.create_secret().await?;
    tracing::info!(fingerprint = secret.fingerprint(), "made the network's secret");
    let fingerprint = secret.fingerprint();
    observed.secret = SecretState::Valid(secret);
    applier.apply(&desired(network, &fingerprint)).await?;
    Ok(true)
}

/// Who should be there. A stalled network goes on as it was built, whatever its spec says now.
fn expected(
    identity: &Identity,
    kind: Workload,
    replicas: i32,
    stalled: bool,
    observed: &Observed,
) -> Roster {
    let secret = match &observed.secret {
        SecretState::Valid(secret) => Some(secret),
        SecretState::Missing | SecretState::Leaving | SecretState::Damaged(_) => None,
    };
    let running = observed.workload.as_ref();
    let (kind, wanted) = match (running, kind) {
        (Some(workload), _) if stalled => (workload.kind, workload.wanted),
        (_, Workload::StatefulSet) => (Workload::StatefulSet, replicas),
        // Only Kubernetes knows how many nodes a DaemonSet covers.
        (Some(workload), Workload::DaemonSet) if workload.kind == Workload::DaemonSet => {
            (Workload::DaemonSet, workload.wanted)
        }
        (_, Workload::DaemonSet) => (Workload::DaemonSet, 0),
    };
    roster(&identity.name, kind, wanted, secret, &observed.pods)
}

fn probe_settings(probe: &Probe) -> ProbeSettings {
    let parse = |text: &str, fallback: &str| {
        duration::parse(text)
            .or_else(|_| duration::parse(fallback))
            .unwrap_or(Duration::from_secs(1))
    };
    let defaults = Probe::default();
    ProbeSettings {
        interval: parse(&probe.interval, &defaults.interval),
        timeout: parse(&probe.timeout, &defaults.timeout),
        peers_per_node: usize::try_from(probe.peers_per_node).unwrap_or(usize::MAX),
    }
}

async fn write_status(
    context: &Context,
    identity: &Identity,
    status: &PeerNetworkStatus,
) -> Result<(), ApiCallError> {
    let api: Api<PeerNetwork> = Api::namespaced(context.client.clone(), &identity.namespace);
    // Identity and status alone: nothing of the spec is written back.
    let body = serde_json::json!({
        "apiVersion": PeerNetwork::api_version(&()),
        "kind": PeerNetwork::kind(&()),
        "metadata": {"name": identity.name, "uid": identity.uid},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    with_deadline(
        "write the status",
        api.patch_status(&identity.name, &parameters, &patch),
    )
    .await?;
    context.metrics.count_status_write();
    Ok(())
}

/// Drops what is remembered of a network that is gone.
pub fn forget(network: &str, context: &Context) {
    context.applied.forget(network);
    context.writes.forget(network);
    context.backoff.reset(network);
    context.metrics.forget_network(network);
}

/// What to do after an error: wait a little longer each time.
#[must_use]
pub fn on_error(resource: Arc<PeerNetwork>, error: &Error, context: Arc<Context>) -> Action {
    let network = Identity::of(&resource)
        .map(|identity| identity.path())
        .unwrap_or_default();
    let wait = context.backoff.next(&network);
    tracing::warn!(network, error = error_chain(error), ?wait, "round not finished");
    Action::requeue(wait)
}

/// An error with all its causes, in one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
