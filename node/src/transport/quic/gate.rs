//! Whose handshake is begun, and when.
//!
//! The first packet of a handshake costs its sender next to nothing, and may carry anybody's address. To answer it takes some hundred
//! microseconds of key exchange and signatures in one piece, on the thread that also answers pings, and some kilobytes until it is
//! given up. So handshakes are rationed: there are many for those who come all at once, as the agents of a network that starts, and a
//! few each second from then on. Where they become scarce, who comes has to show first that it is where it says (RFC 9000, section
//! 8.1.2): that takes a round trip, and no memory here. So has who comes from where connections came to nothing lately: nobody's
//! address comes to be known for that by what others write in its name.

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
/// Who comes has to show where it is when there are fewer left than this.
const SCARCE: u32 = RATE.burst / 2;
/// Those who have shown where they are and wait for their turn, at most.
pub(super) const MAX_WAITING: usize = 8;
/// Of them, from one address.
const MAX_WAITING_PER_SOURCE: usize = 2;

/// One who comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comer {
    pub(super) source: IpAddr,
    /// It has shown that it is at this address.
    pub(super) is_validated: bool,
    /// Connections from there came to nothing lately.
    pub(super) has_wasted: bool,
    /// So many did that no more are accepted from there for now.
    pub(super) is_wasteful: bool,
}

/// What becomes of one who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It gets its turn.
    Wait,
    /// It has to show first that it is where it says.
    Validate,
    /// Too many wait already, or too many from there came to nothing: it is not answered. Who means it asks again a second later, by itself, and who only makes trouble
    /// can't do so any faster.
    Ignore,
}

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

    /// Judges one who comes.
    pub(super) fn judge(&self, comer: &Comer, now: Instant) -> Verdict {
        if comer.is_wasteful {
            return Verdict::Ignore;
        }
        let is_suspect = comer.has_wasted || self.begun.left(now) < SCARCE;
        if !comer.is_validated && is_suspect {
            return Verdict::Validate;
        }
        let of_source = self.waiting.iter().filter(|(other, _)| *other == comer.source);
        if self.waiting.len() >= MAX_WAITING || of_source.count() >= MAX_WAITING_PER_SOURCE {
            return Verdict::Ignore;
        }
        Verdict::Wait
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

    /// One whose connections were all well.
    fn comer(n: u8, is_validated: bool) -> Comer {
        Comer {
            source: Ipv4Addr::new(192, 0, 2, n).into(),
            is_validated,
            has_wasted: false,
            is_wasteful: false,
        }
    }

    /// Comes, and waits if it may.
    fn comes(gate: &mut Gate<u8>, n: u8, is_validated: bool, now: Instant) -> Verdict {
        let comer = comer(n, is_validated);
        let verdict = gate.judge(&comer, now);
        if verdict == Verdict::Wait {
            gate.wait(comer.source, n);
        }
        verdict
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
            let is_validated = u32::from(n) > SCARCE;
            assert_eq!(comes(&mut gate, n, is_validated, now), Verdict::Wait);
            assert_eq!(gate.next(now), Some(n));
            assert_eq!(comes(&mut gate, n, true, now), Verdict::Wait);
            assert_eq!(gate.next(now), None, "the next one has to wait");
            gate.waiting.clear();
            now += SPACE;
        }
        assert_eq!(gate.due(), None);
    }

    #[test]
    fn when_handshakes_are_scarce_who_comes_has_to_show_where_it_is() {
        let start = Instant::now();
        let (mut gate, mut now) = (Gate::new(start), start);
        while comes(&mut gate, 1, false, now) == Verdict::Wait {
            gate.next(now).unwrap();
            now += SPACE;
        }
        assert_eq!(gate.begun.left(now), SCARCE - 1);
        assert_eq!(gate.judge(&comer(2, false), now), Verdict::Validate);
        assert_eq!(comes(&mut gate, 2, true, now), Verdict::Wait);
        assert_eq!(gate.next(now), Some(2));
        // Nothing was kept of those who have not.
        assert!(gate.waiting.is_empty());
        assert_eq!(
            gate.judge(&comer(2, false), now + RATE.each * RATE.burst),
            Verdict::Wait
        );
    }

    #[test]
    fn who_wasted_some_has_to_show_where_it_is_and_who_wasted_too_many_is_not_answered() {
        let now = Instant::now();
        let gate = Gate::<u8>::new(now);
        let suspect = |is_validated, is_wasteful| Comer {
            has_wasted: true,
            is_wasteful,
            ..comer(1, is_validated)
        };
        assert_eq!(gate.judge(&suspect(false, false), now), Verdict::Validate);
        assert_eq!(gate.judge(&suspect(true, false), now), Verdict::Wait);
        for is_validated in [true, false] {
            assert_eq!(gate.judge(&suspect(is_validated, true), now), Verdict::Ignore);
        }
    }

    #[test]
    fn a_few_have_their_turn_each_second_and_one_address_leaves_places_for_others() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        gate.begun.spend(RATE.burst, start);
        for _ in 0..MAX_WAITING_PER_SOURCE {
            assert_eq!(comes(&mut gate, 1, true, start), Verdict::Wait);
        }
        assert_eq!(comes(&mut gate, 1, true, start), Verdict::Ignore);
        for n in 2..=255 {
            let verdict = comes(&mut gate, n, true, start);
            let waiting = usize::from(n - 2) + MAX_WAITING_PER_SOURCE;
            assert_eq!(verdict == Verdict::Wait, waiting < MAX_WAITING);
        }
        assert_eq!(gate.next(start), None);
        let each = RATE.each;
        assert_eq!(gate.due(), Some(start + each));
        assert_eq!(turns(&mut gate, start, each), [1]);
        assert_eq!(turns(&mut gate, start + each, 3 * each), [1, 2, 3]);
    }
}
