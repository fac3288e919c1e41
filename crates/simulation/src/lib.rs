//! Rollouts of models whose truth is known, through the real planner: how often its decisions are right, and what they
//! cost.
//!
//! [`faults`] is another simulation: of everything around the planner, with everything that fails.
//!
//! Read `decisions.rs` first. Pure but for the threads that runs are spread over: no clock, no I/O; every run has a random
//! generator of its own, seeded by what is simulated and its number, so that any run can be made again.

mod decisions;
pub mod faults;
mod rollout;
mod table;
mod threshold;
mod traffic;
mod wald;

pub use decisions::{Effect, Figures, Row, decisions};
pub use rollout::{End, Policy, Run};
pub use table::table;
pub use traffic::{Truth, Versions};
pub use wald::{divergence, expected_trials};
