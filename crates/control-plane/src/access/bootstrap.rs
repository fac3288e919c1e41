//! Tokens from files, as a mounted Kubernetes Secret holds them: each file is named `ROLE` or `ROLE.NAME`, and its
//! content is the token. They are valid as long as the file is there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use modelyard_core::{Digest, Role, TokenSecret};

use super::Caller;

/// A directory or file that cannot be used. Never says what is in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bootstrap token {}: {reason}", path.display())]
pub struct BootstrapError {
    path: PathBuf,
    reason: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bootstrap {
    tokens: HashMap<Digest, Caller>,
    fault: Option<BootstrapError>,
}

impl Bootstrap {
    pub(super) fn get(&self, hash: &Digest) -> Option<&Caller> {
        self.tokens.get(hash)
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn is_for_people(&self) -> bool {
        self.tokens.values().any(|caller| caller.role.is_for_people())
    }

    /// What is wrong with one of the files, which was left out.
    pub(super) fn fault(&self) -> Result<(), BootstrapError> {
        self.fault.clone().map_or(Ok(()), Err)
    }
}

/// The tokens of a directory.
///
/// # Errors
/// If the directory cannot be read. A file at fault is left out, and told by [`Bootstrap::fault`].
pub(super) fn read(directory: &Path) -> Result<Bootstrap, BootstrapError> {
    let error = |path: &Path, reason: String| BootstrapError { path: path.to_owned(), reason };
    let entries = std::fs::read_dir(directory).map_err(|e| error(directory, e.to_string()))?;
    let mut bootstrap = Bootstrap::default();
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        let path = directory.join(&name);
        // Kubernetes keeps a mount's versions in `..data` and the like.
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if path.is_dir() {
            continue;
        }
        match token(&path, name) {
            Ok((hash, caller)) => {
                bootstrap.tokens.insert(hash, caller);
            }
            Err(reason) => bootstrap.fault = Some(error(&path, reason)),
        }
    }
    Ok(bootstrap)
}

fn token(path: &Path, file: &str) -> Result<(Digest, Caller), String> {
    let (role, name) = file.split_once('.').unwrap_or((file, file));
    let role: Role = role.parse().map_err(|e| format!("name the file ROLE or ROLE.NAME: {e}"))?;
    if role == Role::Worker {
        return Err("tokens of workers are made by the control plane, each for a short time".into());
    }
    let name = name.parse().map_err(|e| format!("name the file ROLE or ROLE.NAME: {e}"))?;
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let secret: TokenSecret = text.trim().parse().map_err(|e| format!("its content is no token: {e}"))?;
    Ok((secret.hash(), Caller { name, role }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn files_are_tokens_named_by_role_and_holder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gateway"), format!("{SECRET}\n")).unwrap();
        std::fs::write(dir.path().join("admin.alice"), SECRET.to_uppercase()).unwrap();
        std::fs::create_dir(dir.path().join("..data")).unwrap();
        let bootstrap = read(dir.path()).unwrap();
        assert_eq!((bootstrap.len(), bootstrap.fault()), (2, Ok(())));
        let gateway = bootstrap.get(&Digest::of(SECRET.as_bytes())).unwrap();
        assert_eq!((gateway.name.as_str(), gateway.role), ("gateway", Role::Gateway));
        let alice = bootstrap.get(&Digest::of(SECRET.to_uppercase().as_bytes())).unwrap();
        assert_eq!((alice.name.as_str(), alice.role), ("alice", Role::Admin));
    }

    #[test]
    fn a_file_at_fault_is_named_and_left_out_and_its_content_not_told() {
        for (name, content) in [("admin", "hunter2"), ("root", SECRET), ("worker", SECRET), ("admin.a b", SECRET)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(name), content).unwrap();
            let bootstrap = read(dir.path()).unwrap();
            let fault = bootstrap.fault().unwrap_err().to_string();
            assert!(bootstrap.is_empty() && fault.contains(name) && !fault.contains(content), "{fault}");
        }
        assert!(read(Path::new("/nowhere/at/all")).is_err());
    }
}
