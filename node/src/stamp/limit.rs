//! How much is answered. Pure: time is an argument.

use std::time::Duration;

use crate::ledger::Moment;

/// So many answers at once, and so many a second over time: the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Time that one answer takes to be earned.
    each: Duration,
    burst: u32,
    /// When all that was given is earned.
    earned: Moment,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(each: Duration, burst: u32) -> Self {
        Self {
            each,
            burst,
            earned: Moment::ZERO,
        }
    }

    /// Takes one answer, if one is left.
    pub fn take(&mut self, now: Moment) -> bool {
        let earned = self.earned.max(now).saturating_add(self.each);
        let allowed = earned.saturating_sub(now) <= self.each.saturating_mul(self.burst);
        if allowed {
            self.earned = earned;
        }
        allowed
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
    /// Whether a number has not been seen, and is not too far behind the newest to tell.
    #[must_use]
    pub fn is_new(&self, seq: u32) -> bool {
        match self.newest.map(|newest| ahead(seq, newest)) {
            None | Some(1..) => true,
            Some(behind) => 1_u64
                .checked_shl(behind.unsigned_abs())
                .is_some_and(|bit| self.seen & bit == 0),
        }
    }

    /// Remembers a number.
    pub fn take(&mut self, seq: u32) {
        match self.newest.map(|newest| ahead(seq, newest)) {
            Some(behind @ ..=0) => self.seen |= 1_u64.checked_shl(behind.unsigned_abs()).unwrap_or(0),
            Some(ahead) => {
                self.seen = self.seen.checked_shl(ahead.unsigned_abs()).unwrap_or(0) | 1;
                self.newest = Some(seq);
            }
            None => {
                self.seen = 1;
                self.newest = Some(seq);
            }
        }
    }
}

/// How far a number is ahead of another one. They wrap around, and the nearer way counts (RFC 1982).
fn ahead(seq: u32, newest: u32) -> i32 {
    seq.wrapping_sub(newest).cast_signed()
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
        let start = Duration::ZERO;
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
            assert!(window.is_new(seq), "{seq}");
            window.take(seq);
            assert!(!window.is_new(seq), "{seq}");
        }
        assert!(!window.is_new(2_u32.wrapping_sub(64)), "too far behind");
        assert!(window.is_new(2_u32.wrapping_sub(63)));
        window.take(1_000_000);
        assert!(!window.is_new(2));
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_burst_and_its_rate(gaps in prop::collection::vec(0..50_u32, 1..200)) {
            let mut bucket = Bucket::new(MILLI * 10, 5);
            let (mut now, mut given) = (Duration::ZERO, 0);
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
                if window.is_new(seq) {
                    window.take(seq);
                    prop_assert!(taken.insert(seq));
                }
            }
        }
    }
}
