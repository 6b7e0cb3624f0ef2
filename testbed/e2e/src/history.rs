//! Every status that a network had, from a watch: nothing that was there for a moment only is missed.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use peernet_api::v1alpha1::{PeerNetwork, PeerNetworkStatus};
use tokio::task::JoinHandle;

use crate::network::Network;

/// The statuses of a network since this was made. Watching ends when it is dropped.
pub struct History {
    seen: Arc<Mutex<Vec<PeerNetworkStatus>>>,
    watch: JoinHandle<()>,
}

impl History {
    /// Begins to watch.
    #[must_use]
    pub fn of(network: &Network) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let only = watcher::Config::default().fields(&format!("metadata.name={}", network.name));
        let changes = watcher(network.api::<PeerNetwork>(), only)
            .default_backoff()
            .applied_objects();
        let into = seen.clone();
        let watch = tokio::spawn(
            changes
                // The watch goes on by itself after an error.
                .into_stream()
                .filter_map(async |change| change.ok()?.status)
                .for_each(move |status| {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(status);
                    std::future::ready(())
                }),
        );
        Self { seen, watch }
    }

    /// What was seen until now, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<PeerNetworkStatus> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
