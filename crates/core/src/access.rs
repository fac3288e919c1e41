//! Who may use the admin API: tokens, their names and roles. What each role may do is the control plane's table
//! (`control-plane/src/access/rules.rs`).

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::NameError;

/// What a token is for. The last two are for programs, and are of no use to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, applies, deletes, and drives rollouts.
    Operator,
    /// An operator who also makes and revokes tokens.
    Admin,
    /// Follows route tables and reports evidence; nothing else.
    Gateway,
    /// Fetches artifacts; nothing else.
    Worker,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Operator, Self::Admin, Self::Gateway, Self::Worker];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }

    /// Whether it is one that people hold.
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Viewer | Self::Operator | Self::Admin)
    }
}

impl FromStr for Role {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == s);
        known.ok_or_else(|| NameError::new("role", s, "use viewer, operator or admin (programs: gateway, worker)"))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The number of a stored token: what `DELETE /tokens/{id}` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct TokenId(pub i64);

impl FromStr for TokenId {
    type Err = std::num::ParseIntError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A token as its holder knows it. Nothing prints or serialises it by accident; only its [`TokenSecret::hash`] is kept.
#[derive(Debug, Clone)]
pub struct TokenSecret(SecretString);

/// Fewer characters can be guessed: 32 hexadecimal ones are 128 bits.
const SHORTEST: usize = 32;

impl TokenSecret {
    /// From 256 random bits. Where they come from is the caller's affair, as all randomness is.
    pub fn from_random(bits: [u8; 32]) -> Self {
        // A digest is 32 bytes that know how to be written.
        Self(format!("my_{}", Digest::from_bytes(bits)).into())
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored, and looked up by. A plain hash is enough: there is nothing to guess in 256 random bits.
    pub fn hash(&self) -> Digest {
        Digest::of(self.expose().as_bytes())
    }
}

/// Why a text cannot be a token. Does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token has at least {SHORTEST} characters, all printable ASCII without spaces")]
pub struct TokenSecretError;

impl FromStr for TokenSecret {
    type Err = TokenSecretError;
    fn from_str(s: &str) -> Result<Self, TokenSecretError> {
        let ok = s.len() >= SHORTEST && s.chars().all(|c| c.is_ascii_graphic());
        if ok { Ok(Self(s.into())) } else { Err(TokenSecretError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::TokenName;

    #[test]
    fn a_secret_is_not_printed_and_its_hash_is_that_of_the_text() {
        let secret = TokenSecret::from_random([7; 32]);
        assert!(secret.expose().starts_with("my_0707") && secret.expose().len() == 67);
        assert!(!format!("{secret:?}").contains("0707"));
        assert_eq!(secret.expose().parse::<TokenSecret>().map(|s| s.hash()), Ok(secret.hash()));
        for bad in ["", "my_short", &"x y".repeat(20)] {
            assert!(bad.parse::<TokenSecret>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn roles_are_written_as_they_are_read() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).ok(), Some(role.as_str().into()));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn nobody_is_called_as_the_system_is() {
        assert!("alice-2".parse::<TokenName>().is_ok());
        for bad in ["modelyard", "", "a b", "a/b", ".a"] {
            assert!(bad.parse::<TokenName>().is_err(), "{bad:?}");
        }
    }
}
