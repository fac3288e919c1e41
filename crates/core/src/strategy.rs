//! How a new version takes over: the strategies of the manifest, and the stages that each of them walks.
//!
//! All but `rolling` and `abTest` are the same walk with other numbers: stages with a share of traffic, held, judged by
//! one analysis, and followed by all of the traffic. A shadow is a stage of no traffic whose requests are mirrored; a
//! blue/green deployment is one of no traffic that people can look at before the flip.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ab_test::AbTest;
use crate::analysis::Analysis;
use crate::mirror::{Mirror, OutputRule, Redaction, Tolerance};
use crate::names::{NameError, VariantName};
use crate::span::Span;
use crate::weight::Weight;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// Start the new version beside the old one, and move all traffic when it is ready.
    #[serde(rename_all = "camelCase")]
    Rolling {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_surge: Option<u32>,
    },
    /// Move traffic in steps, each held and judged.
    Canary(Canary),
    /// Start the new version whole, let it be looked at, and move all traffic at once.
    BlueGreen(BlueGreen),
    /// Answer nobody by the new version, but ask it what the old one is asked, and compare.
    Shadow(Shadow),
    /// Several versions at once, compared by what comes of their answers.
    AbTest(AbTest),
}

impl Strategy {
    /// Both versions side by side, then all traffic at once.
    pub fn rolling() -> Self {
        Self::Rolling { max_surge: None }
    }

    /// How many workers more than `replicas` there may be while two versions run; `None`: as many as both ask for.
    pub fn max_surge(&self) -> Option<u32> {
        match self {
            Self::Rolling { max_surge } => *max_surge,
            Self::Canary(canary) => canary.max_surge,
            // All versions are to be whole: the one serves, the other is looked at, asked the same or serves, too.
            Self::BlueGreen(_) | Self::Shadow(_) | Self::AbTest(_) => None,
        }
    }

    /// What is walked before all traffic moves; `None` where nothing is.
    pub fn course(&self) -> Option<Course> {
        match self {
            Self::Rolling { .. } | Self::AbTest(_) => None,
            Self::Canary(canary) => Some(canary.course()),
            Self::BlueGreen(blue_green) => Some(blue_green.course()),
            Self::Shadow(shadow) => Some(shadow.course()),
        }
    }

    pub fn ab_test(&self) -> Option<&AbTest> {
        match self {
            Self::AbTest(test) => Some(test),
            _ => None,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rolling { .. } => "rolling",
            Self::Canary(_) => "canary",
            Self::BlueGreen(_) => "blueGreen",
            Self::Shadow(_) => "shadow",
            Self::AbTest(_) => "abTest",
        })
    }
}

/// The stages of a rollout, and how they are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// At least one.
    pub stages: Vec<Stage>,
    pub analysis: Option<Analysis>,
    pub on_inconclusive: OnInconclusive,
    /// How long, after a stage's hold, the analysis may go without a verdict before `on_inconclusive` applies.
    pub progress_deadline: Span,
    pub kind: CourseKind,
}

impl Course {
    /// What a version that walks it is called among the variants.
    pub fn variant(&self) -> VariantName {
        match self.kind {
            CourseKind::Canary => VariantName::canary(),
            CourseKind::BlueGreen => VariantName::preview(),
            CourseKind::Shadow => VariantName::shadow(),
        }
    }
}

/// Which word people use for a version that walks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CourseKind {
    Canary,
    BlueGreen,
    Shadow,
}

/// A stretch of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The share of traffic that the version has meanwhile.
    pub weight: Weight,
    pub hold: Span,
    /// The share of the requests to the stable version that it is asked as well, for comparison.
    pub mirror: Option<Mirroring>,
    /// Whether people say when it ends.
    pub until_promoted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Canary {
    /// Before the first step: the version is asked what the stable one is asked, and answers nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStep>,
    /// At least one; weights ascend. After the last one the version takes all traffic.
    pub steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    /// How long, after a step's hold, the analysis may go without a verdict before `on_inconclusive` applies.
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline: Span,
}

impl Canary {
    fn course(&self) -> Course {
        let step = |step: &Step| Stage { weight: step.weight, hold: step.hold, mirror: None, until_promoted: false };
        let shadow = self.shadow.as_ref().map(ShadowStep::stage);
        Course {
            stages: shadow.into_iter().chain(self.steps.iter().map(step)).collect(),
            analysis: self.analysis.clone(),
            on_inconclusive: self.on_inconclusive,
            progress_deadline: self.progress_deadline,
            kind: CourseKind::Canary,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    pub weight: Weight,
    pub hold: Span,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlueGreen {
    /// How long the new version is up, and can be looked at, before all traffic moves.
    pub hold: Span,
    /// Whether all traffic moves by itself then; if not, people promote it.
    #[serde(default = "yes")]
    pub auto_promote: bool,
    /// Meanwhile it is asked what the old version is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirroring>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline: Span,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            hold: Span::default(),
            auto_promote: true,
            mirror: None,
            analysis: None,
            on_inconclusive: OnInconclusive::default(),
            progress_deadline: DEFAULT_PROGRESS_DEADLINE,
        }
    }
}

impl BlueGreen {
    fn course(&self) -> Course {
        let Self { hold, auto_promote, mirror, .. } = self;
        let (hold, mirror, until_promoted) = (*hold, mirror.clone(), !auto_promote);
        Course {
            stages: vec![Stage { weight: Weight::ZERO, hold, mirror, until_promoted }],
            analysis: self.analysis.clone(),
            on_inconclusive: self.on_inconclusive,
            progress_deadline: self.progress_deadline,
            kind: CourseKind::BlueGreen,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    #[serde(flatten)]
    pub step: ShadowStep,
    /// Whether all traffic moves to a version that has passed; if not, people promote it.
    #[serde(default)]
    pub auto_promote: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline: Span,
}

impl Shadow {
    fn course(&self) -> Course {
        Course {
            stages: vec![Stage { until_promoted: !self.auto_promote, ..self.step.stage() }],
            analysis: self.analysis.clone(),
            on_inconclusive: self.on_inconclusive,
            progress_deadline: self.progress_deadline,
            kind: CourseKind::Shadow,
        }
    }
}

/// A time of mirroring before any traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShadowStep {
    #[serde(flatten)]
    pub mirror: Mirroring,
    pub hold: Span,
}

impl ShadowStep {
    fn stage(&self) -> Stage {
        Stage { weight: Weight::ZERO, hold: self.hold, mirror: Some(self.mirror.clone()), until_promoted: false }
    }
}

/// Requests to the stable version that the new one is asked, too, once their callers have their answers; and how its
/// answers are compared with theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Mirroring {
    pub share: Weight,
    /// Which floats count as the same.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// Outputs that are compared otherwise than by their datatype and shape, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, OutputRule>,
    /// How many examples of differing answers each gateway keeps, at most [`Mirror::MOST_EXAMPLES`]. None by default: they
    /// are the callers' data.
    #[serde(default)]
    pub examples: u32,
    /// What examples leave out.
    #[serde(default)]
    pub redact: Redaction,
}

impl Mirroring {
    /// The share of requests, with everything else as by default.
    pub fn of(share: Weight) -> Self {
        Self {
            share,
            tolerance: Tolerance::default(),
            outputs: BTreeMap::new(),
            examples: 0,
            redact: Redaction::default(),
        }
    }

    /// What gateways do about it.
    pub fn to(&self, variant: VariantName) -> Mirror {
        Mirror {
            variant,
            share: self.share,
            tolerance: self.tolerance,
            outputs: self.outputs.clone(),
            keep_examples: self.examples,
            redact: self.redact,
        }
    }
}

/// What to do when a step's analysis has no verdict by the progress deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum OnInconclusive {
    #[default]
    Hold,
    Rollback,
    Promote,
}

impl FromStr for OnInconclusive {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "hold" => Ok(Self::Hold),
            "rollback" => Ok(Self::Rollback),
            "promote" => Ok(Self::Promote),
            _ => Err(NameError::new("choice", s, "use hold, rollback or promote")),
        }
    }
}

pub const DEFAULT_PROGRESS_DEADLINE: Span = Span::from_secs(600);

fn default_progress_deadline() -> Span {
    DEFAULT_PROGRESS_DEADLINE
}

fn yes() -> bool {
    true
}
