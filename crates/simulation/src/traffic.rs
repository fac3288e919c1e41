//! Models with a known truth, and the requests that they answer.

use fastrand::Rng;
use modelyard_core::{Disagreement, Evidence};

/// What a version does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// The share of requests that it fails.
    pub error_rate: f64,
    /// Of its latencies, which are log-normal: exp of a normal number with this mean and standard deviation, in
    /// logarithms of microseconds.
    pub ln_micros: (f64, f64),
    /// The share of requests that it answers otherwise than the stable version.
    pub flip_rate: f64,
}

impl Truth {
    /// Half a per cent of errors, a median of 20 ms, a 99th percentile 3.2 times that, and the few other answers that
    /// another order of floating-point operations makes.
    pub const STABLE: Self = Self { error_rate: 0.005, ln_micros: (9.903_487_552_536_127, 0.5), flip_rate: 0.001 };

    /// All latencies times `factor`, and so every quantile.
    #[must_use]
    pub fn slower(self, factor: f64) -> Self {
        Self { ln_micros: (self.ln_micros.0 + factor.ln(), self.ln_micros.1), ..self }
    }
}

/// Two versions side by side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Versions {
    pub stable: Truth,
    pub candidate: Truth,
}

/// What came in over a stretch of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) candidate: Evidence,
    pub(crate) stable: Evidence,
}

impl Versions {
    /// `expected` requests in the mean, each given to a version by lot: the candidate's with a chance of `share`.
    pub(crate) fn serve(&self, expected: f64, share: f64, rng: &mut Rng) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..poisson(expected, rng) {
            if rng.f64() < share {
                answer(&self.candidate, &mut batch.candidate, rng);
                let differing = u64::from(rng.f64() < self.candidate.flip_rate);
                let compared = Disagreement { mirrored: 1, compared: 1, differing, ..Disagreement::default() };
                batch.candidate.disagreement.merge(&compared);
            } else {
                answer(&self.stable, &mut batch.stable, rng);
            }
        }
        batch
    }
}

fn answer(truth: &Truth, evidence: &mut Evidence, rng: &mut Rng) {
    evidence.requests += 1;
    evidence.errors += u64::from(rng.f64() < truth.error_rate);
    let (mean, deviation) = truth.ln_micros;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; no latency is below 0")]
    let micros = (mean + deviation * normal(rng)).exp() as u64;
    evidence.latency.record(micros);
}

/// A standard normal number, by Box and Muller (1958).
fn normal(rng: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// How many events happen of which `mean` do on average: counts exponential waiting times (Knuth 1969), in logarithms.
fn poisson(mean: f64, rng: &mut Rng) -> u64 {
    let mut left = mean;
    let mut count = 0;
    loop {
        left += (1.0 - rng.f64()).ln();
        if left < 0.0 {
            return count;
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_true() {
        let candidate = Truth { error_rate: 0.02, flip_rate: 0.03, ..Truth::STABLE.slower(2.0) };
        let versions = Versions { stable: Truth::STABLE, candidate };
        let mut rng = Rng::with_seed(7);
        let batch = versions.serve(200_000.0, 0.25, &mut rng);
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        let close = |value: f64, expected: f64| assert!((value / expected - 1.0).abs() < 0.1, "{value} {expected}");
        let (candidate, stable) = (&batch.candidate, &batch.stable);
        close(share(candidate.requests, candidate.requests + stable.requests), 0.25);
        close(share(candidate.errors, candidate.requests), 0.02);
        close(share(stable.errors, stable.requests), 0.005);
        close(share(candidate.disagreement.differing, candidate.disagreement.compared), 0.03);
        let p99 = |evidence: &Evidence| evidence.latency.quantile_micros(99, 100).unwrap_or(0) as f64;
        close(p99(stable), 20_000.0 * (2.326f64 * 0.5).exp());
        close(p99(candidate) / p99(stable), 2.0);
    }
}
