//! Raw TCP round trips between the very pods that the agents run in: the yardstick for what agents report.
//!
//! `tcp-rtt` runs in an ephemeral container of the agent's pod, so that it has the agent's own network namespace.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{LogParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::json;

use crate::{Outcome, network::Network, waiting::eventually};

const PORT: &str = "7007";
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Raw round trips, in nanoseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct TcpRtt {
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
}

/// Lets a pod answer, for as long as it lives.
///
/// # Errors
/// If the container does not start.
pub async fn serve(network: &Network, pod: &str, image: &str) -> Outcome {
    let container = add_container(network, pod, image, &["serve", PORT]).await?;
    eventually(format!("container {container} of pod {pod} to run"), async || {
        let pod = network.api::<Pod>().get(pod).await?;
        let state = state_of(&pod, &container).ok_or("no state yet")?;
        if state.running.is_some() {
            Ok(())
        } else {
            Err(format!("{state:?}").into())
        }
    })
    .await
}

/// Measures from a pod to the address of one that serves: so many rounds, one every so many milliseconds.
///
/// # Errors
/// If the measurement fails.
pub async fn ping(
    network: &Network,
    pod: &str,
    image: &str,
    to: &str,
    rounds: u32,
    pace_ms: u32,
) -> Outcome<TcpRtt> {
    let (to, rounds, pace) = (format!("{to}:{PORT}"), rounds.to_string(), pace_ms.to_string());
    let container = add_container(network, pod, image, &["ping", &to, &rounds, &pace]).await?;
    eventually(format!("container {container} of pod {pod} to end"), async || {
        let pod = network.api::<Pod>().get(pod).await?;
        let state = state_of(&pod, &container).ok_or("no state yet")?;
        if state.terminated.is_some() {
            Ok(())
        } else {
            Err(format!("{state:?}").into())
        }
    })
    .await?;
    let parameters = LogParams {
        container: Some(container),
        ..LogParams::default()
    };
    let log = network.api::<Pod>().logs(pod, &parameters).await?;
    Ok(serde_json::from_str(&log).map_err(|error| format!("{error}: {log}"))?)
}

fn state_of(pod: &Pod, container: &str) -> Option<k8s_openapi::api::core::v1::ContainerState> {
    let states = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    states
        .iter()
        .find(|status| status.name == container)?
        .state
        .clone()
}

async fn add_container(network: &Network, pod: &str, image: &str, arguments: &[&str]) -> Outcome<String> {
    let name = format!("tcp-rtt-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut command = vec!["/bin/tcp-rtt"];
    command.extend(arguments);
    // Pod Security `restricted` holds for these, too.
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [{
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": command,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
    }]}}));
    network
        .api::<Pod>()
        .patch_ephemeral_containers(pod, &PatchParams::default(), &patch)
        .await?;
    Ok(name)
}
