//! A mergeable log-linear histogram of durations.
//!
//! Each power of two of nanoseconds is split into 64 buckets of equal width, so that a bucket's middle is at most
//! 1/128 (0.8 %) away from any value in it, from 64 ns up to [`MAX_NANOS`]. Below 64 ns each nanosecond has a bucket.
//! Merging adds counts: the percentiles of a merge are those of the pooled samples within the same error, however the
//! samples were split. Averages of percentiles have no such property, which is why nothing in PeerNet averages them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values above this (60 s) are counted in the bucket of this one.
pub const MAX_NANOS: u64 = 60_000_000_000;

const SUB_BUCKET_BITS: u32 = 6;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKET_BITS;

/// Counts of durations by bucket. On the wire: a flat list of numbers, two a bucket in use, in ascending order: how far
/// it is from the bucket before (from 0, for the first one), and its count.
///
/// What came from the wire stays packed, in some two bytes a bucket, until something is counted into it: whoever gathers the
/// reports of many agents keeps thousands of these for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Histogram {
    counts: Counts,
}

#[derive(Clone, Debug)]
enum Counts {
    /// By bucket.
    Open(BTreeMap<u16, u64>),
    /// The numbers of the wire, each in as few bytes as it needs: see [`pack`].
    Packed(Box<[u8]>),
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one duration, in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.add(bucket_of(nanos), 1);
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.buckets() {
            self.add(bucket, count);
        }
    }

    /// Number of durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets()
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets().next().is_none()
    }

    /// The smallest recorded value, in nanoseconds, that at least `permille` thousandths of all values do not exceed
    /// (nearest rank), within the bucket's error. `None` if nothing was counted: unknown is not zero.
    #[must_use]
    pub fn quantile(&self, permille: u16) -> Option<u64> {
        let total = u128::from(self.count());
        let rank = (total * u128::from(permille.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        for (bucket, count) in self.buckets() {
            seen += u128::from(count);
            if seen >= rank {
                return Some(middle_of(bucket));
            }
        }
        None
    }

    /// The middle of the highest bucket in use, in nanoseconds.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.buckets().last().map(|(bucket, _)| middle_of(bucket))
    }

    /// Each used bucket's middle in nanoseconds and its count, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets().map(|(bucket, count)| (middle_of(bucket), count))
    }

    /// Length of its JSON, in bytes.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        let digits = |number: u64| number.checked_ilog10().unwrap_or_default() as usize + 1;
        let mut previous = 0;
        let mut bytes = 0;
        for (bucket, count) in self.buckets() {
            bytes += digits(u64::from(bucket - previous)) + digits(count) + 2;
            previous = bucket;
        }
        // Each number has a comma behind it, except for the last; two brackets.
        bytes.saturating_sub(1) + 2
    }

    /// The buckets in use, ascending, with their counts.
    fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let (open, packed) = match &self.counts {
            Counts::Open(counts) => (Some(counts), None),
            Counts::Packed(bytes) => (None, Some(Unpacked { bytes, at: 0 })),
        };
        let open = open
            .into_iter()
            .flatten()
            .map(|(&bucket, &count)| (bucket, count));
        open.chain(packed.into_iter().flatten())
    }

    fn add(&mut self, bucket: u16, count: u64) {
        if let Counts::Packed(_) = &self.counts {
            self.counts = Counts::Open(self.buckets().collect());
        }
        if let Counts::Open(counts) = &mut self.counts {
            let slot = counts.entry(bucket).or_default();
            *slot = slot.saturating_add(count);
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: Counts::Open(BTreeMap::new()),
        }
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.buckets().eq(other.buckets())
    }
}

impl Eq for Histogram {}

/// Appends a number, seven bits a byte, the lowest first; all bytes but the last have the highest bit set (LEB128).
fn pack(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// Takes a number off the front.
fn unpack(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Reads packed buckets.
struct Unpacked<'a> {
    bytes: &'a [u8],
    /// The bucket before.
    at: u16,
}

impl Iterator for Unpacked<'_> {
    type Item = (u16, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let step = unpack(&mut self.bytes)?;
        self.at = self.at.saturating_add(u16::try_from(step).ok()?);
        Some((self.at, unpack(&mut self.bytes)?))
    }
}

/// What is wrong with a histogram on the wire.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidHistogram {
    /// Each bucket in use has two numbers.
    #[error("the histogram's last bucket has no count")]
    Odd,
    /// Buckets must ascend strictly.
    #[error("histogram bucket {0} does not ascend")]
    Unordered(u64),
    /// The bucket lies above [`MAX_NANOS`].
    #[error("a histogram bucket is out of range")]
    OutOfRange,
    /// Empty buckets are left out; a count that no agent can have reached is refused.
    #[error("histogram bucket {0} has an impossible count")]
    Count(u64),
}

/// More samples than this in one bucket can't come from a prober: a million a second for ten days.
const MAX_COUNT: u64 = 1 << 40;

impl TryFrom<Vec<u64>> for Histogram {
    type Error = InvalidHistogram;

    fn try_from(wire: Vec<u64>) -> Result<Self, Self::Error> {
        let highest = u64::from(bucket_of(MAX_NANOS));
        let (pairs, rest) = wire.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(InvalidHistogram::Odd);
        }
        let mut bytes = Vec::with_capacity(wire.len() + wire.len() / 4);
        let mut at = 0_u64;
        for &[step, count] in pairs {
            if step == 0 && !bytes.is_empty() {
                return Err(InvalidHistogram::Unordered(at));
            }
            at = at.saturating_add(step);
            if at > highest {
                return Err(InvalidHistogram::OutOfRange);
            }
            if count == 0 || count > MAX_COUNT {
                return Err(InvalidHistogram::Count(at));
            }
            pack(step, &mut bytes);
            pack(count, &mut bytes);
        }
        Ok(Self {
            counts: Counts::Packed(bytes.into()),
        })
    }
}

impl From<Histogram> for Vec<u64> {
    fn from(histogram: Histogram) -> Self {
        let mut previous = 0;
        let mut wire = Self::new();
        for (bucket, count) in histogram.buckets() {
            wire.extend([u64::from(bucket - previous), count]);
            previous = bucket;
        }
        wire
    }
}

fn bucket_of(nanos: u64) -> u16 {
    let nanos = nanos.min(MAX_NANOS);
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BUCKET_BITS + 1);
    // At most 30 * 64 + 127 for MAX_NANOS: far inside u16.
    u16::try_from(u64::from(shift) * SUB_BUCKETS + (nanos >> shift)).unwrap_or(u16::MAX)
}

fn middle_of(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let shift = (bucket / SUB_BUCKETS).saturating_sub(1);
    let low = (bucket - shift * SUB_BUCKETS) << shift;
    low + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact_quantile(samples: &[u64], permille: u16) -> u64 {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let rank = (sorted.len() * usize::from(permille)).div_ceil(1000).max(1);
        sorted[rank - 1]
    }

    fn within_one_percent(got: u64, exact: u64) -> bool {
        got.abs_diff(exact) * 100 <= exact
    }

    #[test]
    fn buckets_are_contiguous_and_hold_their_middle() {
        for bucket in 0..=bucket_of(MAX_NANOS) {
            assert_eq!(bucket_of(middle_of(bucket).min(MAX_NANOS)), bucket);
        }
    }

    #[test]
    fn nothing_counted_is_unknown() {
        assert_eq!(Histogram::new().quantile(500), None);
        assert_eq!(Histogram::new().max(), None);
    }

    #[test]
    fn average_of_p99s_is_not_the_p99() {
        // One agent sees 1 ms for ever, the other 100 ms once in fifty. The average of their p99s names a latency that
        // not one probe had; the merge names one that was really felt.
        let (mut calm, mut spiky) = (Histogram::new(), Histogram::new());
        let mut pooled = Vec::new();
        for i in 0..1000_u64 {
            let late = if i % 50 == 0 { 100_000_000 } else { 1_000_000 };
            calm.record(1_000_000);
            spiky.record(late);
            pooled.extend([1_000_000, late]);
        }
        let average = (calm.quantile(990).unwrap() + spiky.quantile(990).unwrap()) / 2;
        let exact = exact_quantile(&pooled, 990);
        let mut merged = calm;
        merged.merge(&spiky);
        assert!(within_one_percent(merged.quantile(990).unwrap(), exact));
        assert!(!within_one_percent(average, exact));
    }

    #[test]
    fn hostile_wire_data_is_refused() {
        for (wire, error) in [
            ("[9,1,0,1]", "does not ascend"),
            ("[9,1,1]", "no count"),
            ("[65535,1]", "out of range"),
            ("[9,1,18446744073709551615,1]", "out of range"),
            ("[9,0]", "impossible count"),
            ("[9,18446744073709551615]", "impossible count"),
            ("[9,-1]", "invalid value"),
            ("[9,1.5]", "invalid type"),
        ] {
            let got = serde_json::from_str::<Histogram>(wire).unwrap_err().to_string();
            assert!(got.contains(error), "{wire}: {got}");
        }
    }

    proptest! {
        #[test]
        fn merged_percentiles_match_the_pooled_samples_however_they_are_split(
            samples in prop::collection::vec(10_000..=MAX_NANOS, 1..600),
            agents in 1_usize..8,
        ) {
            let mut parts = vec![Histogram::new(); agents];
            for (i, &sample) in samples.iter().enumerate() {
                parts[(i * 7 + i / 3) % agents].record(sample);
            }
            let mut merged = Histogram::new();
            for part in &parts {
                merged.merge(part);
            }
            prop_assert_eq!(merged.count(), samples.len() as u64);
            for permille in [1, 500, 900, 990, 999, 1000] {
                let (got, exact) = (merged.quantile(permille).unwrap(), exact_quantile(&samples, permille));
                prop_assert!(within_one_percent(got, exact), "p{} {} {}", permille, got, exact);
            }
        }

        #[test]
        fn the_wire_keeps_every_count(samples in prop::collection::vec(any::<u64>(), 0..200)) {
            let mut histogram = Histogram::new();
            for &sample in &samples {
                histogram.record(sample);
            }
            let wire = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(histogram.json_bytes(), wire.len());
            let mut read = serde_json::from_str::<Histogram>(&wire).unwrap();
            prop_assert_eq!(&read, &histogram);
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), wire);
            prop_assert_eq!((read.max(), read.is_empty()), (histogram.max(), histogram.is_empty()));
            read.record(77);
            histogram.record(77);
            prop_assert_eq!(read, histogram);
        }

        #[test]
        fn packed_numbers_are_read_as_they_were(numbers in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|&number| pack(number, &mut bytes));
            let mut rest = bytes.as_slice();
            let read: Vec<_> = std::iter::from_fn(|| unpack(&mut rest)).collect();
            prop_assert_eq!(read, numbers);
        }
    }
}
