//! Waiting for something to become true. A deadline here is how long a test waits before it gives up, not a claim about speed.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{Failure, Outcome};

/// How long tests wait for what should come, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// Tries until it succeeds. Each failure says what was seen instead.
///
/// # Errors
/// Past [`PATIENCE`], with `what` was waited for and what was seen last.
pub async fn eventually<T>(what: impl Display, attempt: impl AsyncFnMut() -> Outcome<T>) -> Outcome<T> {
    eventually_within(PATIENCE, what, attempt).await
}

/// [`eventually`], with another patience.
///
/// # Errors
/// As [`eventually`].
pub async fn eventually_within<T>(
    patience: Duration,
    what: impl Display,
    mut attempt: impl AsyncFnMut() -> Outcome<T>,
) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        let failure: Failure = match tokio::time::timeout(patience, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            Err(_) => "no answer".into(),
        };
        if begun.elapsed() >= patience {
            return Err(format!("waited {patience:?} for {what}; seen last: {failure}").into());
        }
        sleep(PAUSE).await;
    }
}

/// Fails with `otherwise` unless `condition` holds.
///
/// # Errors
/// If it does not hold.
pub fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}
