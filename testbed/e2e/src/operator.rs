//! The operator's installation.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::{
    Outcome,
    command::{helm, kubectl},
    settings::SETTINGS,
    waiting::{ensure as check, eventually},
};

/// The operator's namespace.
pub const NAMESPACE: &str = "peernet-system";
/// The release's name.
pub const RELEASE: &str = "peernet";
/// Selects the operator's pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=peernet-operator,app.kubernetes.io/instance=peernet";

/// Kubernetes gives every pod five minutes on a node that is not heard of. The testbed is set to lose patience in seconds, which
/// would move the operator, and any pod, when the API server was away.
pub const PATIENT: &str = r#"[
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
]"#;

/// Installs the operator, or puts it back to what the tests expect.
///
/// # Errors
/// If Helm fails.
pub async fn ensure() -> Outcome {
    let manifest = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    crate::command::run_with_input(&SETTINGS.kubectl, &["apply", "-f", "-"], &manifest).await?;
    install(&[]).await
}

/// Installs or upgrades the operator with these further arguments, and waits until it serves.
///
/// # Errors
/// If Helm fails.
pub async fn install(further: &[&str]) -> Outcome {
    let chart = chart();
    let values = image_values();
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        "2m",
        "--reset-values",
    ];
    arguments.extend(values.iter().map(String::as_str));
    let tolerations = format!("tolerations={PATIENT}");
    arguments.extend(["--set-json", &tolerations]);
    arguments.extend(further);
    helm(&arguments).await?;
    Ok(())
}

/// The chart's folder.
#[must_use]
pub fn chart() -> String {
    SETTINGS
        .checkout
        .join("charts/peernet")
        .to_string_lossy()
        .into_owned()
}

/// The arguments that give the chart its images.
#[must_use]
pub fn image_values() -> Vec<String> {
    [
        ("image", &SETTINGS.operator_image),
        ("nodeImage", &SETTINGS.node_image),
    ]
    .into_iter()
    .flat_map(|(key, image)| {
        [
            format!("{key}.repository={}", image.repository),
            format!("{key}.tag={}", image.tag),
        ]
    })
    .flat_map(|value| ["--set-string".to_owned(), value])
    .collect()
}

/// The operator's pod.
///
/// # Errors
/// If there is not exactly one that is not stopping.
pub async fn pod(client: &Client) -> Outcome<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut living: Vec<_> = pods
        .list(&ListParams::default().labels(SELECTOR))
        .await?
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect();
    check(living.len() == 1, || {
        format!("{} pods of the operator", living.len())
    })?;
    living.pop().ok_or_else(|| "no pod of the operator".into())
}

/// Kills the operator at once, as a crash of its node would, and waits for the next one to serve.
///
/// # Errors
/// If no other comes.
pub async fn kill(client: &Client) -> Outcome {
    let killed = pod(client).await?;
    kubectl(&[
        "--namespace",
        NAMESPACE,
        "delete",
        "pod",
        &killed.name_any(),
        "--force",
        "--grace-period=0",
    ])
    .await?;
    eventually("another operator to be ready", async || {
        let pod = pod(client).await?;
        let ready = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let ready = ready
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        check(pod.uid() != killed.uid() && ready, || {
            format!("pod {} is not ready", pod.name_any())
        })
    })
    .await
}

/// What the operator logged since a time.
///
/// # Errors
/// If `kubectl` fails.
pub async fn log_since(time: Timestamp) -> Outcome<String> {
    let since = format!("--since-time={}", time.strftime("%Y-%m-%dT%H:%M:%SZ"));
    kubectl(&[
        "--namespace",
        NAMESPACE,
        "logs",
        "--selector",
        SELECTOR,
        "--tail=-1",
        &since,
    ])
    .await
}
