//! The hash chain of events: each event's hash covers the hash before it and all fields of its own, so that whoever
//! knows one hash knows all that came before. Here is the half that trusts nobody: it takes events as the database has
//! them, unread, and computes every hash anew. The other half, which makes the links, is a trigger in Postgres.
//!
//! The construction is the linked time-stamping of Haber and Stornetta, *How to time-stamp a digital document* (1991),
//! with SHA-256. It proves nothing about events after the last hash that was kept elsewhere: who owns the database can
//! compute hashes too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::names::NameError;

/// Keeps these hashes apart from any others, and from those of a later canonical form.
const DOMAIN: &[u8] = b"modelyard.event.v1";

/// How far a chain has come, written `POSITION:HASH`. Kept elsewhere, it vouches for all events up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainHead {
    /// Of the last event, from 1; 0 before the first.
    pub position: i64,
    /// Of the last event; all zeros before the first.
    pub hash: Digest,
}

impl ChainHead {
    /// Before the first event.
    pub const BEGIN: Self = Self { position: 0, hash: Digest::from_bytes([0; 32]) };
}

impl FromStr for ChainHead {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let refuse = || NameError::new("head of the events", s, "use POSITION:HASH, as `events head` prints it");
        let (position, hash) = s.split_once(':').ok_or_else(refuse)?;
        let position = position.parse().ok().filter(|position| *position >= 0).ok_or_else(refuse)?;
        Ok(Self { position, hash: hash.parse().map_err(|_| refuse())? })
    }
}

impl TryFrom<String> for ChainHead {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<ChainHead> for String {
    fn from(head: ChainHead) -> String {
        head.to_string()
    }
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.position, self.hash))
    }
}

/// An event as the database has it, parsed as little as can be: what was tampered with must still be readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChainedEvent {
    /// From 1, without gaps.
    pub position: i64,
    /// SHA-256 in hexadecimal digits.
    pub hash: String,
    pub id: i64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub kind: String,
    pub actor: String,
    pub model: Option<String>,
    pub deployment: Option<String>,
    pub message: String,
    /// The text of the JSON, byte for byte as Postgres prints a `jsonb`.
    pub data: String,
}

impl ChainedEvent {
    /// The hash that this event has if it follows one with the hash `previous`.
    ///
    /// SHA-256 of: the domain, `previous` (32 bytes), position, id and time (8 bytes each, big-endian, two's
    /// complement), then kind, actor, model, deployment, message and data, each as the length of its UTF-8 in bytes (4
    /// bytes, big-endian; -1 for none) and the UTF-8 itself. The lengths make it injective.
    pub fn hash_after(&self, previous: &Digest) -> Digest {
        let mut sha = Sha256::new();
        sha.update(DOMAIN);
        sha.update(previous.as_bytes());
        for number in [self.position, self.id, self.at_ms] {
            sha.update(number.to_be_bytes());
        }
        let fields = [
            Some(&self.kind),
            Some(&self.actor),
            self.model.as_ref(),
            self.deployment.as_ref(),
            Some(&self.message),
            Some(&self.data),
        ];
        for field in fields {
            // Postgres holds no text of 2 GiB.
            let length = field.map_or(-1, |text| i32::try_from(text.len()).unwrap_or(i32::MAX));
            sha.update(length.to_be_bytes());
            sha.update(field.map_or(&[][..], |text| text.as_bytes()));
        }
        Digest::from_bytes(sha.finalize().into())
    }
}

/// Why a chain of events does not hold; the first place where it does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("{} missing before event {id}: it is at position {position}, and {due} was due", of(position - due))]
    Missing { id: i64, position: i64, due: i64 },
    #[error("event {id} is out of its place: it is at position {position}, and {due} was due")]
    Misplaced { id: i64, position: i64, due: i64 },
    #[error(
        "event {id}, at position {position}, is not what was written after the one before it: it or that one was changed"
    )]
    Changed { id: i64, position: i64 },
    #[error("event {id} is not the one that {head} was taken of: events up to it were written anew")]
    Rewritten { id: i64, head: ChainHead },
    #[error("events were removed from the end: {head} was taken once, and the last is now at position {last}")]
    Truncated { head: ChainHead, last: i64 },
}

fn of(count: i64) -> String {
    if count == 1 { "1 event is".to_owned() } else { format!("{count} events are") }
}

/// Goes along a chain, event by event, in memory that does not grow.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: ChainHead,
    /// The event that `head` was taken of is still to come, to be seen in its place.
    begins_at_head: bool,
    /// Heads that were taken earlier and are still to come by, the next one last.
    expected: Vec<ChainHead>,
    events: u64,
}

impl Verifier {
    /// Events up to `from` are taken as verified before; it is [`ChainHead::BEGIN`] to verify all. Each of `expected` must be found
    /// again; those before `from` cannot be.
    pub fn new(from: ChainHead, expected: impl IntoIterator<Item = ChainHead>) -> Self {
        let mut expected: Vec<_> = expected.into_iter().collect();
        expected.sort_by_key(|head| std::cmp::Reverse(head.position));
        Self { head: from, begins_at_head: from.position > 0, expected, events: 0 }
    }

    /// The position after which events are to be read: `None` for all there are, however they are numbered.
    pub fn read_after(&self) -> Option<i64> {
        // From the one that was verified last on: if it is gone, so may be those after it.
        self.begins_at_head.then(|| self.head.position - 1)
    }

    /// # Errors
    /// Where the event is not the one that was written there.
    pub fn next(&mut self, event: &ChainedEvent) -> Result<(), Broken> {
        let (id, position) = (event.id, event.position);
        let due = if self.begins_at_head { self.head.position } else { self.head.position + 1 };
        match position.cmp(&due) {
            std::cmp::Ordering::Greater => return Err(Broken::Missing { id, position, due }),
            std::cmp::Ordering::Less => return Err(Broken::Misplaced { id, position, due }),
            std::cmp::Ordering::Equal => {}
        }
        if self.begins_at_head {
            self.begins_at_head = false;
            if event.hash != self.head.hash.to_string() {
                return Err(Broken::Rewritten { id, head: self.head });
            }
        } else {
            let hash = event.hash_after(&self.head.hash);
            if event.hash != hash.to_string() {
                return Err(Broken::Changed { id, position });
            }
            self.head = ChainHead { position, hash };
            self.events += 1;
        }
        while let Some(head) = self.expected.pop_if(|head| head.position <= position) {
            if head != self.head && head != ChainHead::BEGIN {
                return Err(Broken::Rewritten { id, head });
            }
        }
        Ok(())
    }

    /// The head of what was verified, and how many events it was.
    ///
    /// # Errors
    /// [`Broken::Truncated`] if an earlier head was not reached.
    pub fn finish(self) -> Result<(ChainHead, u64), Broken> {
        if self.begins_at_head {
            return Err(Broken::Truncated { head: self.head, last: self.head.position - 1 });
        }
        match self.expected.iter().find(|head| **head != ChainHead::BEGIN) {
            Some(head) => Err(Broken::Truncated { head: *head, last: self.head.position }),
            None => Ok((self.head, self.events)),
        }
    }
}

#[cfg(test)]
mod tests;
