//! Follows the file with the keys: the kubelet replaces it when the Secret changes.

use std::{path::PathBuf, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::Keys;
use crate::config;

/// Reads the file again and again, at this pace. While it can't be used, the keys that are known stay.
pub async fn follow(keys: Keys, file: PathBuf, pace: Duration) {
    let mut wrong = None;
    let mut tick = interval(pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // A few bytes from memory: the kubelet mounts Secrets as tmpfs.
        match config::swarm_keys(&file) {
            Ok(given) => {
                if keys.replace(given) {
                    let report = keys.report();
                    tracing::info!(key = report.key, also = ?report.accepted, "the private network's key changed");
                } else if wrong.take().is_some() {
                    tracing::info!("the private network's key can be read again");
                }
                wrong = None;
            }
            Err(error) => {
                if wrong.as_ref() != Some(&error) {
                    tracing::warn!(%error, "going on with the private network's key as it was");
                }
                wrong = Some(error);
            }
        }
    }
}
