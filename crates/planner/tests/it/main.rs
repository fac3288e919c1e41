//! The planner's behaviour, in a small world that does what plans say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod invariants;
mod random_walk;
mod stories;
mod world;
