//! The planner's behaviour, in a small world that does what plans say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conditions;
mod control;
mod courses;
mod experiments;
mod in_place;
mod invariants;
mod judging;
mod random_walk;
mod scale;
mod steps;
mod stories;
mod words;
mod workers;
mod world;
