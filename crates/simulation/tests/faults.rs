//! Ten thousand stories in which anything fails: what must hold holds in each, and all of it is seen to happen.

use modelyard_simulation::faults::{Coverage, run, story};

/// Each chunk is a test of its own, so that they run side by side.
const CHUNKS: u64 = 8;
const SEEDS: u64 = 10_000 / CHUNKS;
/// How often each thing must occur in a chunk, or the stories show nothing.
const LEAST: u64 = 3;

fn hold_through(chunk: u64) {
    let mut coverage = Coverage::default();
    for seed in chunk * SEEDS..(chunk + 1) * SEEDS {
        match run(seed) {
            Ok(of_seed) => coverage.merge(&of_seed),
            Err(failure) => panic!("{failure}"),
        }
    }
    eprintln!("{SEEDS} seeds:\n{coverage}");
    assert_eq!(coverage.lacking(LEAST), Vec::<&str>::new(), "\n{coverage}");
}

macro_rules! chunks {
    ($($name:ident $chunk:literal),*) => {
        $(
            #[test]
            fn $name() {
                hold_through($chunk);
            }
        )*
    };
}

chunks!(stories_0 0, stories_1 1, stories_2 2, stories_3 3, stories_4 4, stories_5 5, stories_6 6, stories_7 7);

#[test]
fn a_seed_has_one_story() {
    let seed = 7;
    assert_eq!(story(seed), story(seed));
}

/// `MODELYARD_SEED=123` tells the story of one seed.
#[test]
fn a_seed_that_is_asked_for_is_told() {
    let Ok(seed) = std::env::var("MODELYARD_SEED") else { return };
    let seed = seed.parse().expect("MODELYARD_SEED is a number");
    let (lines, broken) = story(seed);
    eprintln!("{}", lines.join("\n"));
    if let Err(failure) = run(seed) {
        panic!("{failure}");
    }
    assert_eq!(broken, None);
}
