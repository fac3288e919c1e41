//! Decisions on models with a known truth, few enough runs for every build.

use modelyard_simulation::{Effect, decisions};

#[test]
fn a_run_is_made_again_from_its_seed() {
    let once = decisions(4, 11, &[Effect::Errors]).unwrap();
    assert_eq!(once, decisions(4, 11, &[Effect::Errors]).unwrap());
    assert_ne!(once, decisions(4, 12, &[Effect::Errors]).unwrap());
}

#[test]
fn worse_versions_are_caught_and_equal_ones_are_not() {
    let rows = decisions(20, 3, &[Effect::None, Effect::Errors, Effect::Latency, Effect::Flips]).unwrap();
    // At the stated 5 %, four or more of twenty are rolled back with a chance of 1.6 %; the seed is fixed.
    assert!(rows[0].rolled_back <= 0.15, "{:?}", rows[0]);
    for row in &rows[1..] {
        assert!(row.rolled_back >= 0.8, "{row:?}");
    }
}
