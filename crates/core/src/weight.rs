//! Shares of traffic and rates, as whole numbers: sums and comparisons stay exact.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::NameError;

/// A share of traffic in basis points (1/100 of a per cent), 0 to 10,000. Written as per cent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = f64))]
pub struct Weight(u16);

impl Weight {
    pub const ZERO: Self = Self(0);
    pub const FULL: Self = Self(10_000);

    /// # Errors
    /// Above 10,000 basis points.
    pub fn from_basis_points(bp: u16) -> Result<Self, NameError> {
        if bp <= 10_000 {
            Ok(Self(bp))
        } else {
            Err(NameError::new("weight", &format!("{}", f64::from(bp) / 100.0), WEIGHT_RULE))
        }
    }

    /// From per cent, with up to two decimals.
    ///
    /// # Errors
    /// Outside 0 to 100, or finer than two decimals.
    pub fn from_percent(percent: f64) -> Result<Self, NameError> {
        let bp = (percent * 100.0).round();
        let exact = (percent * 100.0 - bp).abs() < 1e-6;
        if !(0.0..=10_000.0).contains(&bp) || !exact {
            return Err(NameError::new("weight", &percent.to_string(), WEIGHT_RULE));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 0 to 10,000")]
        Ok(Self(bp as u16))
    }

    pub fn basis_points(self) -> u16 {
        self.0
    }
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
    /// Splits it in proportion to `parts`, to the basis point: those with the largest remainders get what is left over
    /// (Hamilton's method), the first of equal ones first. All zero where the parts are.
    pub fn split(self, parts: &[Self]) -> Vec<Self> {
        let whole: u64 = parts.iter().map(|part| u64::from(part.0)).sum();
        let exact: Vec<u64> = parts.iter().map(|part| u64::from(part.0) * u64::from(self.0)).collect();
        let mut shares: Vec<u64> = exact.iter().map(|n| n.checked_div(whole).unwrap_or(0)).collect();
        let mut by_remainder: Vec<usize> = (0..parts.len()).filter(|_| whole > 0).collect();
        by_remainder.sort_by_key(|i| std::cmp::Reverse(exact[*i] % whole));
        let left = u64::from(self.0).saturating_sub(shares.iter().sum());
        for i in by_remainder.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            shares[i] += 1;
        }
        shares.into_iter().map(|share| Self(u16::try_from(share).unwrap_or(10_000).min(10_000))).collect()
    }
    /// What is left of the whole.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(10_000 - self.0)
    }
}

const WEIGHT_RULE: &str = "use per cent from 0 to 100 with at most two decimals";
const RATE_RULE: &str = "use a share from 0 to 1, such as 0.01";

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} %", self.percent()))
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) { s.serialize_u16(self.0 / 100) } else { s.serialize_f64(self.percent()) }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_percent(f64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A share from 0 to 1 in parts per million: error rates, disagreement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = f64))]
pub struct Rate(u32);

impl Rate {
    pub const PERCENT_5: Self = Self(50_000);
    pub const PERCENT_80: Self = Self(800_000);

    /// # Errors
    /// Outside 0 to 1.
    pub fn from_share(share: f64) -> Result<Self, NameError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(NameError::new("rate", &share.to_string(), RATE_RULE));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within 0 to 1")]
        Ok(Self((share * 1e6).round() as u32))
    }

    pub fn share(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// Whether `part` of `whole` is more than this rate. Exact; an empty whole exceeds nothing.
    pub fn is_exceeded_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 1_000_000 > u128::from(self.0) * u128::from(whole)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}", self.share()))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.share())
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_share(f64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_weight_round_trips_through_json(bp in 0u16..=10_000) {
            let weight = Weight::from_basis_points(bp).unwrap();
            let text = serde_json::to_string(&weight).unwrap();
            prop_assert_eq!(serde_json::from_str::<Weight>(&text).unwrap(), weight);
            prop_assert_eq!(weight.basis_points() + weight.rest().basis_points(), 10_000);
        }
    }

    #[test]
    fn weights_refuse_what_is_not_two_decimals_of_a_per_cent() {
        for bad in [-1.0, 100.01, 10.001, f64::NAN, f64::INFINITY] {
            assert!(Weight::from_percent(bad).is_err(), "{bad}");
        }
        assert_eq!(Weight::from_percent(33.33).map(Weight::basis_points), Ok(3333));
    }
}
