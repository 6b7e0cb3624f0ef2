//! How much of something there may be: in one go, and over time. Pure: time is an argument.

use std::{
    collections::HashMap,
    net::IpAddr,
    ops::{Add, Sub},
    time::Duration,
};

/// So many at once, and so many a second over time: the generic cell rate algorithm (ITU-T I.371). `T` is a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<T> {
    rate: Rate,
    /// When all that was taken has come back.
    full: T,
}

/// What a bucket holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Time after which one that was taken has come back.
    pub(crate) each: Duration,
    /// How many there are when all have come back.
    pub(crate) burst: u32,
}

impl<T> Bucket<T>
where
    T: Copy + Ord + Add<Duration, Output = T> + Sub<Output = Duration>,
{
    /// A full bucket.
    pub(crate) fn new(rate: Rate, now: T) -> Self {
        Self { rate, full: now }
    }

    /// How long it takes until all have come back.
    fn debt(&self, now: T) -> Duration {
        if self.full > now {
            self.full - now
        } else {
            Duration::ZERO
        }
    }

    /// How many may be taken.
    pub(crate) fn left(&self, now: T) -> u32 {
        let missing = self
            .debt(now)
            .as_nanos()
            .div_ceil(self.rate.each.as_nanos().max(1));
        self.rate
            .burst
            .saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Takes one, if one is left.
    pub(crate) fn take(&mut self, now: T) -> bool {
        let is_left = self.left(now) > 0;
        if is_left {
            self.spend(1, now);
        }
        is_left
    }

    /// Takes so many, also where fewer are left: these have to come back first.
    pub(crate) fn spend(&mut self, count: u32, now: T) {
        self.full = self.full.max(now) + self.rate.each.saturating_mul(count);
    }

    /// The first moment from then on at which so many may be taken.
    pub(crate) fn next(&self, count: u32, from: T) -> T {
        let missing = self.rate.burst.saturating_sub(count);
        from + self
            .debt(from)
            .saturating_sub(self.rate.each.saturating_mul(missing))
    }
}

/// A bucket for each address, of as many addresses as are remembered.
#[derive(Debug)]
pub(crate) struct BySource<T> {
    rate: Rate,
    most: usize,
    buckets: HashMap<IpAddr, Bucket<T>>,
}

impl<T> BySource<T>
where
    T: Copy + Ord + Add<Duration, Output = T> + Sub<Output = Duration>,
{
    /// Full buckets, for `most` addresses at a time.
    pub(crate) fn new(rate: Rate, most: usize) -> Self {
        let buckets = HashMap::new();
        Self { rate, most, buckets }
    }

    /// How many an address may take.
    pub(crate) fn left(&self, source: IpAddr, now: T) -> u32 {
        let known = self.buckets.get(&source);
        known.map_or(self.rate.burst, |bucket| bucket.left(now))
    }

    /// Takes one, if that address has one left.
    pub(crate) fn take(&mut self, source: IpAddr, now: T) -> bool {
        self.of(source, now).take(now)
    }

    /// Takes one, also where none is left.
    pub(crate) fn spend(&mut self, source: IpAddr, now: T) {
        self.of(source, now).spend(1, now);
    }

    /// What an address has. Where too many are known, those who took least are forgotten first: that gains them least.
    fn of(&mut self, source: IpAddr, now: T) -> &mut Bucket<T> {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&source) {
            self.buckets.retain(|_, bucket| bucket.full > now);
            if self.buckets.len() >= self.most
                && let Some(least) = self.buckets.iter().min_by_key(|(_, bucket)| bucket.full)
            {
                let least = *least.0;
                self.buckets.remove(&least);
            }
        }
        self.buckets
            .entry(source)
            .or_insert_with(|| Bucket::new(self.rate, now))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Instant};

    use proptest::prelude::*;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn bucket(burst: u32) -> Bucket<Duration> {
        let each = MILLI * 10;
        Bucket::new(Rate { each, burst }, Duration::ZERO)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut bucket, start) = (bucket(3), Duration::ZERO);
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + MILLI * 9));
        assert!(bucket.take(start + MILLI * 10));
        assert!(!bucket.take(start + MILLI * 19));
        let hour = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(hour)).count(), 3);
    }

    #[test]
    fn what_is_left_and_when_there_is_more_agree_with_what_may_be_taken() {
        let (mut bucket, start) = (bucket(3), Duration::ZERO);
        assert_eq!(bucket.left(start), 3);
        assert_eq!(bucket.next(3, start), start);
        bucket.spend(2, start);
        assert_eq!(bucket.left(start), 1);
        assert_eq!(bucket.next(1, start), start);
        assert_eq!(bucket.next(2, start), start + MILLI * 10);
        assert_eq!(bucket.next(3, start + MILLI * 5), start + MILLI * 20);
        assert_eq!(bucket.left(start + MILLI * 9), 1);
        assert_eq!(bucket.left(start + MILLI * 10), 2);
        // What was taken beyond that has to come back first.
        bucket.spend(4, start);
        assert_eq!(bucket.left(start), 0);
        assert!(!bucket.take(start + MILLI * 39));
        assert_eq!(bucket.next(1, start), start + MILLI * 40);
        assert!(bucket.take(start + MILLI * 40));
    }

    fn source(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn each_address_has_its_own_and_those_who_took_least_are_forgotten_first() {
        let (each, start) = (MILLI * 500, Instant::now());
        let mut all = BySource::new(Rate { each, burst: 16 }, 1024);
        for _ in 0..16 {
            assert!(all.take(source(0), start));
        }
        assert!(!all.take(source(0), start));
        assert_eq!(all.left(source(1), start), 16);
        for n in 1..10_000 {
            all.spend(source(n), start);
        }
        assert_eq!(all.buckets.len(), 1024);
        assert_eq!(all.left(source(0), start), 0);
        assert_eq!(all.left(source(0), start + each), 1);
        // And all of them when their time is over.
        all.spend(source(10_000), start + each * 16);
        assert_eq!(all.buckets.len(), 1);
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_burst_and_its_rate(gaps in prop::collection::vec(0..50_u32, 1..200)) {
            let mut bucket = bucket(5);
            let (mut now, mut given) = (Duration::ZERO, 0);
            let start = now;
            for gap in gaps {
                now += MILLI * gap;
                given += u32::from(bucket.take(now));
                prop_assert!(given <= 5 + u32::try_from((now - start).as_millis()).unwrap() / 10);
            }
        }
    }
}
