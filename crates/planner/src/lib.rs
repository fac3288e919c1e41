//! Decisions: what is to be done, from what is wanted, what is seen, and what time it is.
//!
//! Pure and total: the same inputs give the same plan, and every input gives one. This crate sees `modelyard-core`
//! alone. It must not read a clock, draw a random number, log, or do anything.
//!
//! [`plan`] is the whole of it. Read `plan.rs` first, then `rollout.rs`.

mod capacity;
pub mod experiment;
mod outline;
mod plan;
mod report;
mod rollout;
mod routes;
mod runs;
pub mod sequential;
mod troubles;
mod verdict;

pub use outline::outline;
pub use plan::plan;
pub use verdict::{Stage, Trial, judge};
