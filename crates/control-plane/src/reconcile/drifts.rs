//! What somebody else's hand changed and the runtime set back: gone within a second, and so remembered for a while, for
//! people to read.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::inputs::Drift;
use modelyard_core::{Actor, Observation, Observed, Span, Timestamp, Workload, WorkloadId, WorkloadStatus};

/// How long status tells of it.
const REMEMBERED: Span = Span::from_secs(300);
/// Of one workload within that time; whoever fights with another controller fills neither status nor events.
const DIFFERENCES: usize = 8;
/// Events that wait for a database that is gone; what comes then is in the status alone.
const UNTOLD: usize = 256;

#[derive(Default)]
pub(super) struct Drifts {
    recent: BTreeMap<WorkloadId, Drift>,
    /// What each workload was asked to be when it was last seen to be just that. Before, and after it is asked to be
    /// something else, its objects come one by one, by our own hand.
    settled: BTreeMap<WorkloadId, Workload>,
    /// Events that are not written yet: of each workload that has changed in a way that was not told of lately.
    untold: Vec<EventDraft>,
}

impl Drifts {
    pub(super) fn recent(&mut self, now: Timestamp) -> &BTreeMap<WorkloadId, Drift> {
        self.recent.retain(|_, drift| now < drift.last + REMEMBERED);
        &self.recent
    }

    pub(super) fn untold(&mut self) -> &mut Vec<EventDraft> {
        &mut self.untold
    }

    /// Takes the drift of workloads that are about to be ensured into account: one change is one, however many looks it
    /// takes to mend.
    pub(super) fn note(&mut self, observation: &Observation, ensure: &BTreeMap<WorkloadId, Workload>, now: Timestamp) {
        for (id, observed) in &observation.workloads {
            // What becomes of it meanwhile is unknown too, and may be our own doing.
            let Observed::Known(status) = observed else {
                self.settled.remove(id);
                continue;
            };
            if status.drift.is_empty() {
                if self.settled.get(id) != Some(&status.workload) {
                    self.settled.insert(id.clone(), status.workload.clone());
                }
                continue;
            }
            let settled = self.settled.remove(id);
            if settled.is_some_and(|workload| is_of(&workload, status)) && ensure.contains_key(id) {
                self.untold.extend(tell(&mut self.recent, id, &status.drift, now));
                self.untold.truncate(UNTOLD);
            }
        }
        self.settled.retain(|id, _| observation.workloads.contains_key(id));
    }
}

/// Whether it drifted from that. What has no Deployment any more is taken to be asked for no workers.
fn is_of(workload: &Workload, status: &WorkloadStatus) -> bool {
    let asked = if status.workload.replicas == 0 { 0 } else { workload.replicas };
    status.workload == Workload { replicas: asked, ..workload.clone() }
}

fn tell(
    recent: &mut BTreeMap<WorkloadId, Drift>,
    id: &WorkloadId,
    differences: &[String],
    now: Timestamp,
) -> Option<EventDraft> {
    let drift = recent.entry(id.clone()).or_insert_with(|| Drift { differences: BTreeSet::new(), times: 0, last: now });
    (drift.times, drift.last) = (drift.times.saturating_add(1), now);
    let room = DIFFERENCES.saturating_sub(drift.differences.len());
    let news: Vec<_> =
        differences.iter().filter(|words| !drift.differences.contains(*words)).take(room).cloned().collect();
    drift.differences.extend(news.iter().cloned());
    (!news.is_empty()).then(|| EventDraft {
        kind: EventKind::DriftMended,
        actor: Actor::system(),
        model: None,
        deployment: id.deployment().parse().ok(),
        message: format!("{id}: {}; set back", news.join("; ")),
        data: serde_json::json!({ "workload": id, "differences": news }),
    })
}

#[cfg(test)]
mod tests {
    use modelyard_core::Epoch;

    use super::*;

    /// The workload, wanted and observed.
    struct World(Workload, Drifts);

    impl World {
        fn new() -> Self {
            let workload = serde_json::json!({
                "id": "linear-0123456789", "deployment": "linear", "model": "linear", "version": "1", "format": "onnx",
                "digest": "0".repeat(64), "replicas": 2, "resources": {}, "node_selector": {}, "tolerations": [],
            });
            Self(serde_json::from_value(workload).unwrap_or_else(|error| panic!("{error}")), Drifts::default())
        }

        fn look(&mut self, seconds: u64, drift: &[&str]) -> Vec<EventDraft> {
            let Self(workload, drifts) = self;
            let drift: Vec<_> = drift.iter().map(|d| (*d).to_owned()).collect();
            let ensure = (!drift.is_empty()).then(|| (workload.id.clone(), workload.clone()));
            let status = WorkloadStatus {
                workload: workload.clone(),
                epoch: Epoch(1),
                replicas: Vec::new(),
                drift,
                messages: Vec::new(),
                autoscaler: None,
            };
            let workloads = [(workload.id.clone(), Observed::Known(status))].into();
            drifts.note(&Observation { workloads }, &ensure.into_iter().collect(), at(seconds));
            std::mem::take(drifts.untold())
        }

        fn recent(&mut self, seconds: u64) -> Option<Drift> {
            self.1.recent(at(seconds)).values().next().cloned()
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0) + Span::from_secs(seconds)
    }

    #[test]
    fn a_change_is_told_once_and_remembered_for_minutes() {
        let mut world = World::new();
        assert!(world.look(0, &[]).is_empty());
        let told = world.look(1, &["replicas is 5, not 2"]);
        assert!(told.len() == 1 && told[0].message.contains("replicas is 5"), "{told:?}");
        // It takes another look to mend.
        assert!(world.look(2, &["replicas is 5, not 2"]).is_empty());
        assert!(world.look(3, &[]).is_empty());
        assert_eq!(world.recent(300).map(|d| d.times), Some(1));
        assert_eq!(world.recent(301), None);
    }

    #[test]
    fn what_comes_by_our_own_hand_is_no_drift() {
        let mut world = World::new();
        assert!(world.look(0, &["Service: it is not there"]).is_empty());
        world.look(1, &[]);
        world.0.disruption_budget = None;
        world.0.batching = serde_json::from_str(r#"{"maxBatchSize": 8, "maxDelay": "2ms"}"#).ok();
        assert!(world.0.batching.is_some() && world.look(2, &["Service: it is not there"]).is_empty());
        assert_eq!(world.recent(3), None);
    }

    #[test]
    fn a_fight_is_counted_and_fills_no_events() {
        let mut world = World::new();
        let mut told = 0;
        for round in 0..100 {
            told += world.look(2 * round, &[]).len();
            told += world.look(2 * round + 1, &[&format!("replicas is {round}, not 2")]).len();
        }
        let drift = world.recent(200).map(|d| (d.times, d.differences.len()));
        assert_eq!((told, drift), (DIFFERENCES, Some((100, DIFFERENCES))));
    }
}
