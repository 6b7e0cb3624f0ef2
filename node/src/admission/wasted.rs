//! Addresses whose connections come to nothing, time after time.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::bucket::{BySource, Rate};

/// Connections from one address that may come to nothing: so many in one go, and two a second.
pub(super) const ALLOWED: Rate = Rate {
    each: Duration::from_millis(500),
    burst: 16,
};
/// Addresses remembered at a time.
const MAX_SOURCES: usize = 1024;

/// Whose connections came to nothing lately: their handshake failed, or they ended before their peer had shown what it is. Members'
/// do so now and then, when they are cut or one too many. Who makes a habit of it only takes time from those who are in. Clones
/// share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Wasted(Arc<Mutex<BySource<Instant>>>);

impl Default for Wasted {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(BySource::new(ALLOWED, MAX_SOURCES))))
    }
}

impl Wasted {
    /// A connection came to nothing.
    pub(super) fn count(&self, source: IpAddr, now: Instant) {
        self.sources().spend(source, now);
    }

    /// Whether it is too much: no more is accepted from there for now.
    pub(crate) fn is_too_much(&self, source: IpAddr, now: Instant) -> bool {
        self.sources().left(source, now) == 0
    }

    fn sources(&self) -> MutexGuard<'_, BySource<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
