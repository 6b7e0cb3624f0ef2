//! The operator's settings: the only reader of flags and environment.

use clap::{Parser, ValueEnum};
use peernet_api::v1alpha1::ImagePullPolicy;

/// PeerNet's Kubernetes operator.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Image of the agents, for networks that name none.
    #[arg(long, env = "PEERNET_NODE_IMAGE")]
    pub node_image: String,

    /// When the kubelet pulls that image, for networks that don't say.
    #[arg(
        long,
        env = "PEERNET_NODE_IMAGE_PULL_POLICY",
        value_enum,
        default_value = "IfNotPresent"
    )]
    pub node_image_pull_policy: PullPolicy,

    /// Namespaces to serve, separated by commas. Empty: all.
    #[arg(long, env = "PEERNET_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Port for /livez, /readyz and /metrics.
    #[arg(long, env = "PEERNET_HTTP_PORT", default_value_t = 8080)]
    pub http_port: u16,

    /// Form of the log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// When the kubelet pulls an image, as in a Pod.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PullPolicy {
    /// At every start of a pod.
    #[value(name = "Always")]
    Always,
    /// If the node does not have it.
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    /// Never.
    #[value(name = "Never")]
    Never,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl From<PullPolicy> for ImagePullPolicy {
    fn from(policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Always => Self::Always,
            PullPolicy::IfNotPresent => Self::IfNotPresent,
            PullPolicy::Never => Self::Never,
        }
    }
}

impl Config {
    /// The namespaces to serve, one entry a controller; `None` is all of them.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut named: Vec<_> = self
            .watch_namespaces
            .iter()
            .map(|name| name.trim())
            .filter(|name| !name.is_empty())
            .collect();
        named.sort_unstable();
        named.dedup();
        if named.is_empty() {
            vec![None]
        } else {
            named.into_iter().map(|name| Some(name.to_owned())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(namespaces: &str) -> Vec<Option<String>> {
        let arguments = [
            "peernet-operator",
            "--node-image=x",
            "--watch-namespaces",
            namespaces,
        ];
        Config::try_parse_from(arguments).unwrap().scopes()
    }

    #[test]
    fn without_namespaces_all_are_served() {
        assert_eq!(scopes(""), [None]);
        assert_eq!(scopes("a, b,a"), [Some("a".to_owned()), Some("b".to_owned())]);
    }
}
