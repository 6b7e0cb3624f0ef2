//! The watches and the queue around [`reconcile`]: one controller for each namespace that is served, or one for all.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, channel::mpsc, future::BoxFuture};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action, Error as ControllerError},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef, Store},
        watcher,
        watcher::Event,
    },
};
use peernet_api::v1alpha1::PeerNetwork;
use serde::de::DeserializeOwned;

use crate::{
    apply::{Applied, FIELD_MANAGER},
    backoff::{Backoff, WatchBackoff},
    clock::{Monotonic, ServerClock},
    metrics::{Metrics, RoundResult},
    network::NodeDefaults,
    observe::Stores,
    pull::Puller,
    reconcile::{Context, Error, Writes, error_chain, forget, on_error, reconcile},
    resources::{MANAGED_SELECTOR, NETWORK_LABEL},
};

/// Networks that are worked on at the same time.
const CONCURRENCY: u16 = 16;
/// Changes that come within this time of each other are one reason to look.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The API server ends a watch after this long, so that a silent connection is noticed.
const WATCH_SECONDS: u32 = 25;
/// Changes of objects that wait for the controller to take them. One that finds no room is seen in the next round.
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
    /// The operator's monotonic clock.
    pub clock: Monotonic,
}

/// Serves the networks of `namespace`, or of all, until `shutdown` ends. Calls `watching` when every watch has brought its
/// first list.
pub async fn run(
    shared: Shared,
    namespace: Option<String>,
    watching: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (changed, changes) = mpsc::channel(BUFFER);
    let mut watches = Watches {
        client: &shared.client,
        namespace: namespace.as_deref(),
        changed,
        drivers: Vec::new(),
    };
    let stores = Stores {
        pods: watches.add(),
        services: watches.add(),
        stateful_sets: watches.add(),
        daemon_sets: watches.add(),
        budgets: watches.add(),
    };
    let watches = tokio::spawn(futures::future::join_all(watches.drivers));

    let networks: Api<PeerNetwork> = scoped(&shared.client, namespace.as_deref());
    let controller = Controller::new(networks, watcher::Config::default().timeout(WATCH_SECONDS))
        .with_config(
            controller::Config::default()
                .debounce(DEBOUNCE)
                .concurrency(CONCURRENCY),
        )
        .trigger_backoff(WatchBackoff::default())
        .reconcile_on(changes)
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
        puller: Puller::new(shared.clock),
        clock: shared.clock,
        server_clock: ServerClock::default(),
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
        writes: Writes::default(),
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

/// Watches of the objects that belong to networks. kube's own shared streams would do, but in kube-runtime 5.0.0 one of
/// them stands still for ever once an object is deleted before its change was taken.
struct Watches<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    /// Told of each network whose object changed.
    changed: mpsc::Sender<ObjectRef<PeerNetwork>>,
    /// What has to be polled for the watches to go on.
    drivers: Vec<BoxFuture<'static, ()>>,
}

impl Watches<'_> {
    /// Starts to watch the objects of one kind, and returns the copy that is kept of them.
    fn add<K>(&mut self) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (store, writer) = reflector::store();
        let config = watcher::Config::default()
            .labels(MANAGED_SELECTOR)
            .timeout(WATCH_SECONDS);
        let mut changed = self.changed.clone();
        let driver = watcher(scoped::<K>(self.client, self.namespace), config)
            .backoff(WatchBackoff::default())
            .reflect(writer)
            .for_each(move |event| {
                match event {
                    Ok(Event::Apply(object) | Event::Delete(object) | Event::InitApply(object)) => {
                        if let Some(network) = network_of(&object) {
                            // No room means that the controller is behind: its next round sees the change.
                            let _ = changed.try_send(network);
                        }
                    }
                    Ok(Event::Init | Event::InitDone) => {}
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), error = error_chain(&error), "watch failed");
                    }
                }
                futures::future::ready(())
            });
        self.drivers.push(driver.boxed());
        store
    }
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

fn network_of(object: &impl Resource) -> Option<ObjectRef<PeerNetwork>> {
    let name = object.meta().labels.as_ref()?.get(NETWORK_LABEL)?;
    Some(ObjectRef::new(name).within(object.meta().namespace.as_ref()?))
}
