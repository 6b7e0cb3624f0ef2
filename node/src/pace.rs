//! When probes of either kind are due, and how late the process was when it saw to them. Pure: time is an argument.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use peernet_api::{report::HOST_LATE_NANOS, transport::Transport};

/// A new peer's first probe waits at most this long, so that many peers met at once are not probed at once.
const MAX_FIRST_DELAY: Duration = Duration::from_millis(250);

/// Longest time over which the transports' pings are spread.
const MAX_PHASES: Duration = Duration::from_secs(4);

/// Whether a process that wakes so long after it wanted to was kept from running.
pub(crate) fn is_late(lateness: Duration) -> bool {
    lateness > Duration::from_nanos(HOST_LATE_NANOS)
}

/// When the first probe of a new peer is due.
pub(crate) fn first<T: Add<Duration, Output = T>>(now: T, interval: Duration) -> T {
    now + interval.min(MAX_FIRST_DELAY).mul_f64(rand::random())
}

/// How far into the interval pings leave over a transport, so that those over several do not wait for each other, nor
/// for STAMP's packets, which leave in its middle. Where probes are rare, nothing need be far apart.
pub(crate) fn phase(transport: Transport, interval: Duration) -> Duration {
    let quarter = interval.min(MAX_PHASES) / 4;
    match transport {
        Transport::Tcp => Duration::ZERO,
        Transport::Quic => quarter,
        Transport::WebSocket => quarter * 3,
    }
}

/// The first point of a grid that is not past.
pub(crate) fn next_on_grid<T>(point: T, now: T, interval: Duration) -> T
where
    T: Copy + Ord + Add<Duration, Output = T> + Sub<Output = Duration>,
{
    if now <= point {
        return point;
    }
    // A new connection is not left without a number for long.
    let interval = interval.min(MAX_PHASES);
    let passed = (now - point).as_nanos().div_ceil(interval.as_nanos().max(1));
    point + interval.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX))
}

/// When probes are due: on a grid of the interval, each one up to a tenth of it late at random, so that agents started
/// together don't stay in step with each other or with anything else that is periodic on the host. `T` is a moment.
#[derive(Debug)]
pub(crate) struct Pace<T> {
    interval: Duration,
    grid: T,
    fire: T,
}

impl<T> Pace<T>
where
    T: Copy + Ord + Add<Duration, Output = T> + Sub<Output = Duration>,
{
    pub(crate) fn new(now: T, interval: Duration) -> Self {
        Self::starting_at(first(now, interval), interval)
    }

    pub(crate) fn starting_at(first: T, interval: Duration) -> Self {
        Self {
            interval,
            grid: first,
            fire: first,
        }
    }

    /// When the next probe is due.
    pub(crate) fn fire(&self) -> T {
        self.fire
    }

    /// By how much a probe is overdue, if one is due. The next one is set then: a process that was stopped does not
    /// catch up.
    pub(crate) fn due(&mut self, now: T) -> Option<Duration> {
        if now < self.fire {
            return None;
        }
        let lateness = now - self.fire;
        let next = self.grid + self.interval;
        self.set(if next <= now { now + self.interval } else { next });
        Some(lateness)
    }

    /// Goes on half an interval away from another thing at the same pace.
    pub(crate) fn avoid(&mut self, other: T, now: T) {
        let behind = if now > other { now - other } else { Duration::ZERO };
        let intervals = behind.as_nanos() / self.interval.as_nanos().max(1);
        let passed = self
            .interval
            .saturating_mul(u32::try_from(intervals).unwrap_or(u32::MAX));
        let next = other + passed + self.interval / 2;
        self.set(if next <= now { next + self.interval } else { next });
    }

    fn set(&mut self, grid: T) {
        self.grid = grid;
        self.fire = grid + self.interval.mul_f64(rand::random::<f64>() / 10.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_pace_keeps_its_grid_and_never_catches_up() {
        let second = SECOND;
        let mut pace = Pace::new(Instant::now(), second);
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

    #[test]
    fn the_grid_holds_from_the_first_probe_on() {
        let mut pace = Pace::starting_at(SECOND * 5, SECOND);
        for n in 0..1000 {
            let offset = pace.fire - SECOND * (5 + n);
            assert!(offset <= SECOND / 10, "probe {n} is {offset:?} off the grid");
            assert!(pace.due(pace.fire).is_some());
        }
        assert!(pace.due(SECOND * 9000).is_some());
        assert!(pace.fire >= SECOND * 9001);
    }

    #[test]
    fn transports_keep_their_distance_on_one_grid() {
        let anchor = SECOND * 5;
        for (transport, millis) in [
            (Transport::Tcp, 0),
            (Transport::Quic, 250),
            (Transport::WebSocket, 750),
        ] {
            for late in [0, 1, 249, 250, 251, 1_000, 86_400_000] {
                let now = anchor + Duration::from_millis(late);
                let first = next_on_grid(anchor + phase(transport, SECOND), now, SECOND);
                assert!(
                    first >= now && first < now + SECOND,
                    "{transport} {late}: {first:?}"
                );
                assert_eq!((first.as_millis()) % 1000, millis, "{transport} {late}");
            }
        }
    }

    #[test]
    fn probes_leave_between_the_pings() {
        let now = Duration::from_millis(100_700);
        let mut pace = Pace::starting_at(now, SECOND);
        for ping in [1_200, 99_900, 100_699, 100_701, 101_300] {
            pace.avoid(Duration::from_millis(ping), now);
            let phase = (pace.fire.as_millis() + 1_000_000 - u128::from(ping)) % 1000;
            assert!((500..=600).contains(&phase), "{ping}: {phase}");
            assert!(pace.fire > now && pace.fire <= now + SECOND * 2);
        }
    }
}
