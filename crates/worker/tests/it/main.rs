//! The worker as others meet it: the binary, its exit codes, its files, its HTTP.

mod client;
mod drain;
mod inspect;
mod process;
mod serve;
