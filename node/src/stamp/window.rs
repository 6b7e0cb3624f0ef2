//! Which packets of a session have been answered already. Pure.

/// The numbers that have been seen, so that nothing is answered twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    newest: Option<u32>,
    /// Bit n: `newest - n` has been seen.
    seen: u64,
}

impl Window {
    /// Whether a number has not been seen, and is not too far behind the newest to tell.
    pub(super) fn is_new(&self, seq: u32) -> bool {
        match self.newest.map(|newest| ahead(seq, newest)) {
            None | Some(1..) => true,
            Some(behind) => 1_u64
                .checked_shl(behind.unsigned_abs())
                .is_some_and(|bit| self.seen & bit == 0),
        }
    }

    /// Remembers a number.
    pub(super) fn take(&mut self, seq: u32) {
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
