//! Events: who did what, why, and what the system decided. Append-only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Actor, DeploymentName, ModelName, NameError};
use crate::timestamp::Timestamp;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum EventKind { $($(#[$doc])* $variant,)* }

        impl EventKind {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl FromStr for EventKind {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                match s {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(NameError::new("event kind", s, "see docs/rest.md for the list")),
                }
            }
        }
    };
}

kinds! {
    ModelCreated = "ModelCreated",
    ModelUpdated = "ModelUpdated",
    ModelDeleted = "ModelDeleted",
    VersionRegistered = "VersionRegistered",
    VersionDeleted = "VersionDeleted",
    AliasMoved = "AliasMoved",
    AliasDropped = "AliasDropped",
    RevisionCreated = "RevisionCreated",
    DeploymentDeleted = "DeploymentDeleted",
    RolloutStarted = "RolloutStarted",
    /// The shares of traffic changed; `data.weights` lists them. What `served?at=` answers from.
    WeightsChanged = "WeightsChanged",
    /// An analysis came to a verdict; `data` is the verdict.
    AnalysisDecided = "AnalysisDecided",
    RolloutPaused = "RolloutPaused",
    RolloutResumed = "RolloutResumed",
    RolloutPromoted = "RolloutPromoted",
    RolloutCompleted = "RolloutCompleted",
    RolledBack = "RolledBack",
    /// Somebody else's hand changed what runs, and it was set back; `data.differences` tells what.
    DriftMended = "DriftMended",
    /// A warm revision's time is over.
    WarmEnded = "WarmEnded",
    /// Somebody was given access; `data` tells for what role and until when, never the token.
    TokenCreated = "TokenCreated",
    TokenRevoked = "TokenRevoked",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An event before it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventDraft {
    pub kind: EventKind,
    pub actor: Actor,
    pub model: Option<ModelName>,
    pub deployment: Option<DeploymentName>,
    /// One sentence for people.
    pub message: String,
    /// The same for programs; its fields depend on the kind.
    pub data: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Ascending; gaps are possible.
    pub id: i64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub what: EventDraft,
}
