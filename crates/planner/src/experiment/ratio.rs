//! Whether units came to the variants in the ratio of their shares (sample ratio mismatch: Fabijan et al. 2019).
//!
//! The evidence against it is the Bayes factor of a Dirichlet prior around the shares to the shares themselves (Lindon
//! and Malek 2022, "Anytime-valid inference for multinomial count data"). While units are counted exactly it is a
//! martingale, so a mismatch is ever claimed wrongly with a chance of at most [`ALPHA`], however often one looks. Above
//! [`UnitSample::SIZE`] units a common sample is compared, drawn anew at each look; there the bound is for each look by
//! itself (by Markov's inequality), which is why it is strict.

use modelyard_core::outcomes::{SampleCount, SampleRatio};
use modelyard_core::{UnitSample, VariantName, Weight};

/// The level at which a mismatch is claimed.
const ALPHA: f64 = 0.0005;
/// Below this number nothing is said.
const LEAST_UNITS: u64 = 100;
/// How close to the shares other ratios are looked for: those off by about a twentieth are found soonest.
const CONCENTRATION: f64 = 100.0;

/// Of the variants' shares, which sum to the whole, and the units that each had.
pub fn sample_ratio<'a>(variants: impl IntoIterator<Item = (&'a VariantName, Weight, &'a UnitSample)>) -> SampleRatio {
    let variants: Vec<_> = variants.into_iter().collect();
    let samples: Vec<_> = variants.iter().map(|(_, _, units)| *units).collect();
    let counts = UnitSample::common(&samples);
    let all: u64 = counts.iter().sum();
    let share = |weight: Weight| f64::from(weight.basis_points()) / 10_000.0;
    let evidence = evidence(&counts.iter().zip(&variants).map(|(n, (_, w, _))| (*n, share(*w))).collect::<Vec<_>>());
    let is_enough = all >= LEAST_UNITS;
    let p_value = is_enough.then(|| (-evidence).exp().min(1.0));
    let counts = variants.iter().zip(&counts).map(|((variant, weight, _), units)| SampleCount {
        variant: (*variant).clone(),
        units: *units,
        expected: float(all) * share(*weight),
    });
    SampleRatio { mismatch: p_value.map(|p| p < ALPHA), p_value, counts: counts.collect() }
}

/// The natural logarithm of the Bayes factor, of `(units, share)`.
fn evidence(counts: &[(u64, f64)]) -> f64 {
    let all: f64 = counts.iter().map(|(n, _)| float(*n)).sum();
    let term = |(units, share): &(u64, f64)| match (*units, *share) {
        (0, _) => 0.0,
        // Who has no share gets nobody.
        (_, 0.0) => f64::INFINITY,
        (units, share) => {
            let prior = CONCENTRATION * share;
            ln_gamma(prior + float(units)) - ln_gamma(prior) - float(units) * share.ln()
        }
    };
    counts.iter().map(term).sum::<f64>() + ln_gamma(CONCENTRATION) - ln_gamma(CONCENTRATION + all)
}

/// ln Γ(x) for x > 0, to 13 digits or more: Lanczos' approximation (1964) with Godfrey's coefficients for g = 7, n = 9;
/// below 1/2 by the recurrence.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const COEFFICIENTS: [f64; 8] = [
        676.5203681218851,
        -1259.1392167224028,
        771.3234287776531,
        -176.6150291621406,
        12.507343278686905,
        -0.13857109526572012,
        9.984369578019572e-6,
        1.5056327351493116e-7,
    ];
    if x < 0.5 {
        return ln_gamma(x + 1.0) - x.ln();
    }
    let x = x - 1.0;
    let (sum, _) = COEFFICIENTS.iter().fold((0.9999999999998099, x), |(sum, x), c| (sum + c / (x + 1.0), x + 1.0));
    let t = x + G + 0.5;
    (2.0 * std::f64::consts::PI).ln() / 2.0 + (x + 0.5) * t.ln() - t + sum.ln()
}

#[expect(clippy::cast_precision_loss, reason = "counts of units")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelyard_core::{Salt, UnitHash};

    #[test]
    fn the_logarithm_of_the_gamma_function_is_right() {
        let mut factorial = 0.0f64;
        for n in 1..200u32 {
            assert!((ln_gamma(f64::from(n)) - factorial).abs() < 1e-10 * factorial.max(1.0), "{n}");
            factorial += f64::from(n).ln();
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.ln() / 2.0).abs() < 1e-12);
        assert!((ln_gamma(0.1) - 2.252_712_651_734_206).abs() < 1e-12);
    }

    #[test]
    fn the_evidence_is_not_expected_to_grow_where_the_shares_are_right() {
        // Exactly: over the binomial distribution of n units.
        for (share, n) in [(0.5, 1u32), (0.5, 30), (0.1, 30), (0.95, 60)] {
            let mut probability = (1.0f64 - share).powi(i32::try_from(n).unwrap());
            let mut expected = 0.0;
            for x in 0..=n {
                let counts = [(u64::from(x), share), (u64::from(n - x), 1.0 - share)];
                expected += probability * evidence(&counts).exp();
                probability *= f64::from(n - x) / f64::from(x + 1) * share / (1.0 - share);
            }
            assert!((expected - 1.0).abs() < 1e-9, "{share} {n}: {expected}");
        }
    }

    fn sample(units: std::ops::Range<u32>) -> UnitSample {
        let salt: Salt = "d/1".parse().unwrap();
        let mut sample = UnitSample::default();
        units.for_each(|unit| sample.add(UnitHash::of(&salt, &unit.to_string())));
        sample
    }

    fn ratio(one: std::ops::Range<u32>, other: std::ops::Range<u32>, percent: f64) -> SampleRatio {
        let names: [VariantName; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let weight = Weight::from_percent(percent).unwrap();
        let (one, other) = (sample(one), sample(other));
        sample_ratio([(&names[0], weight, &one), (&names[1], weight.rest(), &other)])
    }

    #[test]
    fn what_is_split_as_it_should_be_is_no_mismatch() {
        assert_eq!(ratio(0..500, 500..1010, 50.0).mismatch, Some(false));
        assert_eq!(ratio(0..100, 100..1000, 10.0).mismatch, Some(false));
        assert_eq!(ratio(0..50_000, 50_000..101_000, 50.0).mismatch, Some(false), "sampled");
        assert_eq!(ratio(0..9, 9..30, 50.0).mismatch, None, "too few");
    }

    #[test]
    fn a_variant_that_loses_units_is_found_out() {
        let found = ratio(0..400, 400..1000, 50.0);
        assert_eq!(found.mismatch, Some(true), "{found:?}");
        assert!((found.counts[0].expected - 500.0).abs() < 1e-9);
        assert_eq!(ratio(0..40_000, 40_000..100_000, 50.0).mismatch, Some(true), "sampled");
        assert_eq!(ratio(0..150, 150..300, 100.0).mismatch, Some(true), "units where there should be none");
    }
}
