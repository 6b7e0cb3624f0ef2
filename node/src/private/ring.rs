//! The keys that are accepted, and for how long. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use peernet_api::private_key::PreSharedKey;

/// Former keys that are remembered, at most.
const MAX_FORMER: usize = 4;

/// The keys of a file, and for a while those that were in it before.
#[derive(Clone, Debug)]
pub struct Ring {
    given: Vec<PreSharedKey>,
    /// The one that went last comes first.
    former: Vec<Former>,
}

#[derive(Clone, Debug)]
struct Former {
    key: PreSharedKey,
    until: Instant,
}

impl Ring {
    /// The keys of a file, in its order.
    #[must_use]
    pub fn new(given: Vec<PreSharedKey>) -> Self {
        Self {
            given,
            former: Vec::new(),
        }
    }

    /// Whether these are the keys of the file that is known.
    #[must_use]
    pub fn holds(&self, given: &[PreSharedKey]) -> bool {
        self.given == given
    }

    /// Takes what the file holds now. What it held before is accepted for `grace` more.
    pub fn replace(&mut self, given: Vec<PreSharedKey>, grace: Duration, now: Instant) {
        let gone = std::mem::replace(&mut self.given, given);
        let until = now + grace;
        let gone = gone.into_iter().map(|key| Former { key, until });
        let former = std::mem::take(&mut self.former);
        for former in gone.chain(former) {
            let known =
                self.given.contains(&former.key) || self.former.iter().any(|other| other.key == former.key);
            if !known && former.until > now && self.former.len() < MAX_FORMER {
                self.former.push(former);
            }
        }
    }

    /// All keys that are accepted. The first one is the one to connect by.
    pub fn accepted(&self, now: Instant) -> impl Iterator<Item = &PreSharedKey> {
        let former = self.former.iter().filter(move |former| former.until > now);
        self.given.iter().chain(former.map(|former| &former.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn key(byte: u8) -> PreSharedKey {
        PreSharedKey::new([byte; 32])
    }

    fn accepted(ring: &Ring, now: Instant) -> Vec<u8> {
        ring.accepted(now).map(|key| key.bytes()[0]).collect()
    }

    #[test]
    fn a_key_that_was_replaced_is_accepted_for_a_while() {
        let start = Instant::now();
        let mut ring = Ring::new(vec![key(1)]);
        ring.replace(vec![key(2)], GRACE, start);
        assert!(ring.holds(&[key(2)]) && !ring.holds(&[key(1)]));
        let last = start + GRACE;
        assert_eq!(accepted(&ring, last - Duration::from_nanos(1)), [2, 1]);
        assert_eq!(accepted(&ring, last), [2]);
        // Another change does not prolong it.
        ring.replace(vec![key(3)], GRACE, last - Duration::from_secs(1));
        assert_eq!(accepted(&ring, last), [3, 2]);
    }

    #[test]
    fn the_order_is_that_of_the_file_and_then_the_one_that_went_last() {
        let now = Instant::now();
        let mut ring = Ring::new(vec![key(1), key(2)]);
        ring.replace(vec![key(2), key(1)], GRACE, now);
        assert_eq!(accepted(&ring, now), [2, 1]);
        ring.replace(vec![key(3)], GRACE, now);
        assert_eq!(accepted(&ring, now), [3, 2, 1]);
        ring.replace(vec![key(1)], GRACE, now);
        assert_eq!(
            accepted(&ring, now),
            [1, 3, 2],
            "a key that returns is given again"
        );
    }

    #[test]
    fn however_often_the_file_changes_the_keys_are_few() {
        let now = Instant::now();
        let mut ring = Ring::new(vec![key(0)]);
        for n in 1..=200 {
            ring.replace(vec![key(n)], GRACE, now + Duration::from_millis(n.into()));
        }
        assert_eq!(
            accepted(&ring, now + Duration::from_secs(1)),
            [200, 199, 198, 197, 196]
        );
    }
}
