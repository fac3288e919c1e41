//! The main job on a real cluster. `cargo xtask test` brings one up; `--fast` leaves this out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod install;
mod story;
mod strategies;
