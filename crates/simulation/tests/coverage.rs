//! The promise of the sequences, kept: what is true is ever rejected no more often than stated, though looked at after
//! every batch. Seeds are fixed; the bound leaves three standard deviations for luck.

use fastrand::Rng;
use modelyard_core::LatencyHistogram;
use modelyard_planner::sequential::{
    Count, Latencies, Pair, Tail, against_at_least, against_at_most, evidence_against_excess,
    evidence_against_no_excess, lower_bound, needed, upper_bound,
};

/// The share of `runs` in which `ever` is true is at most `level`, as far as so many runs can tell.
fn assert_at_most(level: f64, runs: u32, what: &str, ever: impl Fn(&mut Rng) -> bool) {
    let hits: u32 = (0..runs).map(|run| u32::from(ever(&mut Rng::with_seed(1000 + u64::from(run))))).sum();
    let share = f64::from(hits) / f64::from(runs);
    let luck = 3.0 * (level * (1.0 - level) / f64::from(runs)).sqrt();
    assert!(share <= level + luck, "{what}: {share} of {runs} runs, at {level}");
}

/// Adds a batch of requests at a rate.
fn add(count: &mut Count, requests: u64, rate: f64, rng: &mut Rng) {
    let hits = (0..requests).filter(|_| rng.f64() < rate).count();
    *count = Count::new(count.hits + hits as u64, count.trials + requests);
}

#[test]
fn a_rate_at_its_limit_is_seldom_told_from_it_however_often_one_looks() {
    for rate in [0.005, 0.1, 0.5] {
        let at = |rejects: fn(Count, f64) -> f64| {
            move |rng: &mut Rng| {
                let mut count = Count::default();
                (0..600).any(|_| {
                    add(&mut count, 5, rate, rng);
                    rejects(count, rate) >= needed(0.1)
                })
            }
        };
        assert_at_most(0.1, 500, "above", at(against_at_most));
        assert_at_most(0.1, 500, "below", at(against_at_least));
    }
}

#[test]
fn intervals_hold_the_true_rate_at_every_look() {
    assert_at_most(0.1, 300, "interval", |rng| {
        let mut count = Count::default();
        (0..100).any(|_| {
            add(&mut count, 20, 0.02, rng);
            lower_bound(count, 0.05) > 0.02 || upper_bound(count, 0.05) < 0.02
        })
    });
}

#[test]
fn equal_versions_are_seldom_told_apart_with_unequal_traffic_and_in_changing_weather() {
    for (share, rate) in [(0.1, 0.005), (0.1, 0.05), (0.5, 0.005), (0.9, 0.02)] {
        assert_at_most(0.1, 400, "no worse", |rng| {
            let (mut candidate, mut stable) = (Count::default(), Count::default());
            (0..300).any(|look| {
                // Now and then everything fails ten times as often.
                let rate = if look % 50 < 5 { rate * 10.0 } else { rate };
                for _ in 0..20 {
                    let of = if rng.f64() < share { &mut candidate } else { &mut stable };
                    add(of, 1, rate, rng);
                }
                evidence_against_no_excess(&Pair { candidate, stable, share }) >= needed(0.1)
            })
        });
    }
}

#[test]
fn a_version_that_is_worse_by_the_margin_seldom_passes() {
    for (share, rate) in [(0.1, 0.005), (0.5, 0.02)] {
        assert_at_most(0.2, 150, "worse by the margin", |rng| {
            let (mut candidate, mut stable) = (Count::default(), Count::default());
            (0..60).any(|_| {
                for _ in 0..200 {
                    let (of, rate) =
                        if rng.f64() < share { (&mut candidate, rate + 0.005) } else { (&mut stable, rate) };
                    add(of, 1, rate, rng);
                }
                evidence_against_excess(&Pair { candidate, stable, share }, 0.005) >= needed(0.2)
            })
        });
    }
}

/// Log-normal latencies of two versions, in batches of 100 requests.
fn ever(factor: f64, tail: f64, rng: &mut Rng, rejects: impl Fn(&Latencies<'_>) -> bool) -> bool {
    let (mut candidate, mut stable) = (LatencyHistogram::default(), LatencyHistogram::default());
    (0..30).any(|_| {
        for _ in 0..100 {
            let (radius, angle) = ((1.0 - rng.f64()).ln() * -2.0, rng.f64() * std::f64::consts::TAU);
            let micros = (9.9 + 0.5 * radius.sqrt() * angle.cos()).exp();
            if rng.f64() < 0.2 { candidate.record((micros * factor) as u64) } else { stable.record(micros as u64) }
        }
        let (candidate, stable) = (Tail::of(&candidate), Tail::of(&stable));
        rejects(&Latencies::new(&candidate, &stable, 0.2, tail))
    })
}

#[test]
fn equal_latencies_are_seldom_told_apart_and_slow_ones_seldom_pass() {
    for tail in [0.5, 0.05, 0.01] {
        assert_at_most(0.1, 150, "no slower", |rng| {
            ever(1.0, tail, rng, |latencies| latencies.evidence_against_no_slower(1.0) >= needed(0.1))
        });
        assert_at_most(0.2, 100, "slower by the limit", |rng| {
            ever(1.2, tail, rng, |latencies| latencies.evidence_against_slower(1.2) >= needed(0.2))
        });
    }
}
