//! The tokens that were used lately, in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelyard_core::Digest;
use modelyard_store::TokenRow;

/// More are not held; those used longest ago go first.
const MOST: usize = 4096;
/// Nobody uses it any more. Until then its holder gets in even while Postgres is away.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Digest, Entry>>);

struct Entry {
    token: TokenRow,
    used: Instant,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, hash: &Digest) -> Option<TokenRow> {
        let mut entries = self.lock();
        let entry = entries.get_mut(hash)?;
        entry.used = Instant::now();
        Some(entry.token.clone())
    }

    pub(super) fn put(&self, token: TokenRow) {
        let mut entries = self.lock();
        if entries.len() >= MOST
            && let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash)
        {
            entries.remove(&oldest);
        }
        entries.insert(token.digest, Entry { token, used: Instant::now() });
    }

    pub(super) fn forget(&self, hash: &Digest) {
        self.lock().remove(hash);
    }

    /// The hashes of tokens that are in use; the others are forgotten.
    pub(super) fn in_use(&self) -> Vec<Digest> {
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.used.elapsed() < FORGOTTEN_AFTER);
        entries.keys().copied().collect()
    }

    /// Of the tokens `asked` for, `found` are all that there are.
    pub(super) fn update(&self, asked: &[Digest], found: Vec<TokenRow>) {
        let still: HashSet<Digest> = found.iter().map(|token| token.digest).collect();
        let mut entries = self.lock();
        for hash in asked.iter().filter(|hash| !still.contains(hash)) {
            entries.remove(hash);
        }
        for token in found {
            if let Some(entry) = entries.get_mut(&token.digest) {
                entry.token = token;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelyard_core::{Actor, Role, Timestamp, TokenId};

    fn token(n: usize) -> TokenRow {
        TokenRow {
            id: TokenId(1),
            name: "alice".parse().unwrap(),
            role: Role::Viewer,
            digest: Digest::of(&n.to_le_bytes()),
            created_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(1),
            created_by: Actor::system(),
        }
    }

    #[test]
    fn a_token_that_is_no_longer_found_is_forgotten_and_one_that_came_meanwhile_is_kept() {
        let known = Known::default();
        known.put(token(1));
        known.put(token(2));
        let asked = known.in_use();
        known.put(token(3));
        known.update(&asked, vec![token(2)]);
        let knows = [1, 2, 3].map(|n| known.get(&token(n).digest).is_some());
        assert_eq!(knows, [false, true, true]);
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let known = Known::default();
        for n in 0..MOST {
            known.put(token(n));
        }
        known.get(&token(0).digest);
        known.put(token(MOST));
        assert_eq!(known.in_use().len(), MOST);
        assert!(known.get(&token(0).digest).is_some() && known.get(&token(1).digest).is_none());
    }
}
