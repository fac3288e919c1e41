//! The planner's behaviour, in a small world that does what plans say.

mod control;
mod invariants;
mod judging;
mod random_walk;
mod stories;
mod words;
mod workers;
mod world;
