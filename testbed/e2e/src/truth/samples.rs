//! Percentiles of samples, exactly: all of them are kept.

/// Durations, in nanoseconds, ascending. Differences may be negative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples(Vec<i64>);

impl Samples {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest sample that at least `percent` percent of all do not exceed (nearest rank).
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<i64> {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil().max(1.0);
        self.0.get(rank as usize - 1).copied()
    }

    /// The share of the samples for which something holds; none, if there are no samples.
    #[must_use]
    pub fn share(&self, holds: impl Fn(i64) -> bool) -> Option<f64> {
        let number = self.0.iter().filter(|&&sample| holds(sample)).count();
        (!self.0.is_empty()).then(|| number as f64 / self.0.len() as f64)
    }
}

impl FromIterator<i64> for Samples {
    fn from_iter<I: IntoIterator<Item = i64>>(samples: I) -> Self {
        let mut samples: Vec<i64> = samples.into_iter().collect();
        samples.sort_unstable();
        Self(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Samples = (1..=200).rev().collect();
        assert_eq!(samples.percentile(50.0), Some(100));
        assert_eq!(samples.percentile(99.0), Some(198));
        assert_eq!(samples.percentile(99.9), Some(200));
        assert_eq!(samples.percentile(0.0), Some(1));
        assert_eq!(samples.percentile(100.0), Some(200));
        assert_eq!(Samples::default().percentile(50.0), None);
    }

    #[test]
    fn no_samples_have_no_share() {
        let samples: Samples = [1, 2, 3, 4].into_iter().collect();
        assert_eq!(samples.share(|sample| sample > 3), Some(0.25));
        assert_eq!(Samples::default().share(|_| true), None);
    }
}
