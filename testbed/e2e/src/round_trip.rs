//! Raw TCP round trips between the very pods that the agents run in: the yardstick for what agents report.
//!
//! `yardstick` runs in an ephemeral container of the agent's pod, so that it has the agent's own network namespace.

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
    let container = add_container(network, pod, image, &["tcp", &to, &rounds, &pace]).await?;
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
    let name = format!("yardstick-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut command = vec!["/bin/yardstick"];
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

/// The same pair of pods at the same time, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Median that the agent reports.
    pub agents: u64,
    /// Median of raw TCP.
    pub raw: u64,
}

impl Comparison {
    /// How many times as long the agent's round trip takes.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.agents as f64 / self.raw as f64
    }
}

/// Compares so often what the agent of the pod `from` reports about its peer `to` with raw TCP between the two. Both probe ten
/// times a second, and both medians are of the same ten seconds: the network must probe every 100 ms over a window of 10 s.
///
/// # Errors
/// If a measurement fails.
pub async fn compare(
    network: &Network,
    from: &str,
    to: &str,
    image: &str,
    times: u32,
) -> Outcome<Vec<Comparison>> {
    let [address] = network.addresses([to]).await?;
    serve(network, to, image).await?;
    let mut comparisons = Vec::new();
    for _ in 0..times {
        let raw = ping(network, from, image, &address, 100, 100).await?.p50_ns;
        let row = network.row(from, to).await?;
        let agents = row.rtt.quantile(500).ok_or("the agent measured nothing")?;
        comparisons.push(Comparison { agents, raw });
    }
    Ok(comparisons)
}

/// The comparison in the middle, by ratio.
#[must_use]
pub fn median(mut comparisons: Vec<Comparison>) -> Option<Comparison> {
    comparisons.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    comparisons.get(comparisons.len() / 2).copied()
}
