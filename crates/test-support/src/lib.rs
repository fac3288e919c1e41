//! What tests of several crates share: a database of their own, a stack of real processes (or two control planes of it), a load on
//! it, and a line to the database that can be cut.
//!
//! For tests only: it panics where a test should fail.

mod certificate;
mod cluster;
mod component;
mod database;
mod load;
mod pair;
mod proxy;
mod stack;

pub use certificate::TestCertificate;
pub use cluster::{ClusterOptions, ClusterStack, Kubectl, host, required};
pub use component::{Stopped, WorkerProcess};
pub use database::TestDatabase;
pub use load::{Load, LoadReport};
pub use pair::{ControlPlane, Pair};
pub use proxy::{Line, Proxy};
pub use stack::{Options, Stack, apply, binary, eventually, eventually_within, manifest, model_file};
