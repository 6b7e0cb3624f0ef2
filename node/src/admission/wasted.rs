//! Addresses whose connections come to nothing, time after time.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Connections from one address that may come to nothing in one go.
pub(super) const MOST: u32 = 16;
/// After so long, one more may.
const EACH: Duration = Duration::from_millis(500);
/// Addresses remembered at a time.
const MAX_SOURCES: usize = 1024;

/// Whose connections came to nothing lately: their handshake failed, or they ended before their peer had shown what it is. Members'
/// do so now and then, when they are cut or one too many. Who makes a habit of it only takes time from those who are in.
#[derive(Debug, Default)]
pub(super) struct Wasted {
    /// When all is forgotten that came from an address.
    until: HashMap<IpAddr, Instant>,
}

impl Wasted {
    /// A connection came to nothing.
    pub(super) fn count(&mut self, source: IpAddr, now: Instant) {
        if self.until.len() >= MAX_SOURCES && !self.until.contains_key(&source) {
            self.until.retain(|_, until| now < *until);
            if self.until.len() >= MAX_SOURCES
                && let Some(least) = self.until.iter().min_by_key(|(_, until)| **until)
            {
                let least = *least.0;
                self.until.remove(&least);
            }
        }
        let until = self.until.entry(source).or_insert(now);
        *until = (*until).max(now) + EACH;
    }

    /// Whether it is too much: no more is accepted from there for now.
    pub(super) fn is_too_much(&self, source: IpAddr, now: Instant) -> bool {
        let until = self.until.get(&source);
        until.is_some_and(|until| until.saturating_duration_since(now) > EACH * (MOST - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn an_address_may_waste_so_many_in_one_go_and_two_a_second_from_then_on() {
        let (mut wasted, start) = (Wasted::default(), Instant::now());
        for _ in 0..MOST {
            assert!(!wasted.is_too_much(source(1), start));
            wasted.count(source(1), start);
        }
        assert!(wasted.is_too_much(source(1), start));
        assert!(!wasted.is_too_much(source(2), start));
        let later = start + Duration::from_secs(1);
        for _ in 0..2 {
            assert!(!wasted.is_too_much(source(1), later));
            wasted.count(source(1), later);
        }
        assert!(wasted.is_too_much(source(1), later));
        assert!(!wasted.is_too_much(source(1), later + EACH));
    }

    #[test]
    fn those_who_wasted_least_are_forgotten_first() {
        let (mut wasted, start) = (Wasted::default(), Instant::now());
        for _ in 0..MOST {
            wasted.count(source(0), start);
        }
        for n in 1..10_000 {
            wasted.count(source(n), start);
        }
        assert_eq!(wasted.until.len(), MAX_SOURCES);
        assert!(wasted.is_too_much(source(0), start));
        // And all of them when their time is over.
        let later = start + EACH * MOST;
        wasted.count(source(10_000), later);
        assert_eq!(wasted.until.len(), 1);
    }
}
