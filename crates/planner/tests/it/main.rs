//! The planner's behaviour, in a small world that does what plans say.

mod invariants;
mod random_walk;
mod stories;
mod world;
