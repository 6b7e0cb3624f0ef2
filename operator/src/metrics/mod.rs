//! The operator's own metrics, and the newest numbers of each network. What the operator counts has labels from closed lists
//! only; the numbers name their network. No label is ever a node, a pod or a peer.

mod numbers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use peernet_api::v1alpha1::{ReportOutcome, conditions::READY};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use self::numbers::Numbers;
use crate::{clock::Moment, measure::Measurements, pull::Pulled};

/// Counts what the operator does.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    reports: Family<OutcomeLabel, Counter>,
    networks: Family<ReadyLabel, Gauge>,
    status_writes: Counter,
    ready: Mutex<HashMap<String, Ready>>,
    numbers: Arc<Numbers>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: RoundResult,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoundResult {
    /// It was finished.
    Ok,
    /// It was not.
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Outcome(ReportOutcome);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadyLabel {
    ready: Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ready {
    True,
    False,
    Unknown,
}

impl EncodeLabelValue for RoundResult {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(
            &match self {
                Self::Ok => "ok",
                Self::Error => "error",
            },
            encoder,
        )
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let text = match self.0 {
            ReportOutcome::NotAsked => "not_asked",
            ReportOutcome::Accepted => "accepted",
            ReportOutcome::Unreachable => "unreachable",
            ReportOutcome::TimedOut => "timed_out",
            ReportOutcome::TooLarge => "too_large",
            ReportOutcome::Undecodable => "undecodable",
            ReportOutcome::WrongSignature => "wrong_signature",
            ReportOutcome::WrongPeer => "wrong_peer",
            ReportOutcome::Stale => "stale",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl EncodeLabelValue for Ready {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::True => "true",
            Self::False => "false",
            Self::Unknown => "unknown",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("peernet");
        let numbers = Arc::<Numbers>::default();
        all.register_collector(Box::new(numbers.clone()));
        let registry = all.sub_registry_with_prefix("operator");
        let reconciles = Family::default();
        registry.register("reconciles", "Rounds, by how they ended", reconciles.clone());
        let reconcile_seconds = Histogram::new(exponential_buckets(0.005, 2.0, 13));
        registry.register(
            "reconcile_seconds",
            "Time that a round took, in seconds",
            reconcile_seconds.clone(),
        );
        let reports = Family::default();
        registry.register(
            "reports",
            "Reports of agents, by what became of them",
            reports.clone(),
        );
        let networks = Family::default();
        registry.register(
            "networks",
            "Networks, by the status of their Ready condition",
            networks.clone(),
        );
        let status_writes = Counter::default();
        registry.register(
            "status_writes",
            "Writes of a network's status",
            status_writes.clone(),
        );
        registry.register(
            "build",
            "The operator's version",
            Info::new(vec![("version", peernet_api::VERSION)]),
        );
        Self {
            registry: all,
            reconciles,
            reconcile_seconds,
            reports,
            networks,
            status_writes,
            ready: Mutex::default(),
            numbers,
        }
    }
}

impl Metrics {
    /// Counts a round.
    pub fn count_round(&self, result: RoundResult, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Counts what became of each report of a round.
    pub fn count_reports(&self, pulled: &[Pulled]) {
        for pulled in pulled {
            let outcome = Outcome(pulled.as_ref().err().copied().unwrap_or(ReportOutcome::Accepted));
            self.reports.get_or_create(&OutcomeLabel { outcome }).inc();
        }
    }

    /// Counts a write of a status.
    pub fn count_status_write(&self) {
        self.status_writes.inc();
    }

    /// Notes whether a network is ready.
    pub fn note_network(&self, network: &str, conditions: &[Condition]) {
        let status = conditions
            .iter()
            .find(|condition| condition.type_ == READY)
            .map(|ready| ready.status.as_str());
        let ready = match status {
            Some("True") => Ready::True,
            Some("False") => Ready::False,
            _ => Ready::Unknown,
        };
        self.recount(|networks| {
            networks.insert(network.to_owned(), ready);
        });
    }

    /// Notes what was measured of a network at a moment.
    pub fn note_numbers(&self, network: &str, measured: &Measurements, at: Moment) {
        self.numbers.note(network, measured, at);
    }

    /// A network is gone.
    pub fn forget_network(&self, network: &str) {
        self.numbers.forget(network);
        self.recount(|networks| {
            networks.remove(network);
        });
    }

    /// All metrics as OpenMetrics text. Numbers that are old at `now` are not in it.
    ///
    /// # Errors
    /// If a metric can't be written.
    pub fn encode(&self, now: Moment) -> Result<String, std::fmt::Error> {
        self.numbers.expire(now);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn recount(&self, change: impl FnOnce(&mut HashMap<String, Ready>)) {
        let mut networks = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut networks);
        for ready in [Ready::True, Ready::False, Ready::Unknown] {
            let count = networks.values().filter(|is| **is == ready).count();
            self.networks
                .get_or_create(&ReadyLabel { ready })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_and_no_name_is_told() {
        let metrics = Metrics::default();
        metrics.count_reports(&[Err(ReportOutcome::WrongPeer), Err(ReportOutcome::WrongPeer)]);
        metrics.note_network("lab/mesh", &[]);
        let text = metrics.encode(Moment::ZERO).unwrap();
        assert!(
            text.contains(r#"peernet_operator_reports_total{outcome="wrong_peer"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"peernet_operator_networks{ready="unknown"} 1"#),
            "{text}"
        );
        assert!(!text.contains("mesh"));
        metrics.forget_network("lab/mesh");
        assert!(
            metrics
                .encode(Moment::ZERO)
                .unwrap()
                .contains(r#"peernet_operator_networks{ready="unknown"} 0"#)
        );
    }
}
