//! Who this control plane is among those that run: a name that a restart has again, and no other process has.

use std::fs::{File, TryLockError};
use std::path::Path;

/// An identity, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Proof that no other process has the name that was made from the state directory.
    _lock: Option<File>,
}

impl Identity {
    /// The one given, whose giver warrants that it is unique. Else this machine and its state directory, if no other
    /// process is that already; one that is may well run too, as a standby on the same directory, under a name of its
    /// own.
    ///
    /// # Errors
    /// If the state directory cannot be used.
    pub(crate) fn of(given: Option<&str>, state_dir: &Path) -> std::io::Result<Self> {
        if let Some(name) = given {
            return Ok(Self { name: name.to_owned(), _lock: None });
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = format!("{host}:{}", state_dir.canonicalize()?.display());
        let lock =
            File::options().write(true).create(true).truncate(false).open(state_dir.join("control-plane.lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { name, _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => {
                Ok(Self { name: format!("{name}#{}", uuid::Uuid::new_v4().simple()), _lock: None })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_the_same_and_a_second_process_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::of(None, dir.path()).unwrap();
        let second = Identity::of(None, dir.path()).unwrap();
        assert_ne!(first.name, second.name);
        let name = first.name.clone();
        drop(first);
        assert_eq!(Identity::of(None, dir.path()).unwrap().name, name);
        assert_eq!(Identity::of(Some("pod-1"), dir.path()).unwrap().name, "pod-1");
    }
}
