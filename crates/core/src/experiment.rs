//! Experiments: what an A/B test keeps from revision to revision, and how outcomes find their variant.
//!
//! An experiment begins with a revision whose strategy is `abTest` and goes on through later ones that change weights,
//! rules, workers or the set of variants. What changes who is compared with whom begins another: other versions under
//! the same names, or units told by something else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::{Assignment, Slots, StickyBy};
use crate::digest::Digest;
use crate::names::{DeploymentName, ModelName, RequestId, RevisionNumber, Salt, Unit, VariantName, VersionName};
use crate::outcomes::NewOutcome;
use crate::request_id;
use crate::state::Revision;
use crate::timestamp::Timestamp;
use crate::weight::Weight;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Experiment {
    /// The revision that began it. Its number names the experiment: none is used twice.
    pub began: RevisionNumber,
    pub since: Timestamp,
    pub sticky_by: StickyBy,
    pub salt: Salt,
    /// What each variant is, of those that it has or has had.
    pub versions: BTreeMap<VariantName, (ModelName, VersionName)>,
    /// At least one, the latest last: that one is in force.
    layouts: Vec<Layout>,
}

/// A time over which weights stood still, and so no unit moved.
///
/// Outcomes are compared within one layout: pooled over several, a variant that grew while everyone's outcomes rose looks
/// better than it is (Simpson's paradox).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub since: Timestamp,
    /// The revisions that had it, at least one. The first names the layout.
    pub revisions: Vec<RevisionNumber>,
    pub slots: Slots,
}

/// What an outcome belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The first revision of the layout.
    pub layout: RevisionNumber,
    pub variant: VariantName,
    /// Who showed it: a hash, since units may be people.
    pub unit: String,
    /// What tells it from others of its metric. The same key is the same outcome, posted again.
    pub key: String,
}

/// Why an outcome belongs to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("neither `requestId` nor `unit` is given")]
    OfNobody,
    #[error(
        "request {0} was assigned to no variant: its id was made by its caller, or it asked for a variant or version, or \
         matched a rule. Name the `unit`"
    )]
    NotAssigned(RequestId),
    #[error("request {0} is of revision {1}, which is not one of this experiment's")]
    OfAnother(RequestId, RevisionNumber),
}

impl Experiment {
    /// Layouts beyond these are forgotten, the oldest first, and outcomes of their requests are no longer taken.
    const MOST_LAYOUTS: usize = 64;

    /// The experiment of a revision that comes to serve: the last one, where it goes on with it, or another. `None` for
    /// a revision without variants.
    ///
    /// `is_running`: whether what served until now was of the last one. A rollback takes up an experiment that ended.
    pub fn of(
        revision: &Revision,
        last: Option<&Self>,
        is_running: bool,
        deployment: &DeploymentName,
        now: Timestamp,
    ) -> Option<Self> {
        let last = last.filter(|last| (is_running || revision.cause.is_rollback()) && last.goes_on_with(revision));
        match last {
            Some(last) => last.clone().turned_to(revision, now),
            None => Self::begun_by(revision, deployment, now),
        }
    }

    fn begun_by(revision: &Revision, deployment: &DeploymentName, now: Timestamp) -> Option<Self> {
        let test = revision.spec.strategy.ab_test()?;
        let salt = test.salt.clone().or_else(|| format!("{deployment}/{}", revision.number).parse().ok())?;
        let slots = Slots::of(&shares(revision)).ok()?;
        let layouts = vec![Layout { since: now, revisions: vec![revision.number], slots }];
        let versions = versions(revision);
        Some(Self { began: revision.number, since: now, sticky_by: test.sticky_by.clone(), salt, versions, layouts })
    }

    fn goes_on_with(&self, revision: &Revision) -> bool {
        let Some(test) = revision.spec.strategy.ab_test() else { return false };
        let is_same = |(name, version)| self.versions.get(&name).is_none_or(|known| *known == version);
        test.sticky_by == self.sticky_by
            && test.salt.as_ref().is_none_or(|salt| *salt == self.salt)
            && versions(revision).into_iter().all(is_same)
    }

    fn turned_to(mut self, revision: &Revision, now: Timestamp) -> Option<Self> {
        let slots = self.slots().reweighted(&shares(revision)).ok()?;
        self.versions.extend(versions(revision));
        match self.layouts.last_mut() {
            Some(last) if last.slots == slots => last.revisions.push(revision.number),
            _ => self.layouts.push(Layout { since: now, revisions: vec![revision.number], slots }),
        }
        let surplus = self.layouts.len().saturating_sub(Self::MOST_LAYOUTS);
        self.layouts.drain(..surplus);
        Some(self)
    }

    /// The layout in force.
    pub fn layout(&self) -> &Layout {
        self.layouts.last().unwrap_or_else(|| unreachable!("an experiment has a layout"))
    }

    pub fn slots(&self) -> &Slots {
        &self.layout().slots
    }

    /// How units are assigned while its variants, and perhaps others beside them, have these shares of all traffic. A
    /// version on trial takes its units from the variants, and gives them back when it goes: the layout stays.
    pub fn assignment(&self, shares: &[(VariantName, Weight)]) -> Option<Assignment> {
        let slots = self.slots().reweighted(shares).ok()?;
        Some(Assignment { sticky_by: self.sticky_by.clone(), salt: self.salt.clone(), slots })
    }

    /// The variant, layout and unit of an outcome that is posted at `now`.
    ///
    /// A request id that the gateway made says which variant was assigned. A unit has the variant that the layout at the
    /// outcome's `at` gives it, by default that of now: units move when weights do, so an outcome that comes long
    /// after its request had better name the request.
    ///
    /// # Errors
    /// [`JoinError`] if it belongs to nothing of this experiment.
    pub fn join(&self, outcome: &NewOutcome, now: Timestamp) -> Result<Joined, JoinError> {
        let assigned = outcome.request_id.as_ref().and_then(|id| Some((id, request_id::assigned(id.as_str())?)));
        let (layout, variant) = match (assigned, &outcome.unit, &outcome.request_id) {
            (Some((id, (revision, variant))), _, _) => {
                let another = || JoinError::OfAnother(id.clone(), revision);
                let layout = self.layouts.iter().find(|layout| layout.revisions.contains(&revision));
                let layout = layout.filter(|_| self.versions.contains_key(&variant)).ok_or_else(another)?;
                (layout, variant)
            }
            (None, Some(unit), _) => {
                let layout = self.layout_at(outcome.at.unwrap_or(now));
                (layout, self.variant_of(layout, unit))
            }
            (None, None, Some(id)) => return Err(JoinError::NotAssigned(id.clone())),
            (None, None, None) => return Err(JoinError::OfNobody),
        };
        let request = outcome.request_id.as_ref().map(|id| self.hash("request", id.as_str()));
        let unit = outcome.unit.as_ref().map(|unit| self.hash("unit", unit.as_str()));
        // One of them is given by now. Without a unit, each request is one.
        let both = request.clone().or(unit.clone()).zip(unit.or(request));
        let (key, unit) = both.ok_or(JoinError::OfNobody)?;
        let layout = layout.revisions.first().copied().unwrap_or(self.began);
        Ok(Joined { layout, variant, unit, key })
    }

    fn layout_at(&self, at: Timestamp) -> &Layout {
        let began = self.layouts.iter().rev().find(|layout| layout.since <= at);
        began.or(self.layouts.first()).unwrap_or_else(|| self.layout())
    }

    fn variant_of(&self, layout: &Layout, unit: &Unit) -> VariantName {
        let (sticky_by, salt, slots) = (self.sticky_by.clone(), self.salt.clone(), layout.slots.clone());
        Assignment { sticky_by, salt, slots }.variant_of(unit.as_str()).clone()
    }

    /// 32 hexadecimal digits that cannot be turned back without guessing what they are of.
    fn hash(&self, kind: &str, text: &str) -> String {
        Digest::of(format!("{}\0{kind}\0{text}", self.salt).as_bytes()).to_string()[..32].to_owned()
    }
}

fn shares(revision: &Revision) -> Vec<(VariantName, Weight)> {
    revision.variants.iter().map(|variant| (variant.name.clone(), variant.weight)).collect()
}

fn versions(revision: &Revision) -> BTreeMap<VariantName, (ModelName, VersionName)> {
    let of = |v: &crate::ab_test::RevisionVariant| (v.version.model.clone(), v.version.version.clone());
    revision.variants.iter().map(|variant| (variant.name.clone(), of(variant))).collect()
}

#[cfg(test)]
mod tests;
