//! Finds, starts and stops a private PostgreSQL server on this machine, for development and for tests.
//!
//! [`Cluster::start`] looks for server binaries (installing them with the system's package manager when there are
//! none and we are root), makes a data directory if there is none yet, and runs `postgres` as a child process that
//! listens on 127.0.0.1 only. [`Cluster::temporary`] does the same in a directory that is deleted at the end.
//!
//! Everything here blocks: async callers wrap it in `spawn_blocking`. It prints nothing: what was chosen is a sentence
//! ([`Cluster::summary`]) and what takes long is told through [`Options::progress`].
//!
//! Not for production: local connections are trusted, so every user of this machine is a superuser of the database.
//!
//! A `kill -9` of our process leaves `postgres` running, since asking the kernel to end it with us needs unsafe code.
//! The next `start` on the same directory then answers [`Error::AlreadyRunning`], and [`Cluster::adopt`] takes that
//! server over.

mod account;
mod cluster;
mod error;
mod install;
mod locate;
mod place;
mod postmaster;
mod wire;

pub use cluster::{Cluster, Options};
pub use error::Error;
pub use locate::{Choice, Server, installed, locate};
