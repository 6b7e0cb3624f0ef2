//! Pulling the agents' reports: bounded in concurrency, bytes and time. A pull that fails is data, not an error.

use std::{net::SocketAddr, time::Duration};

use axum::http::Uri;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use peernet_api::{
    report::{MAX_BYTES, PATH, Report},
    v1alpha1::ReportOutcome,
};

use crate::{
    clock::{Moment, Monotonic},
    reports::{Expected, judge},
    roster::{Member, Roster},
};

/// Reports asked for at the same time, of one network.
const CONCURRENCY: usize = 32;
/// Longest that one report may take.
const REPORT_DEADLINE: Duration = Duration::from_secs(2);
/// Longest that all reports of one network may take. Members that were not asked by then count as timed out.
const ROUND_DEADLINE: Duration = Duration::from_secs(10);

/// A report that was accepted, and when. It was made between these two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the agent says.
    pub report: Report,
    /// When it was asked for.
    pub asked: Moment,
    /// When it was there.
    pub received: Moment,
}

/// What became of one member's report.
pub type Pulled = Result<Answer, ReportOutcome>;

/// Pulls reports over HTTP.
#[derive(Clone)]
pub struct Puller {
    http: Client<HttpConnector, Empty<axum::body::Bytes>>,
    clock: Monotonic,
}

impl Puller {
    /// A puller that stamps its answers by this clock.
    #[must_use]
    pub fn new(clock: Monotonic) -> Self {
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(1)
            .build_http();
        Self { http, clock }
    }

    /// Asks every member that has a pod with an address for its report. The result has one entry a member, in the roster's order.
    pub async fn pull(&self, network: &str, roster: &Roster) -> Vec<Pulled> {
        let mut results: Vec<Pulled> = roster
            .members
            .iter()
            .map(|member| {
                Err(if target(member).is_some() {
                    ReportOutcome::TimedOut
                } else {
                    ReportOutcome::NotAsked
                })
            })
            .collect();
        // A plain loop: the compiler does not see that a closure with these borrows may cross threads.
        let mut asks = Vec::new();
        for (at, member) in roster.members.iter().enumerate() {
            if let Some((address, peer_id)) = target(member) {
                asks.push(async move { (at, self.one(network, &member.name, peer_id, address).await) });
            }
        }
        let mut answers = stream::iter(asks).buffer_unordered(CONCURRENCY);
        let round = async {
            while let Some((at, pulled)) = answers.next().await {
                if let Some(slot) = results.get_mut(at) {
                    *slot = pulled;
                }
            }
        };
        // What has not come by then keeps its first value: timed out.
        let _ = tokio::time::timeout(ROUND_DEADLINE, round).await;
        results
    }

    async fn one(&self, network: &str, name: &str, peer_id: &str, address: SocketAddr) -> Pulled {
        let asked = self.clock.now();
        let nonce = nonce()?;
        let fetched = tokio::time::timeout(REPORT_DEADLINE, self.fetch(address, &nonce));
        let bytes = fetched.await.map_err(|_| ReportOutcome::TimedOut)??;
        let expected = Expected {
            peer_id,
            network,
            name,
            nonce: &nonce,
        };
        Ok(Answer {
            report: judge(&bytes, expected)?,
            asked,
            received: self.clock.now(),
        })
    }

    async fn fetch(&self, address: SocketAddr, nonce: &str) -> Result<axum::body::Bytes, ReportOutcome> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query(format!("{PATH}?nonce={nonce}"))
            .build()
            .map_err(|_| ReportOutcome::Unreachable)?;
        let response = self.http.get(uri).await.map_err(|_| ReportOutcome::Unreachable)?;
        if !response.status().is_success() {
            return Err(ReportOutcome::Unreachable);
        }
        match Limited::new(response.into_body(), MAX_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ReportOutcome::TooLarge),
            Err(_) => Err(ReportOutcome::Unreachable),
        }
    }
}

/// Where to ask, and who must answer.
fn target(member: &Member) -> Option<(SocketAddr, &str)> {
    let pod = member.pod.as_ref()?;
    Some((
        SocketAddr::new(pod.ip?, pod.http_port),
        member.peer_id.as_deref()?,
    ))
}

/// A number that no earlier answer can contain.
fn nonce() -> Result<String, ReportOutcome> {
    let mut bytes = [0_u8; 16];
    // Without randomness no answer could be told from a replay.
    getrandom::fill(&mut bytes).map_err(|_| ReportOutcome::NotAsked)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
