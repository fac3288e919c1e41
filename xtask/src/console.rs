//! Lines for people. The only module that writes to standard output on behalf of `up`, `test` and `lint`.

use std::fmt::Display;
use std::io::Write;

/// Where progress is told, or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    quiet: bool,
}

impl Console {
    /// Tells everything, or nothing if `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    pub(crate) fn say(self, line: impl Display) {
        if !self.quiet {
            // A reader that went away (`| head`) must not stop us in the middle of a shutdown.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

/// Writes an error with its chain of causes to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(stderr, "  caused by: {cause}");
    }
}
