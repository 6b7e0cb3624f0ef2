//! Whose handshake is begun, and when.
//!
//! The first packet of a handshake costs its sender next to nothing, and may carry anybody's address. To answer it takes some hundred
//! microseconds of key exchange and signatures in one piece, on the thread that also answers pings, and some kilobytes until it is
//! given up. So whoever comes has to show first that it is where it says (RFC 9000, section 8.1.2): that takes a round trip, and no
//! memory here. And handshakes are rationed: there are many for those who come all at once, as the agents of a network that starts,
//! and a few each second from then on.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::bucket::{Bucket, Rate};

/// Handshakes that may be begun: as many as one agent has peers by default in one go, and four a second. Each takes up to a
/// millisecond in all, so that they make up less than half of the slowest hundredth of all round trips, however many come.
const RATE: Rate = Rate {
    each: Duration::from_millis(250),
    burst: 64,
};
/// From one to the next: pings have their turn in between.
const SPACE: Duration = Duration::from_millis(10);
/// Those who have shown where they are and wait for their turn, at most.
pub(super) const MAX_WAITING: usize = 8;
/// Of them, from one address.
const MAX_WAITING_PER_SOURCE: usize = 2;

/// Those who wait, and how many handshakes may be begun.
#[derive(Debug)]
pub(super) struct Gate<T> {
    waiting: VecDeque<(IpAddr, T)>,
    begun: Bucket<Instant>,
    /// When the next one may be begun, if there is one left.
    free: Instant,
}

impl<T> Gate<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            begun: Bucket::new(RATE, now),
            free: now,
        }
    }

    /// Whether one more may wait.
    pub(super) fn has_place(&self, source: IpAddr) -> bool {
        let of_source = self.waiting.iter().filter(|(other, _)| *other == source);
        self.waiting.len() < MAX_WAITING && of_source.count() < MAX_WAITING_PER_SOURCE
    }

    /// Has one wait for its turn.
    pub(super) fn wait(&mut self, source: IpAddr, who: T) {
        self.waiting.push_back((source, who));
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self, now: Instant) -> Option<T> {
        if now < self.free || self.waiting.is_empty() || !self.begun.take(now) {
            return None;
        }
        let (_, who) = self.waiting.pop_front()?;
        self.free = now + SPACE;
        Some(who)
    }

    /// When the next one has its turn, if one waits.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.begun.next(1, self.free))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    /// Comes, and waits if there is a place.
    fn comes(gate: &mut Gate<u8>, n: u8) -> bool {
        let has_place = gate.has_place(source(n));
        if has_place {
            gate.wait(source(n), n);
        }
        has_place
    }

    /// Whose turns come within that time, one after the other.
    fn turns(gate: &mut Gate<u8>, mut now: Instant, within: Duration) -> Vec<u8> {
        let (end, mut turns) = (now + within, Vec::new());
        loop {
            turns.extend(gate.next(now));
            match gate.due() {
                Some(due) if due <= end => now = due,
                _ => return turns,
            }
        }
    }

    #[test]
    fn a_network_that_starts_gets_in_without_waiting_for_more_than_each_other() {
        let start = Instant::now();
        let (mut gate, mut now) = (Gate::new(start), start);
        for n in 0..u8::try_from(RATE.burst).unwrap() {
            assert!(comes(&mut gate, n));
            assert_eq!(gate.next(now), Some(n));
            assert!(comes(&mut gate, n));
            assert_eq!(gate.next(now), None, "the next one has to wait");
            gate.waiting.clear();
            now += SPACE;
        }
        assert_eq!(gate.due(), None);
    }

    #[test]
    fn a_few_have_their_turn_each_second_and_one_address_leaves_places_for_others() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        gate.begun.spend(RATE.burst, start);
        for _ in 0..MAX_WAITING_PER_SOURCE {
            assert!(comes(&mut gate, 1));
        }
        assert!(!comes(&mut gate, 1));
        for n in 2..=255 {
            let waiting = usize::from(n - 2) + MAX_WAITING_PER_SOURCE;
            assert_eq!(comes(&mut gate, n), waiting < MAX_WAITING);
        }
        assert_eq!(gate.next(start), None);
        let each = RATE.each;
        assert_eq!(gate.due(), Some(start + each));
        assert_eq!(turns(&mut gate, start, each), [1]);
        assert_eq!(turns(&mut gate, start + each, 3 * each), [1, 2, 3]);
    }
}
