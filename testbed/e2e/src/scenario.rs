//! A test's own namespace, from its making to its end, and a diagnosis when the test fails.

use std::{
    any::Any,
    fs::File,
    panic::{AssertUnwindSafe, resume_unwind},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::{sync::OnceCell, time::Instant};

use crate::{Failure, Outcome, command::kubectl, faults, operator, settings::SETTINGS};

/// Label of every namespace that tests make.
const LABEL: &str = "peernet.dev/e2e";
/// That label with its value: a test puts it on a namespace that comes with a file it applies.
pub const CLEARED: &str = "peernet.dev/e2e=true";
/// How many lines of each log a diagnosis shows.
const LOG_LINES: &str = "--tail=60";

static PREPARED: OnceCell<Result<File, String>> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What a test works with.
pub struct Scenario {
    /// Talks to the API server.
    pub client: Client,
    /// The test's own namespace.
    pub namespace: String,
}

/// What Pod Security lets run in the test's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSecurity {
    /// What every network but those with `hostNetwork` keeps to.
    Restricted,
    /// Anything.
    Privileged,
}

/// Runs a test in a namespace of its own that enforces Pod Security `restricted`.
///
/// # Panics
/// If the test fails, after a diagnosis was printed and the namespace cleared away.
pub fn scenario(name: &str, test: impl AsyncFnOnce(&Scenario) -> Outcome) {
    scenario_with(PodSecurity::Restricted, name, test);
}

/// [`scenario`], where the cluster is the testbed's: to break it, or to reach into it from this machine. Elsewhere it says that
/// `what` is skipped.
///
/// # Panics
/// As [`scenario`].
pub fn testbed_scenario(what: &str, name: &str, test: impl AsyncFnOnce(&Scenario) -> Outcome) {
    testbed_scenario_with(PodSecurity::Restricted, what, name, test);
}

/// [`testbed_scenario`], with another Pod Security.
///
/// # Panics
/// As [`scenario`].
pub fn testbed_scenario_with(
    security: PodSecurity,
    what: &str,
    name: &str,
    test: impl AsyncFnOnce(&Scenario) -> Outcome,
) {
    if SETTINGS.testbed.is_none() {
        crate::note(&format!(
            "{what} is skipped: it breaks the cluster or reaches into it from this machine, and this one is not the testbed's"
        ));
        return;
    }
    scenario_with(security, name, test);
}

/// [`scenario`], with another Pod Security.
///
/// # Panics
/// As [`scenario`].
pub fn scenario_with(security: PodSecurity, name: &str, test: impl AsyncFnOnce(&Scenario) -> Outcome) {
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(security, name, test)));
    match result {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => resume_unwind(panic),
        Err(failure) => resume_unwind(Box::new(format!("{name}: {failure}"))),
    }
}

type Panic = Box<dyn Any + Send>;

async fn run(
    security: PodSecurity,
    name: &str,
    test: impl AsyncFnOnce(&Scenario) -> Outcome,
) -> Outcome<Result<(), Panic>> {
    let prepared = PREPARED.get_or_init(async || prepare().await.map_err(|failure| failure.to_string()));
    if let Err(failure) = prepared.await {
        return Err(format!("no test can run: {failure}").into());
    }
    let scenario = Scenario::begin(security, name).await?;
    let begun = Instant::now();
    let result = AssertUnwindSafe(test(&scenario)).catch_unwind().await;
    if !matches!(result, Ok(Ok(()))) {
        if let Ok(Err(failure)) = &result {
            eprintln!("{name} failed: {failure}");
        }
        scenario.diagnose().await;
    }
    eprintln!("{name} took {:.0} s", begun.elapsed().as_secs_f64());
    // The cluster's work, not the test's: nobody waits for it.
    delete(&scenario.client, &scenario.namespace).await?;
    match result {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(failure)) => Err(failure),
        Err(panic) => Ok(Err(panic)),
    }
}

/// Once for each process: takes the cluster, clears what a killed run left, and installs the operator.
async fn prepare() -> Outcome<File> {
    let lock = take_cluster()?;
    faults::end_all().await?;
    let client = Client::try_default().await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let leftover = ListParams::default().labels(LABEL);
    for namespace in namespaces.list(&leftover).await? {
        delete(&client, &namespace.name_any()).await?;
    }
    operator::ensure().await?;
    Ok(lock)
}

/// Two processes of tests would break each other's cluster. The lock ends with the process.
fn take_cluster() -> Outcome<File> {
    let lock = File::create(std::env::temp_dir().join("peernet-e2e.lock"))?;
    lock.lock()?;
    Ok(lock)
}

impl Scenario {
    async fn begin(security: PodSecurity, name: &str) -> Outcome<Self> {
        let client = Client::try_default().await?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("e2e-{name}-{}-{number}", std::process::id());
        let enforce = match security {
            PodSecurity::Restricted => "restricted",
            PodSecurity::Privileged => "privileged",
        };
        create_namespace(&client, &namespace, enforce).await?;
        Ok(Self { client, namespace })
    }

    /// Makes one more namespace, which ends like the test's own when its name begins with it: see [`Scenario::forget`].
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn second_namespace(&self) -> Outcome<Self> {
        let namespace = format!("{}-b", self.namespace);
        create_namespace(&self.client, &namespace, "restricted").await?;
        Ok(Self {
            client: self.client.clone(),
            namespace,
        })
    }

    /// Deletes a namespace that a test made beside its own.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn forget(self) -> Outcome {
        delete(&self.client, &self.namespace).await
    }

    /// An API of a kind in the test's namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs `kubectl` in the test's namespace.
    ///
    /// # Errors
    /// As [`kubectl`].
    pub async fn kubectl(&self, arguments: &[&str]) -> Outcome<String> {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        kubectl(&all).await
    }

    /// Applies a file of the checkout in the test's namespace.
    ///
    /// # Errors
    /// As [`kubectl`].
    pub async fn apply_file(&self, file: &Path) -> Outcome<String> {
        self.kubectl(&["apply", "-f", &file.to_string_lossy()]).await
    }

    /// Prints what people need to know of a test that failed: the networks, pods and events, and the operator's last words.
    async fn diagnose(&self) {
        let system = operator::NAMESPACE;
        let selector = operator::SELECTOR;
        for arguments in [
            &[
                "--namespace",
                &self.namespace,
                "get",
                "peernetworks",
                "-o",
                "yaml",
            ] as &[&str],
            &[
                "--namespace",
                &self.namespace,
                "get",
                "pods,statefulsets,daemonsets,services,pdb",
                "-o",
                "wide",
            ],
            &[
                "--namespace",
                &self.namespace,
                "get",
                "events",
                "--sort-by=.metadata.creationTimestamp",
            ],
            &["get", "nodes"],
            &["--namespace", system, "get", "pods", "-o", "wide"],
            &["--namespace", system, "logs", "--selector", selector, LOG_LINES],
        ] {
            let shown = kubectl(arguments)
                .await
                .unwrap_or_else(|failure| failure.to_string());
            eprintln!("--- kubectl {}\n{shown}", arguments.join(" "));
        }
    }
}

async fn create_namespace(client: &Client, name: &str, enforce: &str) -> Outcome {
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {LABEL: "true", "pod-security.kubernetes.io/enforce": enforce},
        },
    }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    Ok(())
}

async fn delete(client: &Client, namespace: &str) -> Outcome {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.delete(namespace, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The image of the tests' own tools. If the cluster has none, says that `test` is skipped, and why.
#[must_use]
pub fn tool_image(test: &str) -> Option<String> {
    let image = SETTINGS.tool_image.as_ref().map(crate::settings::Image::name);
    if image.is_none() {
        crate::note(&format!(
            "{test} is skipped: PEERNET_TOOL_IMAGE names no image that this cluster can pull"
        ));
    }
    image
}
