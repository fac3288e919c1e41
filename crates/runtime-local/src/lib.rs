//! Workloads as child processes on this machine.
//!
//! Wishes are recorded on disk before they are acted on, and one task per replica makes them true. Whether a worker
//! lives is told by the lock it holds on a file in its directory, never by a remembered pid, which may meanwhile be
//! another process's. Workers outlive this process: the next one adopts them.
//!
//! This crate must not decide what should run: it knows workloads, and no revisions, weights or rollouts.

mod config;
mod error;
mod lock;
mod log;
mod probe;
mod process;
mod record;
mod replica;
mod runtime;
mod state;
mod stop;

pub use config::{Backoff, LocalConfig, Probes};
pub use error::LocalError;
pub use runtime::LocalRuntime;
pub use stop::stop_all;
