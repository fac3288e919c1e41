//! What tests of several crates share: a database of their own, a stack of real processes, a load on it.
//!
//! For tests only: it panics where a test should fail.

mod certificate;
mod database;
mod load;
mod stack;

pub use certificate::TestCertificate;
pub use database::TestDatabase;
pub use load::{Load, LoadReport};
pub use stack::{Options, Stack, binary, eventually, manifest, model_file};
