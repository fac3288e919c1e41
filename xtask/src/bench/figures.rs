//! What a load printed, and medians of several.

use serde::Deserialize;

/// As `modelyard-bench load` prints them; see there for units.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Figures {
    pub(super) answered: u64,
    pub(super) good: u64,
    pub(super) broken: u64,
    pub(super) good_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) cpu_us: f64,
    pub(super) memory: f64,
}

impl Figures {
    pub(super) fn failed(&self) -> u64 {
        self.answered - self.good + self.broken
    }

    /// Each figure is the median of the rounds', counts are sums.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            answered: rounds.iter().map(|r| r.answered).sum(),
            good: rounds.iter().map(|r| r.good).sum(),
            broken: rounds.iter().map(|r| r.broken).sum(),
            good_per_second: of(|r| r.good_per_second),
            p50_us: of(|r| r.p50_us),
            p99_us: of(|r| r.p99_us),
            cpu_us: of(|r| r.cpu_us),
            memory: of(|r| r.memory),
        }
    }
}

/// The lower of the two in the middle, where there are two; 0 of nothing.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// Rounded, for programs to read: three digits behind the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_that_was_disturbed_does_not_move_the_median() {
        let round = |cpu_us| Figures { answered: 10, good: 9, cpu_us, ..Figures::default() };
        let all = Figures::median(&[round(20.0), round(900.0), round(21.0)]);
        assert_eq!((all.cpu_us, all.answered, all.failed()), (21.0, 30, 3));
        assert_eq!(median(Vec::new()), 0.0);
    }
}
