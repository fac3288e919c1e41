//! Who serves which share of traffic.

use std::collections::BTreeMap;

use modelyard_core::state::{DeploymentState, Phase, Revision};
use modelyard_core::{ModelVersion, RevisionNumber, VariantName, Weight};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) variant: VariantName,
    pub(crate) revision: RevisionNumber,
    pub(crate) version: ModelVersion,
    pub(crate) weight: Weight,
    /// Its place among the variants of the revision, if that is an A/B test.
    pub(crate) tested: Option<usize>,
}

/// The share of a revision, among its variants if it has any; else under the name given.
pub(crate) fn split(revision: &Revision, name: VariantName, share: Weight) -> Vec<Share> {
    let number = revision.number;
    if revision.variants.is_empty() {
        let version = revision.version.clone();
        return vec![Share { variant: name, revision: number, version, weight: share, tested: None }];
    }
    let weights: Vec<_> = revision.variants.iter().map(|variant| variant.weight).collect();
    let each = revision.variants.iter().zip(share.split(&weights)).enumerate();
    let share = |(place, (variant, weight)): (usize, (&modelyard_core::RevisionVariant, Weight))| {
        let (variant, version) = (variant.name.clone(), variant.version.clone());
        Share { variant, revision: number, version, weight, tested: Some(place) }
    };
    each.map(share).collect()
}

/// By a state. A deployment whose first revision is not up serves nothing.
pub(crate) fn shares(state: &DeploymentState, revisions: &BTreeMap<RevisionNumber, Revision>) -> Vec<Share> {
    let of = |number: RevisionNumber, name: VariantName, share: Weight| {
        revisions.get(&number).map(|revision| split(revision, name, share)).unwrap_or_default()
    };
    let Some(stable) = state.stable else { return Vec::new() };
    let on_trial = state.rollout.as_ref().filter(|r| r.phase != Phase::Completed && !r.weight.is_zero());
    let rest = on_trial.map_or(Weight::FULL, |rollout| rollout.weight.rest());
    let mut shares = of(stable, VariantName::stable(), rest);
    shares.extend(
        on_trial.map(|rollout| of(rollout.revision, VariantName::canary(), rollout.weight)).unwrap_or_default(),
    );
    shares.retain(|share| !share.weight.is_zero());
    shares
}
