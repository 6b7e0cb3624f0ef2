//! When probes are due, and how late the process was when it saw to them.

use std::time::{Duration, Instant};

use peernet_api::report::HOST_LATE_NANOS;

/// A new connection's first probe waits at most this long, so that many peers met at once are not probed at once.
const MAX_FIRST_DELAY: Duration = Duration::from_millis(250);

/// Whether a process that wakes so long after it wanted to was kept from running.
pub(super) fn is_late(lateness: Duration) -> bool {
    lateness > Duration::from_nanos(HOST_LATE_NANOS)
}

/// When probes are due: on a grid of the interval, each one up to a tenth of it late at random, so that agents started
/// together don't stay in step with each other or with anything else that is periodic on the host.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    grid: Instant,
    fire: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        let fire = now + interval.min(MAX_FIRST_DELAY).mul_f64(rand::random());
        Self {
            interval,
            grid: fire,
            fire,
        }
    }

    /// When the next probe is due.
    pub(super) fn fire(&self) -> Instant {
        self.fire
    }

    /// By how much a probe is overdue, if one is due. The next one is set then: a process that was stopped does not
    /// catch up.
    pub(super) fn due(&mut self, now: Instant) -> Option<Duration> {
        let lateness = now.checked_duration_since(self.fire)?;
        self.grid += self.interval;
        if self.grid <= now {
            self.grid = now + self.interval;
        }
        self.fire = self.grid + self.interval.mul_f64(rand::random::<f64>() / 10.0);
        Some(lateness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_keeps_its_grid_and_never_catches_up() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(start, second);
        let first = pace.fire;
        for n in 1..=1000_u32 {
            assert_eq!(pace.due(pace.fire - Duration::from_nanos(1)), None);
            assert_eq!(pace.due(pace.fire), Some(Duration::ZERO));
            let offset = pace.fire - (first + second * n);
            assert!(offset <= second / 10, "probe {n} is {offset:?} off the grid");
        }
        let late = pace.fire + second * 60;
        assert_eq!(pace.due(late), Some(second * 60));
        assert_eq!(pace.due(late), None);
        assert!(pace.fire >= late + second);
    }

    #[test]
    fn a_process_is_late_only_above_the_bound() {
        let bound = Duration::from_nanos(HOST_LATE_NANOS);
        assert!(!is_late(bound) && is_late(bound + Duration::from_nanos(1)));
    }
}
