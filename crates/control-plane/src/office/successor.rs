//! A word left in the state directory by whoever takes office on it: for a predecessor on the same machine that cannot
//! hear it from Postgres, and holds the workers of the directory until it does.

use std::path::Path;

use modelyard_core::Epoch;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Note {
    epoch: Epoch,
}

/// Leaves word that `epoch` has begun.
pub(super) fn announce(state_dir: &Path, epoch: Epoch) -> std::io::Result<()> {
    let path = state_dir.join("office.json");
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(&Note { epoch })?)?;
    std::fs::rename(&part, path)
}

/// The epoch that began after `epoch` on this directory, if one did.
pub(super) fn of(state_dir: &Path, epoch: Epoch) -> Option<Epoch> {
    let note = std::fs::read(state_dir.join("office.json")).ok()?;
    let note: Note = serde_json::from_slice(&note).ok()?;
    (note.epoch > epoch).then_some(note.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_epoch_is_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path(), Epoch(1)), None);
        announce(dir.path(), Epoch(2)).unwrap();
        assert_eq!(of(dir.path(), Epoch(1)), Some(Epoch(2)));
        assert_eq!(of(dir.path(), Epoch(2)), None);
    }
}
