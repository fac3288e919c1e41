//! Names and numbers that cross an API, each its own type with its own rules.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a string is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {kind}: {rule}")]
pub struct NameError {
    kind: &'static str,
    value: String,
    rule: &'static str,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, value: &str, rule: &'static str) -> Self {
        let mut value: String = value.chars().take(80).collect();
        if value.is_empty() {
            value = "(empty)".into();
        }
        Self { kind, value, rule }
    }
}

const DNS_LABEL: &str = "use 1 to 52 lower-case letters, digits and `-`, starting and ending with a letter or digit";
const VERSION: &str = "use 1 to 64 letters, digits, `.`, `_` and `-`, starting with a letter or digit";
const ALIAS: &str = "use 1 to 64 letters, digits, `_` and `-`, starting with a letter";
const TOKEN_NAME: &str = "use 1 to 64 letters, digits, `.`, `_` and `-`, starting with a letter or digit, and not `modelyard`, which is the \
     system itself";
const TOKEN: &str = "use 1 to 128 printable characters without spaces at the ends";

const HTTP_TOKEN: &str = "use 1 to 64 letters, digits and `-`, `_` or `.`";

const UNIT: &str = "use 1 to 1024 characters, none of them a control character";

/// The actor of decisions that no person made.
const SYSTEM: &str = "modelyard";

fn is_dns_label(s: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=52).contains(&s.len()) && s.chars().all(|c| ok(c) || c == '-') && s.starts_with(ok) && s.ends_with(ok)
}

fn is_version(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.starts_with(|c: char| c.is_ascii_alphanumeric())
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_alias(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.starts_with(|c: char| c.is_ascii_alphabetic())
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

fn is_token_name(s: &str) -> bool {
    is_version(s) && s != SYSTEM
}

fn is_token(s: &str) -> bool {
    (1..=128).contains(&s.chars().count()) && s.trim() == s && !s.chars().any(char::is_control)
}

fn is_unit(s: &str) -> bool {
    (1..=1024).contains(&s.chars().count()) && !s.chars().any(char::is_control)
}

/// A part of what RFC 9110 §5.6.2 calls a token: what all proxies let through.
fn is_http_token(s: &str) -> bool {
    (1..=64).contains(&s.len()) && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                if $check(s) { Ok(Self(s.to_owned())) } else { Err(NameError::new($kind, s, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A model: a named function. DNS label, at most 52 characters.
    ModelName, "model name", is_dns_label, DNS_LABEL);
name!(
    /// A deployment: the endpoint name that clients call. DNS label, at most 52 characters.
    DeploymentName, "deployment name", is_dns_label, DNS_LABEL);
name!(
    /// The version of a model, as its team writes it: `2`, `v10`, `2026.11-rc1`.
    VersionName, "version", is_version, VERSION);
name!(
    /// A movable name for a version: `stable`, `candidate`.
    AliasName, "alias", is_alias, ALIAS);
name!(
    /// A side of a traffic split: `stable`, `canary`, `previous`, or a name of the manifest's.
    VariantName, "variant name", is_dns_label, DNS_LABEL);
name!(
    /// Who did something, for the log of events.
    Actor, "actor", is_token, TOKEN);
name!(
    /// Whom a token was made for: the actor of what is done with it.
    TokenName, "token name", is_token_name, TOKEN_NAME);
name!(
    /// One gateway process; new at each of its starts, as its counters are.
    GatewayId, "gateway id", is_token, TOKEN);
name!(
    /// A header of requests, such as `x-user-id`. Its case does not matter.
    HeaderName, "header name", is_http_token, HTTP_TOKEN);
name!(
    /// A cookie of requests. Its case matters.
    CookieName, "cookie name", is_http_token, HTTP_TOKEN);
name!(
    /// What the hashes of an experiment's units are mixed with, so that experiments split them independently.
    Salt, "salt", is_token, TOKEN);
name!(
    /// What an outcome is about: `clicked`, `revenue`.
    MetricName, "metric name", is_http_token, HTTP_TOKEN);
name!(
    /// The id of a request, as its answer's `x-request-id` has it.
    RequestId, "request id", is_token, TOKEN);
name!(
    /// Who belongs to one variant of an experiment: the value of a header or cookie, or an address.
    Unit, "unit", is_unit, UNIT);
name!(
    /// One replica of a workload, as its runtime names it (`0`, or a pod's name).
    BackendId, "backend id", is_token, TOKEN);

impl VariantName {
    /// The variant that holds the version which last served everyone.
    pub fn stable() -> Self {
        Self("stable".into())
    }
    /// The variant of the version on trial.
    pub fn canary() -> Self {
        Self("canary".into())
    }
    /// The variant of a version that people may look at before all traffic moves to it.
    pub fn preview() -> Self {
        Self("preview".into())
    }
    /// The variant of a version that is asked what the stable one is asked, and answers nobody.
    pub fn shadow() -> Self {
        Self("shadow".into())
    }
    /// A replaced version, kept warm and without weight.
    pub fn previous() -> Self {
        Self("previous".into())
    }
    /// The variant of units that an experiment leaves alone.
    pub fn holdout() -> Self {
        Self("holdout".into())
    }
    /// Whether it is the system's: no manifest may give it to a variant.
    pub fn is_reserved(&self) -> bool {
        let reserved =
            [Self::stable(), Self::canary(), Self::preview(), Self::shadow(), Self::previous(), Self::holdout()];
        reserved.contains(self)
    }
}

impl CookieName {
    /// The cookie that gateways make for clients without one.
    pub fn unit() -> Self {
        Self("modelyard-unit".into())
    }
}

impl Actor {
    /// The system itself: decisions that no person made.
    pub fn system() -> Self {
        Self(SYSTEM.into())
    }
}

impl From<TokenName> for Actor {
    fn from(name: TokenName) -> Self {
        Self(name.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// The number of a revision of a deployment: 1, 2, 3… It doubles as the deployment's generation, which
    /// `If-Match` names.
    RevisionNumber);
number!(
    /// The control plane's term of office, from Postgres. Stamped on workloads and route tables; writers with an
    /// older one are refused.
    Epoch);
number!(
    /// Counts the commits to a deployment's state: the parent that a plan was made from.
    StateVersion);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        assert!("linear-2".parse::<ModelName>().is_ok());
        for bad in ["", "Linear", "-a", "a-", "a_b", "a.b", &"a".repeat(53)] {
            assert!(bad.parse::<DeploymentName>().is_err(), "{bad:?} must be refused");
        }
        assert!("2026.11-RC1".parse::<VersionName>().is_ok());
        assert!("../2".parse::<VersionName>().is_err());
        assert!("1x".parse::<AliasName>().is_err());
    }
}
