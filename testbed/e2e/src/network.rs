//! A `PeerNetwork` under test.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use hyper::Request;
use k8s_openapi::{api::core::v1::Pod, api::events::v1::Event, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    client::Body,
};
use peernet_api::{
    envelope,
    report::{HTTP_PORT, PATH, PeerReport, Report},
    v1alpha1::{PeerNetwork, PeerNetworkStatus, conditions::READY, conditions::STALLED},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Outcome,
    scenario::Scenario,
    waiting::{ensure, eventually},
};

const FIELD_MANAGER: &str = "peernet-e2e";
const NETWORK_LABEL: &str = "peernet.dev/network";
const NONCE: &str = "0123456789abcdef";
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A network in a test's namespace.
#[derive(Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    client: Client,
    namespace: String,
}

/// One run of an agent: another uid is another pod, one more restart another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Uid of its pod.
    pub uid: String,
    /// Restarts of its container.
    pub restarts: i32,
    /// The peer id that its report is signed with.
    pub peer_id: String,
}

impl Network {
    /// A network that exists, or will.
    #[must_use]
    pub fn named(scenario: &Scenario, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            client: scenario.client.clone(),
            namespace: scenario.namespace.clone(),
        }
    }

    /// Makes a network with this spec.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn create(scenario: &Scenario, name: &str, spec: Value) -> Outcome<Self> {
        let network = Self::named(scenario, name);
        let body = json!({
            "apiVersion": "peernet.dev/v1alpha1", "kind": "PeerNetwork", "metadata": {"name": name}, "spec": spec,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        network
            .api::<PeerNetwork>()
            .patch(name, &parameters, &Patch::Apply(body))
            .await?;
        Ok(network)
    }

    /// An API of a kind in the network's namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Changes parts of the spec.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn change(&self, spec: Value) -> Outcome {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api::<PeerNetwork>()
            .patch(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Scales by the scale subresource, as `kubectl scale` and autoscalers do.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn scale(&self, replicas: i32) -> Outcome {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.api::<PeerNetwork>()
            .patch_scale(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Deletes the network.
    ///
    /// # Errors
    /// If the API server does not take it.
    pub async fn delete(&self) -> Outcome {
        self.api::<PeerNetwork>()
            .delete(&self.name, &DeleteParams::background())
            .await?;
        Ok(())
    }

    /// The status as it stands, if it is about the newest spec.
    ///
    /// # Errors
    /// If there is none, or an older one.
    pub async fn status(&self) -> Outcome<PeerNetworkStatus> {
        let network = self.api::<PeerNetwork>().get(&self.name).await?;
        let status = network.status.ok_or("no status yet")?;
        ensure(status.observed_generation == network.metadata.generation, || {
            format!("a status about an older spec:\n{}", yaml(&status))
        })?;
        Ok(status)
    }

    /// Waits until the status is as it should be.
    ///
    /// # Errors
    /// If it never becomes so, with the status seen last.
    pub async fn until(
        &self,
        what: &str,
        check: impl Fn(&PeerNetworkStatus) -> bool,
    ) -> Outcome<PeerNetworkStatus> {
        eventually(format!("network {}: {what}", self.name), async || {
            let status = self.status().await?;
            ensure(check(&status), || yaml(&status))?;
            Ok(status)
        })
        .await
    }

    /// Waits until all of `nodes` nodes are ready and connected, and every number of the status is there.
    ///
    /// # Errors
    /// As [`Network::until`].
    pub async fn until_ready(&self, nodes: i32) -> Outcome<PeerNetworkStatus> {
        self.until(&format!("Ready with {nodes} nodes"), |status| {
            is_whole(status, nodes)
        })
        .await
    }

    /// Waits until the operator says that it can't go on for this reason.
    ///
    /// # Errors
    /// As [`Network::until`].
    pub async fn until_stalled(&self, reason: &str) -> Outcome<PeerNetworkStatus> {
        self.until(&format!("Stalled for {reason}"), |status| {
            condition(status, STALLED).is_some_and(|found| found.status == "True" && found.reason == reason)
        })
        .await
    }

    /// The network's pods that are not being deleted, by name.
    ///
    /// # Errors
    /// If they can't be listed.
    pub async fn pods(&self) -> Outcome<BTreeMap<String, Pod>> {
        let all = ListParams::default().labels(&format!("{NETWORK_LABEL}={}", self.name));
        let pods = self.api::<Pod>().list(&all).await?;
        Ok(pods
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| (pod.name_any(), pod))
            .collect())
    }

    /// The addresses of these pods.
    ///
    /// # Errors
    /// If one of them is not there or has none yet.
    pub async fn addresses<const N: usize>(&self, pods: [&str; N]) -> Outcome<[String; N]> {
        let all = self.pods().await?;
        let mut addresses = [const { String::new() }; N];
        for (address, name) in addresses.iter_mut().zip(pods) {
            let pod = all.get(name).ok_or_else(|| format!("no pod {name}"))?;
            address_of(pod)?.clone_into(address);
        }
        Ok(addresses)
    }

    /// What the agent of one pod says about that of another.
    ///
    /// # Errors
    /// If it gives no report, or says nothing about it.
    pub async fn row(&self, from: &str, about: &str) -> Outcome<PeerReport> {
        Ok(row_about(&self.report(from).await?.0, about)?.clone())
    }

    /// The agents' lives, by the name of their pod.
    ///
    /// # Errors
    /// If an agent gives no report.
    pub async fn lives(&self) -> Outcome<BTreeMap<String, Life>> {
        let mut lives = BTreeMap::new();
        for name in self.pods().await?.into_keys() {
            let life = self.life(&name).await?;
            lives.insert(name, life);
        }
        Ok(lives)
    }

    /// The life of the agent in this pod.
    ///
    /// # Errors
    /// If it gives no report.
    pub async fn life(&self, pod: &str) -> Outcome<Life> {
        let (_, peer_id) = self.report(pod).await?;
        let pod = self.api::<Pod>().get(pod).await?;
        let containers = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        Ok(Life {
            uid: pod.uid().unwrap_or_default(),
            restarts: containers
                .into_iter()
                .flatten()
                .map(|container| container.restart_count)
                .sum(),
            peer_id,
        })
    }

    /// An agent's report and the peer id that signed it. The API server passes the question on, so that this works on
    /// every cluster.
    ///
    /// # Errors
    /// If there is none, or its signature is wrong.
    pub async fn report(&self, pod: &str) -> Outcome<(Report, String)> {
        let bytes = self.ask(pod, &format!("{PATH}?nonce={NONCE}")).await?;
        let (report, signer) = envelope::open(&bytes)?;
        Ok((report, signer.to_string()))
    }

    /// The value of one of an agent's metrics that has no labels.
    ///
    /// # Errors
    /// If there is none.
    pub async fn metric(&self, pod: &str, name: &str) -> Outcome<String> {
        let text = String::from_utf8(self.ask(pod, "/metrics").await?)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value
            .ok_or_else(|| format!("no metric {name} in:\n{text}"))?
            .to_owned())
    }

    async fn ask(&self, pod: &str, path: &str) -> Outcome<Vec<u8>> {
        let port = http_port(&self.api::<Pod>().get(pod).await?);
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}",
            self.namespace
        );
        let response = self.client.send(Request::get(path).body(Body::empty())?).await?;
        let code = response.status();
        let bytes = response.into_body().collect_bytes().await?;
        ensure(code.is_success(), || {
            format!("pod {pod}: {code}: {}", String::from_utf8_lossy(&bytes))
        })?;
        Ok(bytes.to_vec())
    }

    /// Events about the network: type, reason and note.
    ///
    /// # Errors
    /// If they can't be listed.
    pub async fn events(&self) -> Outcome<Vec<(String, String, String)>> {
        let about = format!("regarding.kind=PeerNetwork,regarding.name={}", self.name);
        let events = self
            .api::<Event>()
            .list(&ListParams::default().fields(&about))
            .await?;
        Ok(events
            .into_iter()
            .map(|event| {
                (
                    event.type_.unwrap_or_default(),
                    event.reason.unwrap_or_default(),
                    event.note.unwrap_or_default(),
                )
            })
            .collect())
    }

    /// Waits for an event about the network.
    ///
    /// # Errors
    /// If it does not come, with those that did.
    pub async fn until_event(&self, type_: &str, reason: &str) -> Outcome<String> {
        eventually(
            format!("network {}: an event {type_} {reason}", self.name),
            async || {
                let events = self.events().await?;
                let found = events.iter().find(|event| event.0 == type_ && event.1 == reason);
                Ok(found.ok_or_else(|| format!("{events:?}"))?.2.clone())
            },
        )
        .await
    }
}

/// A pod's address.
///
/// # Errors
/// If it has none yet.
pub fn address_of(pod: &Pod) -> Outcome<&str> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(ip.ok_or_else(|| format!("pod {} has no address", pod.name_any()))?)
}

/// The port at which a pod's agent speaks HTTP: with `hostNetwork`, each pod has its own.
#[must_use]
pub fn http_port(pod: &Pod) -> u16 {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let variable = |name: &str| -> Option<u16> {
        let mut variables = containers?
            .iter()
            .flat_map(|container| container.env.iter().flatten());
        let variable = variables.find(|variable| variable.name == name)?;
        variable.value.as_ref()?.parse().ok()
    };
    let index = pod.labels().get("apps.kubernetes.io/pod-index");
    let ordinal: u16 = index.and_then(|index| index.parse().ok()).unwrap_or(0);
    let step = variable("PEERNET_PORT_STEP").unwrap_or(0);
    variable("PEERNET_HTTP_PORT").map_or(HTTP_PORT, |first| first + step * ordinal)
}

/// What a report says about the agent of that name.
///
/// # Errors
/// If it says nothing.
pub fn row_about<'a>(report: &'a Report, name: &str) -> Outcome<&'a PeerReport> {
    let row = report.peers.iter().find(|row| row.name == name);
    Ok(row.ok_or_else(|| format!("{} says nothing about {name}", report.name))?)
}

/// An agent's report, asked from this machine without the API server.
///
/// # Errors
/// If there is none, or its signature is wrong.
pub async fn report_directly(pod: &Pod) -> Outcome<Report> {
    let address = SocketAddr::new(address_of(pod)?.parse()?, http_port(pod));
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {PATH}?nonce={NONCE} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(ANSWER_DEADLINE, answer).await??;
    let head = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .ok_or("no HTTP answer")?;
    let body = answer.get(head + 4..).unwrap_or_default();
    Ok(envelope::open(body)?.0)
}

/// A condition of a network.
#[must_use]
pub fn condition<'a>(status: &'a PeerNetworkStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether a condition has this status.
#[must_use]
pub fn is(status: &PeerNetworkStatus, type_: &str, value: &str) -> bool {
    condition(status, type_).is_some_and(|condition| condition.status == value)
}

/// What a condition says; nothing, if it is not there.
#[must_use]
pub fn message<'a>(status: &'a PeerNetworkStatus, type_: &str) -> &'a str {
    condition(status, type_)
        .map(|condition| condition.message.as_str())
        .unwrap_or_default()
}

/// The text of the NODES column.
#[must_use]
pub fn nodes_column(status: &PeerNetworkStatus) -> &str {
    status
        .columns
        .as_ref()
        .map(|columns| columns.nodes.as_str())
        .unwrap_or_default()
}

/// The text of the PEERS column.
#[must_use]
pub fn peers_column(status: &PeerNetworkStatus) -> &str {
    status
        .columns
        .as_ref()
        .and_then(|columns| columns.peers.as_deref())
        .unwrap_or_default()
}

/// Whether the network is Ready with so many nodes, connected each to each, and shows every number.
#[must_use]
pub fn is_whole(status: &PeerNetworkStatus, nodes: i32) -> bool {
    let columns = status.columns.clone().unwrap_or_default();
    is(status, READY, "True")
        && is(status, "Connected", "True")
        && is(status, "Reconciling", "False")
        && is(status, STALLED, "False")
        && columns.nodes == format!("{nodes}/{nodes}")
        && columns.peers == Some(format!("{0}/{0}", nodes - 1))
        && columns.rtt_p50.is_some()
        && columns.rtt_p99.is_some()
        && columns.loss.is_some()
        && (status.replicas, status.desired_replicas, status.ready_replicas) == (nodes, nodes, nodes)
}

/// A status for people.
#[must_use]
pub fn yaml(status: &PeerNetworkStatus) -> String {
    serde_saphyr::to_string(status).unwrap_or_else(|error| error.to_string())
}
