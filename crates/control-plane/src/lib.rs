//! The control plane: effects and wiring. It alone sees all other crates.
//!
//! Decisions are the planner's, SQL is the store's, processes are the runtime's. What is left is here: the HTTP
//! handlers (`http`), apply (`apply`), the reconcile loop (`reconcile`), the link to gateways (`gateways`), and which of
//! several control planes acts (`office`, `node`).

pub mod access;
pub mod app;
pub mod apply;
pub mod artifacts;
pub mod bucket;
pub mod config;
pub mod exposures;
pub mod gateways;
pub mod http;
pub mod inspect;
pub mod kubernetes;
pub mod measurements;
pub mod metrics;
pub mod node;
pub mod office;
pub mod peers;
pub mod reconcile;
pub mod refusal;
mod runtimes;
pub mod serve;
mod sweep;
pub mod wake;
