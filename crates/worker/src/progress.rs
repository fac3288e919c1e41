//! How far a worker is that is not ready yet, for those who ask why.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::size::ByteSize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    /// Another worker that shares the cache has the same artifact in hand.
    Queued,
    Checking,
    Downloading {
        received: u64,
        total: Option<u64>,
    },
    /// An attempt failed, and another one will be made.
    Waiting(String),
    Loading,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Queued => f.write_str("waiting for another worker that fetches the same artifact into the cache"),
            Self::Checking => f.write_str("checking the artifact"),
            Self::Downloading { received, total: None } => write!(f, "downloading: {}", ByteSize(*received)),
            Self::Downloading { received, total: Some(total) } => {
                let percent = u128::from(*received) * 100 / u128::from(*total).max(1);
                write!(f, "downloading: {} of {} ({percent} %)", ByteSize(*received), ByteSize(*total))
            }
            Self::Waiting(why) => f.write_str(why),
            Self::Loading => f.write_str("the model is still loading"),
        }
    }
}

/// The latest stage.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<Stage>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Stage::Starting))
    }

    pub(crate) fn set(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(crate) fn get(&self) -> Stage {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_tells_how_much_of_what_is_there() {
        let of = |received, total| Stage::Downloading { received, total }.to_string();
        assert_eq!(of(3 << 20, Some(12 << 20)), "downloading: 3.0 MiB of 12.0 MiB (25 %)");
        assert_eq!(of(0, Some(0)), "downloading: 0 bytes of 0 bytes (0 %)");
        assert_eq!(of(5, None), "downloading: 5 bytes");
    }
}
