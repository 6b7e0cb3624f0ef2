//! Calls of the API server, each with a deadline: kube's client has none of its own for a server that accepts and never
//! answers.

use std::{future::Future, time::Duration};

use kube::core::Status;

/// Longest that one call may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// A call of the API server that brought no result.
#[derive(Debug, thiserror::Error)]
pub enum ApiCallError {
    /// The server, or the way to it, says no.
    #[error("failed to {action}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// What came back.
        source: kube::Error,
    },
    /// No answer came in time.
    #[error("failed to {action}: no answer within {DEADLINE:?}")]
    TimedOut {
        /// What was tried.
        action: &'static str,
    },
}

impl ApiCallError {
    /// What the API server said, if it was that which answered.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Failed {
                source: kube::Error::Api(status),
                ..
            } => Some(status),
            _ => None,
        }
    }
}

/// Whether the server refused to create something because the namespace is being deleted: what is there goes soon.
#[must_use]
pub fn namespace_is_ending(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Waits for a call, but not for ever.
///
/// # Errors
/// [`ApiCallError`] names the action.
pub async fn with_deadline<T>(
    action: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiCallError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result.map_err(|source| ApiCallError::Failed { action, source }),
        Err(_) => Err(ApiCallError::TimedOut { action }),
    }
}
