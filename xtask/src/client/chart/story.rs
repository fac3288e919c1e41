//! What events tell, in order: who served which share, who waited beside it, and what was decided.

use std::collections::BTreeMap;

use modelyard_api::types::{Revision, ServedWeight};
use modelyard_core::event::{Event, EventKind};
use modelyard_core::state::Cause;
use modelyard_core::strategy::CourseKind;
use modelyard_core::verdict::{Check, Decision, Verdict};
use modelyard_core::{Actor, ModelName, RevisionNumber, Span, Timestamp, VersionName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Past;

/// A version; of an A/B test's variants maybe one of another model.
pub(super) type Key = (Option<ModelName>, VersionName);

#[derive(Debug)]
pub(super) struct Story {
    pub(super) name: String,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// In the order in which they came.
    pub(super) versions: Vec<Shown>,
    pub(super) changes: Vec<Change>,
    pub(super) waits: Vec<Wait>,
    pub(super) decisions: Vec<Decided>,
}

#[derive(Debug)]
pub(super) struct Shown {
    pub(super) key: Key,
    /// Of an A/B test, the names that it had there.
    pub(super) variants: Vec<String>,
}

/// From then on, until the next change: the shares in basis points, by version.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) at: Timestamp,
    pub(super) shares: BTreeMap<Key, u32>,
}

/// A version that was there, or on its way, and answered nobody.
#[derive(Debug)]
pub(super) struct Wait {
    /// `None`: the variants of an A/B test.
    pub(super) key: Option<Key>,
    pub(super) revision: RevisionNumber,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) what: String,
}

/// All that was decided at one moment.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) at: Timestamp,
    pub(super) tone: Tone,
    pub(super) sentences: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
}

// ---- the data of events, by kind -------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Weights {
    weights: Vec<ServedWeight>,
}

#[derive(Deserialize)]
struct Judged {
    step: u32,
    verdict: Verdict,
}

#[derive(Deserialize)]
struct Started {
    revision: RevisionNumber,
    version: VersionName,
}

#[derive(Deserialize)]
struct Created {
    revision: RevisionNumber,
    cause: Cause,
}

#[derive(Deserialize)]
struct RolledBack {
    reason: String,
}

/// `None` for what another release wrote otherwise: its sentence is shown.
fn data<T: DeserializeOwned>(event: &Event) -> Option<T> {
    T::deserialize(&event.what.data).ok()
}

impl Story {
    pub(super) fn of(past: &Past<'_>) -> Self {
        let first = past.events.first().map(|event| event.at);
        let from = past.since.or(first).or(past.until).unwrap_or_default();
        let mut story = Self {
            name: past.name.to_string(),
            from,
            until: from,
            versions: Vec::new(),
            changes: Vec::new(),
            waits: Vec::new(),
            decisions: Vec::new(),
        };
        if !past.before.is_empty() {
            story.change(from, past.before.to_vec(), None);
        }
        let mut waiting = None;
        for event in past.events {
            // Clocks of control planes differ; the order of ids is what was written.
            let at = event.at.max(story.until);
            story.take(event, at, past.revisions, &mut waiting);
            if shows(event.what.kind) {
                story.until = at;
            }
        }
        let span = story.until.since(from).as_millis();
        // Room for what the last decision led to.
        let margin = Span::from_millis((span / 10).max(1000));
        story.until = past.until.unwrap_or(story.until + margin).max(story.until);
        story.end_wait(&mut waiting, story.until);
        story
    }

    fn take(&mut self, event: &Event, at: Timestamp, revisions: &[Revision], waiting: &mut Option<Wait>) {
        match event.what.kind {
            EventKind::WeightsChanged => {
                let shares = data::<Weights>(event).map(|data| data.weights).unwrap_or_default();
                let arrived = waiting.as_ref().is_some_and(|w| shares.iter().any(|s| s.revision == w.revision));
                if arrived {
                    self.end_wait(waiting, at);
                }
                self.change(at, shares, event.what.model.as_ref());
            }
            EventKind::RolloutStarted => {
                self.end_wait(waiting, at);
                *waiting = data::<Started>(event).map(|Started { revision, version }| {
                    let known = revisions.iter().find(|r| r.number == revision);
                    let is_test = known.is_some_and(|known| known.spec.strategy.ab_test().is_some());
                    let key = (!is_test).then_some((None, version));
                    Wait { key, revision, from: at, until: at, what: beside(known) }
                });
            }
            EventKind::RolloutCompleted | EventKind::RolledBack => self.end_wait(waiting, at),
            EventKind::DeploymentDeleted => {
                self.end_wait(waiting, at);
                self.change(at, Vec::new(), None);
            }
            _ => {}
        }
        self.decide(event, at, revisions);
    }

    fn change(&mut self, at: Timestamp, weights: Vec<ServedWeight>, own: Option<&ModelName>) {
        let mut shares = BTreeMap::new();
        for ServedWeight { variant, version, model, weight, .. } in weights {
            let is_tested = model.is_some();
            let key = (model.filter(|model| own.is_some_and(|own| own != model)), version);
            let shown = self.shown(&key);
            let variant = variant.to_string();
            if is_tested && !shown.variants.contains(&variant) {
                shown.variants.push(variant);
            }
            *shares.entry(key).or_default() += u32::from(weight.basis_points());
        }
        // Of several changes at one moment the last one counts.
        self.changes.retain(|change| change.at < at);
        self.changes.push(Change { at, shares });
    }

    fn shown(&mut self, key: &Key) -> &mut Shown {
        let index = self.versions.iter().position(|shown| shown.key == *key).unwrap_or_else(|| {
            self.versions.push(Shown { key: key.clone(), variants: Vec::new() });
            self.versions.len() - 1
        });
        &mut self.versions[index]
    }

    fn end_wait(&mut self, waiting: &mut Option<Wait>, until: Timestamp) {
        if let Some(wait) = waiting.take().filter(|wait| wait.from < until) {
            if let Some(key) = &wait.key {
                self.shown(key);
            }
            self.waits.push(Wait { until, ..wait });
        }
    }

    fn decide(&mut self, event: &Event, at: Timestamp, revisions: &[Revision]) {
        let Some((tone, sentence)) = sentence(event, revisions) else { return };
        match self.decisions.last_mut() {
            Some(last) if last.at == at => {
                // What failed has just been said.
                let told = last.tone == Tone::Bad && event.what.kind == EventKind::RolledBack;
                let reason = data::<RolledBack>(event).map(|data| format!(": {}", data.reason)).unwrap_or_default();
                let short = sentence.strip_suffix(&reason).filter(|_| told).map(str::to_owned);
                last.sentences.push(short.unwrap_or(sentence));
                last.tone = last.tone.max(tone);
            }
            _ => self.decisions.push(Decided { at, tone, sentences: vec![sentence] }),
        }
    }
}

/// Whether the picture has anything of it.
fn shows(kind: EventKind) -> bool {
    kind != EventKind::WarmEnded
}

/// What a revision does before it gets traffic, by its first stage.
fn beside(revision: Option<&Revision>) -> String {
    let Some(revision) = revision else { return "without traffic".into() };
    let course = revision.spec.strategy.course().filter(|_| !revision.cause.is_rollback());
    let Some((kind, stage)) = course.and_then(|course| Some((course.kind, course.stages.into_iter().next()?))) else {
        return "starting".into();
    };
    let mirrored = stage.mirror.map(|mirroring| format!("mirrored {}", mirroring.share));
    match (kind, mirrored) {
        _ if !stage.weight.is_zero() => "starting".into(),
        (CourseKind::BlueGreen, None) => "preview".into(),
        (CourseKind::BlueGreen, Some(mirrored)) => format!("preview, {mirrored}"),
        (CourseKind::Canary | CourseKind::Shadow, mirrored) => {
            format!("shadow, {}", mirrored.unwrap_or_else(|| "not mirrored".into()))
        }
    }
}

/// What somebody, or the analysis, decided; `None` for what only follows from it.
fn sentence(event: &Event, revisions: &[Revision]) -> Option<(Tone, String)> {
    let (message, actor) = (event.what.message.clone(), &event.what.actor);
    match event.what.kind {
        EventKind::RevisionCreated => {
            let created = data::<Created>(event);
            let is_rollback = created.as_ref().is_some_and(|created| created.cause.is_rollback());
            let known = created.and_then(|created| revisions.iter().find(|r| r.number == created.revision));
            match known.map(|revision| &revision.spec.strategy) {
                // `RolledBack` tells of those that the analysis makes.
                _ if is_rollback && *actor == Actor::system() => None,
                Some(strategy) if !is_rollback => Some((Tone::Plain, format!("{message} ({strategy}, by {actor})"))),
                _ => Some((Tone::Plain, format!("{message} (by {actor})"))),
            }
        }
        EventKind::RolloutPaused
        | EventKind::RolloutResumed
        | EventKind::RolloutPromoted
        | EventKind::DeploymentDeleted => Some((Tone::Plain, format!("{message} (by {actor})"))),
        EventKind::AnalysisDecided => Some(data::<Judged>(event).map_or((Tone::Plain, message), judged)),
        EventKind::RolledBack => Some((Tone::Bad, message)),
        EventKind::RolloutCompleted => Some((Tone::Plain, message)),
        _ => None,
    }
}

/// The gates that decided, with their numbers.
fn judged(Judged { step, verdict }: Judged) -> (Tone, String) {
    let (tone, word) = match verdict.decision {
        Decision::Pass => (Tone::Good, "passed"),
        Decision::Fail => (Tone::Bad, "failed"),
        Decision::NeedMoreData { .. } => (Tone::Plain, "inconclusive"),
    };
    let decides = |check: &&Check| verdict.decision != Decision::Fail || !check.holds;
    let gates: Vec<_> = verdict.checks.iter().filter(decides).map(ToString::to_string).collect();
    let gates = if gates.is_empty() { String::new() } else { format!(": {}", gates.join("; ")) };
    (tone, format!("step {} {word}{gates}", step + 1))
}
