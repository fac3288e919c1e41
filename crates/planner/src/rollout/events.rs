//! What a walk tells: the events that go with its decisions.

use modelyard_core::Actor;
use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::verdict::Verdict;
use serde_json::json;

use super::Walk;
use super::shares::Share;

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

    pub(super) fn tell_weights(&mut self, shares: &[Share]) {
        let data: Vec<_> = shares.iter().map(data).collect();
        let words: Vec<_> = shares.iter().map(words).collect();
        self.tell(EventKind::WeightsChanged, format!("traffic: {}", words.join(", ")), json!({"weights": data}));
    }
}

/// Variants of an A/B test may be of other models than the deployment's.
fn data(share: &Share) -> serde_json::Value {
    let Share { variant, revision, version, weight, tested } = share;
    let mut data = json!({"variant": variant, "revision": revision, "version": version.version, "weight": weight});
    if tested.is_some() {
        data["model"] = json!(version.model);
    }
    data
}

fn words(share: &Share) -> String {
    let (version, weight) = (&share.version.version, share.weight);
    match share.tested {
        Some(_) => format!("{} (version {version}) {weight}", share.variant),
        None => format!("version {version} {weight}"),
    }
}
