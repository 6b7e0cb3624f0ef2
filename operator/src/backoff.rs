//! How long to wait after an error: longer each time, per network, and never the same for all.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(500);
/// The operator is to be back at work within 10 s of the API server's return, so it never waits longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// Errors in a row, by network.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// The wait after one more error.
    pub fn next(&self, network: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(network.to_owned()).or_default();
        let wait = doubled(*count);
        *count = count.saturating_add(1);
        jitter(wait)
    }

    /// Forgets a network's errors.
    pub fn reset(&self, network: &str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(network);
    }
}

/// Waits between tries of a watch that fails: doubling, up to the same limit.
#[derive(Debug, Default)]
pub struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = doubled(self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(jitter(wait))
    }
}

impl kube::runtime::utils::Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Up to a fifth less than `wait`, so that many networks don't move in step.
#[must_use]
pub fn jitter(wait: Duration) -> Duration {
    // Without randomness there is no jitter, and nothing worse.
    let random = getrandom::u32().unwrap_or(0);
    wait.mul_f64(1.0 - 0.2 * f64::from(random) / f64::from(u32::MAX))
}

fn doubled(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(8)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_anew() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next("a")).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 8 / 10);
        assert!(waits[3] > waits[0] * 4);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(backoff.next("b") <= FIRST);
        backoff.reset("a");
        assert!(backoff.next("a") <= FIRST);
    }
}
