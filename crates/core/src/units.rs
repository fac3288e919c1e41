//! Exposure: how many requests and units were assigned to a variant, for a test of the ratio between variants.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::assignment::UnitHash;

/// Who was assigned to a variant, whichever variant then answered: where the assigned one has no worker, another does,
/// and what is compared is still what was assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exposure {
    /// Requests with a unit that were assigned.
    pub requests: u64,
    #[serde(skip_serializing_if = "UnitSample::is_empty")]
    pub units: UnitSample,
}

impl Exposure {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.units.merge(&other.units);
    }
}

/// Distinct units, as those with the lowest ranks: a uniform sample of them (the bottom-k sketch of Cohen & Kaplan 2007;
/// the estimate of Bar-Yossef et al. 2002). Exact below [`UnitSample::SIZE`] units; above, good to 2.2 % (one standard
/// error). Adds up over gateways without counting a unit twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitSample(BTreeSet<u64>);

impl UnitSample {
    pub const SIZE: usize = 2_048;
    /// Above all ranks.
    const RANKS: u64 = 1 << 48;

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a unit, if it belongs to the sample.
    pub fn add(&mut self, unit: UnitHash) {
        self.add_rank(unit.rank());
    }

    fn add_rank(&mut self, rank: u64) {
        if rank < self.threshold() && self.0.insert(rank) && self.0.len() > Self::SIZE {
            self.0.pop_last();
        }
    }

    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|rank| self.add_rank(*rank));
    }

    /// Ranks from here on are not in the sample, whether their units were seen or not.
    pub fn threshold(&self) -> u64 {
        match self.0.last() {
            Some(last) if self.0.len() >= Self::SIZE => *last,
            _ => Self::RANKS,
        }
    }

    /// How many distinct units were added, about.
    pub fn estimate(&self) -> u64 {
        if self.0.len() < Self::SIZE {
            return self.0.len() as u64;
        }
        let estimate = u128::from(Self::RANKS) * (Self::SIZE as u128 - 1) / u128::from(self.threshold().max(1));
        u64::try_from(estimate).unwrap_or(u64::MAX)
    }

    /// How many of a common sample of all variants' units each variant has. What a test of the sample ratio
    /// compares with the weights: the sample is drawn without regard to the variant, and each unit counts once.
    pub fn common(samples: &[&Self]) -> Vec<u64> {
        let threshold = samples.iter().map(|sample| sample.threshold()).min().unwrap_or(0);
        samples.iter().map(|sample| sample.0.range(..threshold).count() as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Salt;

    fn of(units: impl IntoIterator<Item = u32>) -> UnitSample {
        let salt: Salt = "linear/3".parse().unwrap();
        let mut sample = UnitSample::default();
        units.into_iter().for_each(|unit| sample.add(UnitHash::of(&salt, &unit.to_string())));
        sample
    }

    #[test]
    fn units_are_counted_once_however_often_and_wherever_they_come() {
        let mut sample = of((0..1_000).chain(500..1_500));
        assert_eq!(sample.estimate(), 1_500);
        sample.merge(&of(1_000..2_000));
        assert_eq!(sample.estimate(), 2_000);
    }

    #[test]
    fn many_units_are_estimated_and_merging_is_counting_all() {
        let mut merged = of(0..20_000);
        merged.merge(&of(10_000..30_000));
        assert_eq!(merged, of(0..30_000));
        let estimate = merged.estimate();
        assert!((27_500..32_500).contains(&estimate), "{estimate}: outside of 4 standard errors of 30,000");
        assert_eq!(merged.0.len(), UnitSample::SIZE);
    }

    #[test]
    fn a_common_sample_shows_the_ratio_of_the_variants() {
        let (many, few) = (of(0..40_000), of(100_000..110_000));
        let common = UnitSample::common(&[&many, &few]);
        let ratio = common[0] * 100 / common[1];
        assert!((340..460).contains(&ratio), "{common:?}");
        assert_eq!(UnitSample::common(&[&of(0..7), &of(7..10)]), [7, 3]);
    }
}
