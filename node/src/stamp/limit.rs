//! How much is answered. Pure: time is an argument.

use std::time::Duration;

use crate::ledger::Moment;

/// A token bucket: so many answers a second over time, and so many at once.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Time that one answer takes to be earned.
    each: Duration,
    burst: u32,
    /// When the bucket was, or will be, empty of debt: tokens are the time since then, in units of `each`.
    full_from: Moment,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(each: Duration, burst: u32) -> Self {
        Self {
            each,
            burst,
            full_from: Moment::ZERO,
        }
    }

    /// Takes one answer, if one is left.
    pub fn take(&mut self, now: Moment) -> bool {
        // Whoever has not asked for long has a full bucket, and not more.
        let start = self
            .full_from
            .max(now.saturating_sub(self.each.saturating_mul(self.burst)));
        let Some(next) = start.checked_add(self.each).filter(|next| *next <= now) else {
            return false;
        };
        self.full_from = next;
        true
    }
}

/// The numbers that have been seen, so that nothing is answered twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    newest: Option<u32>,
    /// Bit n: `newest - n` has been seen.
    seen: u64,
}

impl Window {
    /// Takes a number. False if it has been seen, or is too far behind the newest to tell.
    pub fn take(&mut self, seq: u32) -> bool {
        let Some(newest) = self.newest else {
            self.newest = Some(seq);
            self.seen = 1;
            return true;
        };
        // RFC 1982: numbers wrap around, and the nearer way counts.
        let ahead = seq.wrapping_sub(newest).cast_signed();
        if ahead > 0 {
            self.seen = self.seen.checked_shl(ahead.unsigned_abs()).unwrap_or(0) | 1;
            self.newest = Some(seq);
            return true;
        }
        let Some(bit) = 1_u64.checked_shl(ahead.unsigned_abs()) else {
            return false;
        };
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(MILLI * 10, 3);
        let start = Duration::from_secs(5);
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + MILLI * 9));
        assert!(bucket.take(start + MILLI * 10));
        assert!(!bucket.take(start + MILLI * 19));
        let hour = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(hour)).count(), 3);
    }

    #[test]
    fn a_window_takes_each_number_once_also_where_numbers_wrap_around() {
        let mut window = Window::default();
        for seq in [u32::MAX - 1, u32::MAX, 1, 0, 2] {
            assert!(window.take(seq), "{seq}");
            assert!(!window.take(seq), "{seq}");
        }
        assert!(!window.take(2_u32.wrapping_sub(64)), "too far behind");
        assert!(window.take(2_u32.wrapping_sub(63)));
        assert!(window.take(1_000_000));
        assert!(!window.take(2));
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_burst_and_its_rate(gaps in prop::collection::vec(0..50_u32, 1..200)) {
            let mut bucket = Bucket::new(MILLI * 10, 5);
            let (mut now, mut given) = (Duration::from_secs(1), 0);
            let start = now;
            for gap in gaps {
                now += MILLI * gap;
                given += u32::from(bucket.take(now));
                prop_assert!(given <= 5 + u32::try_from((now - start).as_millis()).unwrap() / 10);
            }
        }

        #[test]
        fn a_window_never_takes_a_number_twice(start: u32, moves in prop::collection::vec(-80..80_i32, 1..300)) {
            let (mut window, mut taken, mut seq) = (Window::default(), HashSet::new(), start);
            for step in moves {
                seq = seq.wrapping_add_signed(step);
                if window.take(seq) {
                    prop_assert!(taken.insert(seq));
                }
            }
        }
    }
}
