//! Wald's bound: what no test can do with fewer trials on average.

/// Trials that Wald's sequential probability ratio test of the rate p₀ against p₁ expects if p₁ is true, the excess over
/// its bounds neglected (Wald 1945, eq. 4:8); no test with these error rates expects fewer (Wald and Wolfowitz 1948).
/// `alpha`: the chance to reject p₀ where it is true; `beta`: to keep it where p₁ is.
pub fn expected_trials(p0: f64, p1: f64, alpha: f64, beta: f64) -> f64 {
    let (accept, reject) = ((beta / (1.0 - alpha)).ln(), ((1.0 - beta) / alpha).ln());
    (beta * accept + (1.0 - beta) * reject) / divergence(p1, p0)
}

/// The Kullback-Leibler divergence of a rate `p` from a rate `q`, in natural logarithms, per trial.
pub fn divergence(p: f64, q: f64) -> f64 {
    p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()
}

/// The share of log-normal latencies, `factor` times as long and with this deviation of their logarithms, that exceeds
/// what 1 % did before.
pub(crate) fn share_above_p99(factor: f64, deviation: f64) -> f64 {
    1.0 - normal_distribution(Z99 - factor.ln() / deviation)
}

/// What 99 % of standard normal numbers stay under.
const Z99: f64 = 2.326_347_874_040_841;

/// The share of standard normal numbers below `x` ≥ 0, to 7.5 · 10^-8 (Abramowitz and Stegun 1964, 26.2.17).
fn normal_distribution(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    1.0 - (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_one_of_the_textbook() {
        // By hand: (0.8 · ln 16 + 0.2 · ln(0.2/0.95)) / 0.012837.
        let trials = expected_trials(0.005, 0.02, 0.05, 0.2);
        assert!((trials - 148.5).abs() < 1.0, "{trials}");
        assert!((share_above_p99(1.0, 0.5) - 0.01).abs() < 1e-6);
        assert!((share_above_p99(1.3, 0.5) - 0.0358).abs() < 2e-4, "{}", share_above_p99(1.3, 0.5));
    }
}
