//! The watches and the queue around [`reconcile`]: one controller for each namespace that is served, or one for all.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action, Error as ControllerError},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use peernet_api::v1alpha1::PeerNetwork;
use serde::de::DeserializeOwned;

use crate::{
    apply::{Applied, FIELD_MANAGER},
    backoff::{Backoff, WatchBackoff},
    metrics::{Metrics, RoundResult},
    network::NodeDefaults,
    observe::Stores,
    pull::Puller,
    reconcile::{Context, Error, error_chain, forget, on_error, reconcile},
    resources::{MANAGED_SELECTOR, NETWORK_LABEL},
};

/// Networks that are worked on at the same time.
const CONCURRENCY: u16 = 16;
/// Changes that come within this time of each other are one reason to look.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The API server ends a watch after this long, so that a silent connection is noticed.
const WATCH_SECONDS: u32 = 25;
/// Changes that wait for the controller to take them.
const BUFFER: usize = 256;
/// A round that takes longer than this is given up. It is far more than the deadlines inside a round add up to.
const ROUND_DEADLINE: Duration = Duration::from_secs(60);

/// What all controllers share.
#[derive(Clone)]
pub struct Shared {
    /// Talks to the API server.
    pub client: Client,
    /// What networks get that don't say otherwise.
    pub defaults: NodeDefaults,
    /// The operator's own metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves the networks of `namespace`, or of all, until `shutdown` ends. Calls `watching` when every watch has brought its
/// first list.
pub async fn run(
    shared: Shared,
    namespace: Option<String>,
    watching: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let mut watches = Vec::new();
    let (pods, pod_changes) = watch(&shared, namespace.as_deref(), &mut watches);
    let (services, service_changes) = watch(&shared, namespace.as_deref(), &mut watches);
    let (stateful_sets, stateful_set_changes) = watch(&shared, namespace.as_deref(), &mut watches);
    let (daemon_sets, daemon_set_changes) = watch(&shared, namespace.as_deref(), &mut watches);
    let (budgets, budget_changes) = watch(&shared, namespace.as_deref(), &mut watches);
    let stores = Stores {
        pods,
        services,
        stateful_sets,
        daemon_sets,
        budgets,
    };
    let watches = tokio::spawn(futures::future::join_all(watches));

    let networks: Api<PeerNetwork> = scoped(&shared.client, namespace.as_deref());
    let controller = Controller::new(networks, watcher::Config::default().timeout(WATCH_SECONDS))
        .with_config(
            controller::Config::default()
                .debounce(DEBOUNCE)
                .concurrency(CONCURRENCY),
        )
        .trigger_backoff(WatchBackoff::default())
        .owns_shared_stream(service_changes)
        .owns_shared_stream(stateful_set_changes)
        .owns_shared_stream(daemon_set_changes)
        .owns_shared_stream(budget_changes)
        .watches_shared_stream(pod_changes, |pod: Arc<Pod>| network_of(&pod))
        .graceful_shutdown_on(shutdown);

    let first_lists = {
        let (networks, stores) = (controller.store(), stores.clone());
        async move {
            networks.wait_until_ready().await?;
            stores.wait_until_ready().await
        }
    };
    let context = Arc::new(Context {
        client: shared.client.clone(),
        stores,
        defaults: shared.defaults.clone(),
        puller: Puller::default(),
        recorder: Recorder::new(
            shared.client.clone(),
            Reporter {
                controller: FIELD_MANAGER.to_owned(),
                instance: None,
            },
        ),
        metrics: shared.metrics.clone(),
        applied: Applied::default(),
        backoff: Backoff::default(),
    });
    let rounds = controller
        .run(round, on_error, context.clone())
        .for_each(|result| {
            note(&result, &context);
            futures::future::ready(())
        });
    let ready = async {
        if first_lists.await.is_ok() {
            tracing::info!(namespace = namespace.as_deref().unwrap_or("all"), "watching");
            watching();
        }
    };
    tokio::join!(rounds, ready);
    watches.abort();
}

async fn round(resource: Arc<PeerNetwork>, context: Arc<Context>) -> Result<Action, Error> {
    // Nothing is judged, and nothing pruned, before what exists is known.
    if context.stores.wait_until_ready().await.is_err() {
        // The watches are gone: the operator is stopping.
        return Ok(Action::await_change());
    }
    let started = tokio::time::Instant::now();
    let result = match tokio::time::timeout(ROUND_DEADLINE, reconcile(resource, context.clone())).await {
        Ok(result) => result,
        Err(_) => Err(Error::TimedOut),
    };
    let outcome = if result.is_ok() {
        RoundResult::Ok
    } else {
        RoundResult::Error
    };
    context.metrics.count_round(outcome, started.elapsed());
    result
}

/// What is left to say about a round: its own errors were told by [`on_error`].
fn note(
    result: &Result<(ObjectRef<PeerNetwork>, Action), ControllerError<Error, watcher::Error>>,
    context: &Context,
) {
    match result {
        Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
        Err(ControllerError::ObjectNotFound(network)) => {
            let path = format!(
                "{}/{}",
                network.namespace.clone().unwrap_or_default(),
                network.name
            );
            tracing::info!(network = path, "network is gone");
            forget(&path, context);
        }
        Err(error) => tracing::warn!(error = error_chain(error), "watch of networks failed"),
    }
}

/// Starts to watch the operator's objects of one kind: a copy of them, and a stream of changes for the controller. What
/// drives both is added to `drivers`.
fn watch<K>(
    shared: &Shared,
    namespace: Option<&str>,
    drivers: &mut Vec<BoxFuture<'static, ()>>,
) -> (Store<K>, impl Stream<Item = Arc<K>> + Send + use<K>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store_shared(BUFFER);
    // `None` only from a store that is not shared, which this one is.
    let changes = stream::iter(writer.subscribe()).flatten();
    let config = watcher::Config::default()
        .labels(MANAGED_SELECTOR)
        .timeout(WATCH_SECONDS);
    let driver = watcher(scoped::<K>(&shared.client, namespace), config)
        .backoff(WatchBackoff::default())
        .reflect_shared(writer)
        .for_each(|event| {
            if let Err(error) = event {
                tracing::warn!(kind = %K::kind(&()), error = error_chain(&error), "watch failed");
            }
            futures::future::ready(())
        });
    drivers.push(driver.boxed());
    (store, changes)
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn network_of(pod: &Pod) -> Option<ObjectRef<PeerNetwork>> {
    let name = pod.labels().get(NETWORK_LABEL)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}
