//! What stamps are worth. Pure: readings and stamps are arguments.
//!
//! The kernel stamps packets with its wall clock, which may be stepped at any moment. So a stamp is only ever subtracted
//! from another one of the same host, and only if the host's wall clock was not stepped in between. That shows in the
//! difference between wall clock and monotonic clock: the kernel slews both together and steps only the former.

use std::time::Duration;

use crate::ledger::Moment;

/// The kernel's wall clock, in nanoseconds since 1970. It says nothing by itself: the clock may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub i64);

impl Wall {
    /// Nanoseconds in a second.
    pub const SECOND: i64 = 1_000_000_000;

    /// Nanoseconds since an earlier moment: negative if it is a later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two clocks may differ by this much in what they say of the same instant, in nanoseconds: they are rounded apart.
/// A step that is smaller does no more harm than that.
const ROUNDING: i64 = 1_000;

/// Both clocks at one moment: the wall clock was read between two readings of the monotonic one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The monotonic clock, just before.
    pub before: Moment,
    /// The wall clock.
    pub wall: Wall,
    /// The monotonic clock, just after.
    pub after: Moment,
}

impl Reading {
    /// Whether the wall clock was certainly stepped between an earlier reading and this one.
    #[must_use]
    pub fn stepped_since(&self, earlier: &Self) -> bool {
        let (low, high) = self.offset();
        let (earlier_low, earlier_high) = earlier.offset();
        low > earlier_high.saturating_add(ROUNDING) || high.saturating_add(ROUNDING) < earlier_low
    }

    /// The bounds of what the wall clock is ahead of the monotonic one.
    fn offset(&self) -> (i64, i64) {
        let nanos = |moment: Moment| i64::try_from(moment.as_nanos()).unwrap_or(i64::MAX);
        (
            self.wall.0.saturating_sub(nanos(self.after)),
            self.wall.0.saturating_sub(nanos(self.before)),
        )
    }
}

/// All that is known of one answered probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// Our clocks, just before the request was handed to the kernel.
    pub sent: Reading,
    /// The request left our host.
    pub t1: Wall,
    /// It reached the peer's host.
    pub t2: Wall,
    /// The answer left the peer's host.
    pub t3: Wall,
    /// It reached our host.
    pub t4: Wall,
    /// Our clocks, just after the kernel handed us the answer.
    pub received: Reading,
}

/// A round trip, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// (t4 - t1) - (t3 - t2). The clocks of the two hosts may run at different rates, by some 100 ppm at worst: that much of
    /// `peer_host` is the error.
    pub network: Duration,
    /// In our host, before and after the network.
    pub own_host: Duration,
    /// In the peer's host.
    pub peer_host: Duration,
    /// What the program itself saw, by the monotonic clock.
    pub user: Duration,
}

impl Stamps {
    /// The round trip, or `None` if our wall clock was stepped on the way, or if the stamps are out of order, as after a
    /// step of the peer's.
    #[must_use]
    pub fn parts(&self) -> Option<Parts> {
        if self.received.stepped_since(&self.sent) {
            return None;
        }
        let before = not_negative(self.t1.since(self.sent.wall), ROUNDING)?;
        let after = not_negative(self.received.wall.since(self.t4), ROUNDING)?;
        let outside = not_negative(self.t4.since(self.t1), 0)?;
        let peer_host = not_negative(self.t3.since(self.t2), 0)?;
        Some(Parts {
            network: outside.checked_sub(peer_host)?,
            own_host: before + after,
            peer_host,
            user: self.received.before.checked_sub(self.sent.after)?,
        })
    }
}

/// A duration that can't be negative, except by the clocks' rounding.
fn not_negative(nanos: i64, rounding: i64) -> Option<Duration> {
    if nanos < -rounding {
        return None;
    }
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600 * Wall::SECOND;
    const MILLI: i64 = 1_000_000;

    /// A world whose true time is known: two hosts, each with a wall clock that is stepped once, whenever that is.
    #[derive(Clone, Copy, Debug)]
    struct Host {
        offset: i64,
        stepped_at: i64,
        step: i64,
    }

    impl Host {
        fn wall(&self, truth: i64) -> Wall {
            let step = if truth >= self.stepped_at { self.step } else { 0 };
            Wall(1_700_000_000 * Wall::SECOND + self.offset + truth + step)
        }

        fn reading(&self, truth: i64) -> Reading {
            let moment = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap());
            Reading {
                before: moment(truth - 60),
                wall: self.wall(truth),
                after: moment(truth + 60),
            }
        }
    }

    /// Six instants, each so many nanoseconds after the one before.
    fn probe(own: Host, peer: Host, gaps: [i64; 5]) -> (Stamps, Parts, [i64; 6]) {
        let mut truth = [10 * MILLI; 6];
        for n in 1..6 {
            truth[n] = truth[n - 1] + gaps[n - 1];
        }
        let stamps = Stamps {
            sent: own.reading(truth[0]),
            t1: own.wall(truth[1]),
            t2: peer.wall(truth[2]),
            t3: peer.wall(truth[3]),
            t4: own.wall(truth[4]),
            received: own.reading(truth[5]),
        };
        let nanos = |n: i64| Duration::from_nanos(u64::try_from(n).unwrap());
        let parts = Parts {
            network: nanos(gaps[1] + gaps[3]),
            own_host: nanos(gaps[0] + gaps[4]),
            peer_host: nanos(gaps[2]),
            user: nanos(gaps.iter().sum::<i64>() - 120),
        };
        (stamps, parts, truth)
    }

    fn steady(offset: i64) -> Host {
        Host {
            offset,
            stepped_at: i64::MAX,
            step: 0,
        }
    }

    #[test]
    fn a_round_trip_falls_into_its_parts_whatever_the_clocks_say() {
        let gaps = [8_000, 20_000, 3 * MILLI, 21_000, 40_000];
        for (own, peer) in [(0, 0), (HOUR, -HOUR), (-HOUR, HOUR), (0, 20 * 365 * 24 * HOUR)] {
            let (stamps, truth, _) = probe(steady(own), steady(peer), gaps);
            assert_eq!(stamps.parts(), Some(truth));
        }
    }

    #[test]
    fn the_parts_add_up_to_what_the_program_saw() {
        let (stamps, _, _) = probe(steady(5), steady(77), [8_000, 20_000, 3 * MILLI, 21_000, 40_000]);
        let parts = stamps.parts().unwrap();
        let sum = parts.network + parts.own_host + parts.peer_host;
        assert!(sum.abs_diff(parts.user) <= Duration::from_nanos(120));
    }

    #[test]
    fn an_answer_before_its_request_is_no_sample() {
        let (good, _, _) = probe(steady(0), steady(0), [8_000, 20_000, MILLI, 21_000, 40_000]);
        for wrong in [
            Stamps {
                t4: Wall(good.t1.0 - 1),
                ..good
            },
            Stamps {
                t3: Wall(good.t2.0 - 1),
                ..good
            },
            // The peer claims to have held it for longer than it was away.
            Stamps {
                t3: Wall(good.t3.0 + 41_001),
                ..good
            },
            Stamps {
                t1: Wall(good.sent.wall.0 - ROUNDING - 1),
                ..good
            },
            Stamps {
                t4: Wall(good.received.wall.0 + ROUNDING + 1),
                ..good
            },
        ] {
            assert_eq!(wrong.parts(), None, "{wrong:?}");
        }
        assert!(good.parts().is_some());
    }

    #[test]
    fn a_pause_between_the_clocks_is_no_step() {
        let host = steady(0);
        let early = host.reading(MILLI);
        let mut late = host.reading(100 * MILLI);
        late.after += Duration::from_millis(50);
        assert!(!late.stepped_since(&early) && !early.stepped_since(&late));
    }

    fn step() -> impl Strategy<Value = i64> {
        prop_oneof![
            Just(HOUR),
            Just(-HOUR),
            Just(5 * MILLI),
            Just(-5 * MILLI),
            -HOUR..HOUR
        ]
    }

    fn gaps() -> impl Strategy<Value = [i64; 5]> {
        prop::array::uniform5(prop_oneof![1_000..100_000_i64, 1_000..200 * MILLI])
    }

    proptest! {
        /// The network's time is right or there is none, whenever our clock is stepped, and however far.
        #[test]
        fn a_step_of_our_clock_never_gives_a_wrong_number(step in step(), at in 0.0..1.2_f64, gaps in gaps()) {
            let (_, _, truth) = probe(steady(0), steady(0), gaps);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any instant will do")]
            let stepped_at = truth[0] + ((truth[5] - truth[0]) as f64 * at) as i64;
            let own = Host { offset: 0, stepped_at, step };
            let (stamps, right, _) = probe(own, steady(0), gaps);
            if let Some(parts) = stamps.parts() {
                prop_assert!(parts.network.abs_diff(right.network) <= Duration::from_nanos(2_000), "{parts:?} {right:?}");
                prop_assert!(parts.own_host.abs_diff(right.own_host) <= Duration::from_nanos(4_000), "{parts:?} {right:?}");
            }
            if (stepped_at <= truth[0] - 60 || stepped_at > truth[5] + 60) || step == 0 {
                prop_assert_eq!(stamps.parts(), Some(right));
            }
        }

        /// The peer sees its own clock's steps by the same readings, and then gives no t3.
        #[test]
        fn a_step_of_the_peer_s_clock_is_seen_at_the_peer(step in step(), at in 0.0..1.0_f64, gaps in gaps()) {
            prop_assume!(step.abs() > 2 * ROUNDING);
            let (_, _, truth) = probe(steady(0), steady(0), gaps);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any instant will do")]
            let stepped_at = truth[2] + ((truth[3] - truth[2]) as f64 * at) as i64 + 1;
            let peer = Host { offset: 7, stepped_at, step };
            // The readings that a reflector takes before the request came, and after the answer left.
            let (earlier, later) = (peer.reading(truth[2] - 500), peer.reading(truth[3] + 500));
            prop_assert!(later.stepped_since(&earlier));
        }

        #[test]
        fn no_stamps_panic(t in prop::array::uniform6(any::<i64>()), moments in prop::array::uniform4(any::<u64>())) {
            let reading = |wall, before, after| Reading {
                before: Duration::from_nanos(before),
                wall: Wall(wall),
                after: Duration::from_nanos(after),
            };
            let stamps = Stamps {
                sent: reading(t[0], moments[0], moments[1]),
                t1: Wall(t[1]),
                t2: Wall(t[2]),
                t3: Wall(t[3]),
                t4: Wall(t[4]),
                received: reading(t[5], moments[2], moments[3]),
            };
            if let Some(parts) = stamps.parts() {
                let away = Duration::from_nanos(stamps.t4.since(stamps.t1).unsigned_abs());
                prop_assert!(parts.network <= away);
            }
        }
    }
}
