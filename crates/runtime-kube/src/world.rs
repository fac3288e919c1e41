//! The cluster as it was last seen: what watches tell, and what writes were answered. Nothing here calls anybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::core::DynamicObject;
use modelyard_core::{Epoch, Observation, Observed, Workload, WorkloadId, WorkloadStatus};
use serde_json::Value;
use tokio::sync::watch;

use crate::build::Version;
use crate::config::KubeSettings;
use crate::kind::{Kind, Served};
use crate::names;
use crate::observe;
use crate::pods::PodView;

/// Uids of objects that we deleted: a watch may still tell of how they were before.
const DELETED_KEPT: usize = 4096;

/// What is watched, each by a watch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Objects(Kind),
    Pods,
    Fence,
    Credentials,
}

/// An object of a workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Live {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) deleting: bool,
    /// Of the control plane that wrote it last.
    pub(crate) epoch: Epoch,
    /// Without its status and its account of who owns which field.
    pub(crate) json: Value,
    /// Of a Deployment: the wish it carries.
    pub(crate) wish: Option<Workload>,
    /// Of a Deployment: why pods cannot be made (quota, admission). Of an autoscaler: why it does not scale.
    pub(crate) failure: Option<String>,
}

impl Live {
    /// `None` if it is not of a workload, by its labels.
    pub(crate) fn read(mut object: DynamicObject) -> Option<(WorkloadId, Self)> {
        object.metadata.managed_fields = None;
        let labels = object.metadata.labels.clone()?;
        let id = labels.get(names::WORKLOAD)?.parse().ok()?;
        let epoch = labels.get(names::GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default();
        let annotations = object.metadata.annotations.as_ref();
        let wish = annotations.and_then(|a| serde_json::from_str(a.get(names::SPEC)?).ok());
        let failure = object.data.get("status").and_then(replica_failure).or_else(|| scaling_failure(&object));
        let live = Self {
            uid: object.metadata.uid.clone()?,
            resource_version: object.metadata.resource_version.clone()?,
            deleting: object.metadata.deletion_timestamp.is_some(),
            epoch,
            wish,
            failure,
            json: pruned(&object)?,
        };
        Some((id, live))
    }

    pub(crate) fn version(&self) -> Version<'_> {
        Version { uid: &self.uid, resource_version: &self.resource_version }
    }

    fn order(&self) -> u64 {
        self.resource_version.parse().unwrap_or_default()
    }

    /// Whether the other says the same, whatever its resource version.
    fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (self, other);
        (&a.uid, a.deleting, a.epoch, &a.failure) == (&b.uid, b.deleting, b.epoch, &b.failure) && a.json == b.json
    }
}

fn pruned(object: &DynamicObject) -> Option<Value> {
    let mut json = serde_json::to_value(object).ok()?;
    json.as_object_mut()?.remove("status");
    let metadata = json.get_mut("metadata")?.as_object_mut()?;
    for key in ["resourceVersion", "generation", "creationTimestamp", "selfLink"] {
        metadata.remove(key);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("deployment.kubernetes.io/revision");
        // Of a HorizontalPodAutoscaler, these are its status.
        annotations.retain(|name, _| !name.starts_with("autoscaling.alpha.kubernetes.io/"));
    }
    Some(json)
}

fn replica_failure(status: &Value) -> Option<String> {
    let conditions = status.get("conditions")?.as_array()?;
    let failed = conditions.iter().find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")?;
    let text = |key: &str| failed[key].as_str().unwrap_or_default();
    Some(format!("{}: {}", text("reason"), text("message")))
}

/// The conditions of a HorizontalPodAutoscaler, which `autoscaling/v1` keeps in an annotation.
fn scaling_failure(object: &DynamicObject) -> Option<String> {
    const IN_V1: &str = "autoscaling.alpha.kubernetes.io/conditions";
    let annotations = object.metadata.annotations.as_ref();
    let in_v1 = annotations.and_then(|a| serde_json::from_str::<Value>(a.get(IN_V1)?).ok());
    let conditions = object.data.get("status").and_then(|status| status.get("conditions"));
    let stops =
        |c: &&Value| ["ScalingActive", "AbleToScale"].iter().any(|of| c["type"] == **of) && c["status"] == "False";
    let failed = in_v1.as_ref().or(conditions)?.as_array()?.iter().find(stops)?;
    let text = |key: &str| failed[key].as_str().unwrap_or_default();
    // Of a Deployment without pods there is nothing to scale.
    (text("reason") != "ScalingDisabled").then(|| format!("{}: {}", text("reason"), text("message")))
}

/// The last time that the API server would not take a workload.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) workload: Workload,
    pub(crate) message: String,
    at: Instant,
    times: u32,
}

impl Refusal {
    /// Asked again too soon, it would be refused again.
    pub(crate) fn is_fresh(&self) -> bool {
        self.at.elapsed() < Duration::from_secs(1 << self.times.min(5))
    }
}

/// What there is of one workload.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) objects: BTreeMap<Kind, Live>,
    pub(crate) pods: BTreeMap<String, PodView>,
    pub(crate) refusal: Option<Refusal>,
    /// What follows from all that; worked out when it is asked for.
    status: Option<Observed<WorkloadStatus>>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.pods.is_empty() && self.refusal.is_none()
    }
}

/// The ConfigMap that keeps the latest epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FenceSeen {
    /// `None` where it does not say: somebody has edited it.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) resource_version: String,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<WorkloadId, Entry>,
    fence: Option<FenceSeen>,
    /// Until when the workers' token is good, in milliseconds since the Unix epoch. `None` where there is none.
    credential: Option<i64>,
    deleted: VecDeque<String>,
    synced: BTreeSet<Source>,
    /// Watches that are cut off, and why.
    broken: BTreeMap<Source, String>,
}

/// Shared by the watches, the writer and whoever observes.
pub(crate) struct World {
    pub(crate) settings: KubeSettings,
    pub(crate) served: Served,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl World {
    pub(crate) fn new(settings: KubeSettings, served: Served) -> Self {
        Self { settings, served, state: Mutex::default(), changes: watch::Sender::default() }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes an entry, and says so if `change` says that it matters.
    fn change(&self, id: &WorkloadId, change: impl FnOnce(&mut Entry) -> bool) {
        let mut state = self.state();
        let entry = state.entries.entry(id.clone()).or_default();
        let news = change(entry);
        if news {
            entry.status = None;
        }
        if entry.is_empty() {
            state.entries.remove(id);
        }
        drop(state);
        if news {
            self.bump();
        }
    }

    // ---- what is told -------------------------------------------------------------------------------------------

    /// An object as a watch shows it, or as a write was answered. Older news than what is known is none.
    pub(crate) fn see(&self, kind: Kind, id: &WorkloadId, live: Live) {
        if self.state().deleted.contains(&live.uid) {
            return;
        }
        self.change(id, |entry| match entry.objects.get(&kind) {
            Some(known) if known.uid == live.uid && known.order() > live.order() => false,
            known => {
                let news = known.is_none_or(|known| !known.is_same(&live));
                entry.objects.insert(kind, live);
                news
            }
        });
    }

    /// An object is gone. One that has taken its place is not.
    pub(crate) fn miss(&self, kind: Kind, id: &WorkloadId, uid: &str) {
        self.change(id, |entry| {
            let same = entry.objects.get(&kind).is_some_and(|known| known.uid == uid);
            same && entry.objects.remove(&kind).is_some()
        });
    }

    /// We deleted it: whatever a watch has yet to say of it is of the past.
    pub(crate) fn deleted(&self, kind: Kind, id: &WorkloadId, uid: &str) {
        let mut state = self.state();
        state.deleted.push_back(uid.to_owned());
        if state.deleted.len() > DELETED_KEPT {
            state.deleted.pop_front();
        }
        drop(state);
        self.miss(kind, id, uid);
    }

    pub(crate) fn see_pod(&self, name: &str, pod: PodView) {
        let id = pod.workload.clone();
        self.change(&id, |entry| match entry.pods.get(name) {
            Some(known) if known.uid == pod.uid && known.order > pod.order => false,
            known => {
                let pod = match known {
                    Some(known) if known.uid == pod.uid => pod.after(known),
                    _ => pod,
                };
                let news = known.is_none_or(|known| PodView { order: pod.order, ..known.clone() } != pod);
                entry.pods.insert(name.to_owned(), pod);
                news
            }
        });
    }

    pub(crate) fn miss_pod(&self, id: &WorkloadId, name: &str, uid: &str) {
        self.change(id, |entry| {
            let same = entry.pods.get(name).is_some_and(|known| known.uid == uid);
            same && entry.pods.remove(name).is_some()
        });
    }

    /// The whole of a kind, as a list found it: what is not in it is gone.
    pub(crate) fn relist(&self, kind: Kind, all: Vec<(WorkloadId, Live)>) {
        let listed: BTreeSet<_> = all.iter().map(|(_, live)| live.uid.clone()).collect();
        for (id, live) in all {
            self.see(kind, &id, live);
        }
        let known = self
            .state()
            .entries
            .iter()
            .filter_map(|(id, e)| Some((id.clone(), e.objects.get(&kind)?.uid.clone())))
            .collect::<Vec<_>>();
        for (id, uid) in known.iter().filter(|(_, uid)| !listed.contains(uid)) {
            self.miss(kind, id, uid);
        }
        self.synced(Source::Objects(kind));
    }

    pub(crate) fn relist_pods(&self, all: BTreeMap<String, PodView>) {
        let known = self
            .state()
            .entries
            .iter()
            .flat_map(|(id, e)| e.pods.iter().map(move |(name, p)| (id.clone(), name.clone(), p.uid.clone())))
            .collect::<Vec<_>>();
        for (id, name, uid) in known {
            if all.get(&name).is_none_or(|pod| pod.uid != uid) {
                self.miss_pod(&id, &name, &uid);
            }
        }
        for (name, pod) in all {
            self.see_pod(&name, pod);
        }
        self.synced(Source::Pods);
    }

    pub(crate) fn see_fence(&self, fence: Option<FenceSeen>) {
        self.state().fence = fence;
        self.bump();
    }

    pub(crate) fn see_credential(&self, good_until_ms: Option<i64>) {
        self.state().credential = good_until_ms;
        self.bump();
    }

    /// `None` forgets an earlier refusal.
    pub(crate) fn refused(&self, workload: &Workload, message: Option<String>) {
        self.change(&workload.id.clone(), |entry| {
            let before = entry.refusal.take();
            let Some(message) = message else { return before.is_some() };
            let again = before.filter(|b| b.workload == *workload);
            let times = again.as_ref().map_or(0, |b| b.times + 1);
            let news = again.is_none_or(|b| b.message != message);
            entry.refusal = Some(Refusal { workload: workload.clone(), message, at: Instant::now(), times });
            news
        });
    }

    /// Nobody wants it any more, so that it cannot be refused either.
    pub(crate) fn forget_refusal(&self, id: &WorkloadId) {
        self.change(id, |entry| entry.refusal.take().is_some());
    }

    // ---- whether it is told at all ------------------------------------------------------------------------------

    pub(crate) fn synced(&self, source: Source) {
        let mut state = self.state();
        let news = state.synced.insert(source) | state.broken.remove(&source).is_some();
        drop(state);
        if news {
            self.bump();
        }
    }

    pub(crate) fn broken(&self, source: Source, why: String) {
        let news = self.state().broken.insert(source, why).is_none();
        if news {
            self.bump();
        }
    }

    /// Whether a watch of that source has been heard of again, or for the first time.
    pub(crate) fn is_synced(&self, sources: &[Source]) -> bool {
        let state = self.state();
        sources.iter().all(|source| state.synced.contains(source))
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.state().broken.values().next().cloned()
    }

    // ---- what is asked ------------------------------------------------------------------------------------------

    pub(crate) fn fence(&self) -> Option<FenceSeen> {
        self.state().fence.clone()
    }

    /// The latest epoch that any object bears.
    pub(crate) fn latest_epoch(&self) -> Epoch {
        let state = self.state();
        let objects = state.entries.values().flat_map(|entry| entry.objects.values());
        objects.map(|live| live.epoch).max().unwrap_or_default()
    }

    pub(crate) fn credential(&self) -> Option<i64> {
        self.state().credential
    }

    pub(crate) fn entry<T>(&self, id: &WorkloadId, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.state().entries.get(id).map(read)
    }

    /// Whether some pod still has to fetch its artifact, as far as can be told.
    pub(crate) fn has_starting_pods(&self) -> bool {
        let state = self.state();
        let mut pods = state.entries.values().flat_map(|entry| entry.pods.values());
        pods.any(|pod| pod.replica.as_ref().is_some_and(observe::may_fetch))
    }

    pub(crate) fn observation(&self) -> Observation {
        let mut state = self.state();
        let trouble = state.broken.values().next().cloned();
        let mut workloads = BTreeMap::new();
        for (id, entry) in &mut state.entries {
            let status = match &entry.status {
                Some(status) => status.clone(),
                None => {
                    let status = observe::status(id, entry, &self.settings, &self.served);
                    entry.status = Some(status.clone());
                    status
                }
            };
            if status != Observed::Absent {
                workloads.insert(id.clone(), with_trouble(status, trouble.as_deref()));
            }
        }
        Observation { workloads }
    }
}

/// What was seen last stands: no word from the API server is no word of any change.
fn with_trouble(mut status: Observed<WorkloadStatus>, trouble: Option<&str>) -> Observed<WorkloadStatus> {
    if let (Observed::Known(status), Some(trouble)) = (&mut status, trouble) {
        status.messages.push(format!("Kubernetes does not answer, and this is as it was seen last: {trouble}"));
    }
    status
}
