//! The store, on a real PostgreSQL: each test has a database of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod applying;
mod chain;
mod committing;
mod concurrency;
mod experiments;
mod going_back;
mod history;
mod office;
mod registry;
mod scale;
mod schema;
mod support;
