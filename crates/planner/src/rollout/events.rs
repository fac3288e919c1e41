//! What a walk tells: the events that go with its decisions.

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::verdict::Verdict;
use modelyard_core::{Actor, RevisionNumber, VariantName, Weight};
use serde_json::json;

use super::Walk;

impl Walk<'_> {
    pub(super) fn tell(&mut self, kind: EventKind, message: String, data: serde_json::Value) {
        let model = self.revisions.get(&self.rollout.revision).map(|r| r.version.model.clone());
        let deployment = Some(self.name.clone());
        self.events.push(EventDraft { kind, actor: Actor::system(), model, deployment, message, data });
    }

    pub(super) fn record(&mut self, verdict: Option<Verdict>, word: &str) {
        let Some(verdict) = verdict else { return };
        let step = self.rollout.step;
        let message = format!("analysis of step {} {word}: {verdict}", step + 1);
        let data = json!({"revision": self.rollout.revision, "step": step, "verdict": verdict});
        self.tell(EventKind::AnalysisDecided, message, data);
        self.rollout.verdict = Some(verdict);
    }

    pub(super) fn tell_weights(&mut self, shares: &[(VariantName, RevisionNumber, Weight)]) {
        let data: Vec<_> = shares
            .iter()
            .map(|(variant, revision, weight)| {
                json!({"variant": variant, "revision": revision, "version": self.version_of(*revision), "weight": weight})
            })
            .collect();
        let words: Vec<_> = shares
            .iter()
            .map(|(_, revision, weight)| format!("version {} {weight}", self.version_of(*revision)))
            .collect();
        self.tell(EventKind::WeightsChanged, format!("traffic: {}", words.join(", ")), json!({"weights": data}));
    }
}
