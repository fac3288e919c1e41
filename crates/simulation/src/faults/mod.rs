//! The real planner in a world where anything fails: a store, a runtime, gateways and two control planes, simulated with
//! lost replies, stale observations, restarts, clock steps and people who change their minds.
//!
//! One seed is one story, the same each time. [`run`] tells whether all that must hold held through it; read `world.rs`
//! for what happens, `check.rs` for what must hold. No threads, no clock, no other randomness.
//!
//! What control planes do around the planner (`look.rs`, `control_plane.rs`) is the control plane's reconcile without its
//! sockets, by hand: a change there is to be made here too.

mod check;
mod control_plane;
mod gateway;
mod inject;
mod look;
mod people;
mod runtime;
mod settle;
mod store;
mod story;
mod world;

use std::fmt;

use modelyard_core::NameError;

pub use story::Coverage;

use story::Story;
use world::World;

/// A property that did not hold, in words.
#[derive(Debug)]
struct Broken(String);

impl From<NameError> for Broken {
    fn from(error: NameError) -> Self {
        Self(error.to_string())
    }
}

/// A seed whose story breaks a property.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub property: String,
    /// The last lines of it.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} breaks a property: {}", self.seed, self.property)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(
            f,
            "again: MODELYARD_SEED={0} cargo nextest run -p modelyard-simulation a_seed --no-capture; from its beginning: cargo run \
             -p modelyard-simulation -- faults --seed {0} --story",
            self.seed
        )
    }
}

impl std::error::Error for Failure {}

/// Lets one seed happen.
///
/// # Errors
/// If something that must hold did not.
pub fn run(seed: u64) -> Result<Coverage, Box<Failure>> {
    match happen(seed, Story::untold()) {
        (Ok(()), _, coverage) => Ok(coverage),
        // Once more, told.
        (Err(_), ..) => Err(Box::new(tell(seed, Story::told(false)))),
    }
}

/// One seed from its beginning: what happened in it, and what it broke.
pub fn story(seed: u64) -> (Vec<String>, Option<String>) {
    let (result, lines, _) = happen(seed, Story::told(true));
    (lines, result.err().map(|Broken(property)| property))
}

fn tell(seed: u64, story: Story) -> Failure {
    let (result, story, _) = happen(seed, story);
    let property = match result {
        Err(Broken(property)) => property,
        Ok(()) => "a seed has one story: this one had another when it was told".into(),
    };
    Failure { seed, property, story }
}

fn happen(seed: u64, story: Story) -> (Result<(), Broken>, Vec<String>, Coverage) {
    let mut world = match World::new(seed, story) {
        Ok(world) => world,
        Err(broken) => return (Err(broken), Vec::new(), Coverage::default()),
    };
    let result = world.live();
    let (lines, coverage) = world.story.end();
    (result, lines, coverage)
}
