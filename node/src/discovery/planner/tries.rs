//! The dials to one target: whether one is under way, and when there may be another one.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{Outcome, Target, pair::backoff};

/// Where somebody else answered, the next try is after this.
const STRANGER_BACKOFF: Duration = Duration::from_secs(60);

/// What came of the dials so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Those that failed since the last connection that lasted.
    pub(super) failures: u32,
    /// Whether one is under way.
    pub(super) dialing: bool,
    not_before: Option<Instant>,
}

impl Tries {
    /// Whether the pause after the last one is over.
    pub(super) fn may_go_on(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    pub(super) fn finished(&mut self, own_id: PeerId, target: Target, outcome: Outcome, now: Instant) {
        self.dialing = false;
        self.not_before = match outcome {
            // Those that failed are forgotten once it has lasted until the next look: who has no place for us ends it at once.
            Outcome::Connected => None,
            Outcome::Failed => {
                let pause = backoff(own_id, target, self.failures);
                self.failures = self.failures.saturating_add(1);
                Some(now + pause)
            }
            Outcome::Stranger | Outcome::Ourselves => Some(now + STRANGER_BACKOFF),
        };
    }
}
