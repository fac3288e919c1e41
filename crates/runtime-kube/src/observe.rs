//! From what there is of a workload to its status. Pure.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::{Observed, ReplicaPhase, ReplicaStatus, Workload, WorkloadId, WorkloadStatus};
use serde_json::Value;

use crate::build::{self, Context};
use crate::config::KubeSettings;
use crate::drift::differences;
use crate::kind::{Kind, Served};
use crate::world::{Entry, Live};

pub(crate) fn status(
    id: &WorkloadId,
    entry: &Entry,
    settings: &KubeSettings,
    served: &Served,
) -> Observed<WorkloadStatus> {
    let mut messages: Vec<String> = entry.pods.values().filter_map(|pod| pod.note.clone()).collect();
    messages.extend(entry.refusal.as_ref().map(|refusal| refusal.message.clone()));
    let deployment = entry.objects.get(&Kind::Deployment).filter(|live| !live.deleting);
    let Some(deployment) = deployment else { return leaving(entry, messages) };
    messages.extend(deployment.failure.clone());
    let Some(wish) = deployment.wish.clone().filter(|wish| wish.id == *id) else {
        // Somebody took the wish away: another ensure brings it back.
        return unreadable(entry, deployment, messages);
    };
    let (wanted, lacking) = wanted(&wish, entry, settings, served);
    messages.extend(lacking);
    let drift = served.kinds().flat_map(|kind| drift(kind, wanted.get(&kind), entry.objects.get(&kind))).collect();
    Observed::Known(WorkloadStatus {
        epoch: deployment.epoch,
        replicas: replicas(entry, false),
        workload: wish,
        drift,
        messages,
        autoscaler: entry.objects.get(&Kind::Autoscaler).and_then(|live| live.failure.clone()),
    })
}

/// The objects as they should be now, down to who owns them.
pub(crate) fn wanted(
    wish: &Workload,
    entry: &Entry,
    settings: &KubeSettings,
    served: &Served,
) -> (BTreeMap<Kind, Value>, Vec<String>) {
    let deployment = entry.objects.get(&Kind::Deployment);
    let scaled_to = deployment.and_then(|live| live.json["spec"]["replicas"].as_i64());
    let mut built = build::objects(wish, Context { settings, served, scaled_to });
    if let Some(owner) = deployment {
        let owned = built.objects.iter_mut().filter(|(kind, _)| **kind != Kind::Deployment);
        owned.for_each(|(_, object)| build::own(object, &owner.uid));
    }
    (built.objects, built.lacking)
}

/// How an object differs from what it should be.
pub(crate) fn drift(kind: Kind, wanted: Option<&Value>, live: Option<&Live>) -> Vec<String> {
    let name = kind.name();
    match (wanted, live.filter(|live| !live.deleting)) {
        (Some(wanted), Some(live)) => {
            // What it is called and what kind it is cannot differ: that is how it was found.
            let parts = ["metadata", "spec"].map(|part| differences(part, &wanted[part], &live.json[part]));
            parts.into_iter().flatten().map(|difference| format!("{name}: {difference}")).collect()
        }
        (Some(_), None) => vec![format!("{name}: it is not there")],
        (None, Some(_)) => vec![format!("{name}: it is not wanted")],
        (None, None) => Vec::new(),
    }
}

/// No Deployment: what is left of it is on its way out.
fn leaving(entry: &Entry, messages: Vec<String>) -> Observed<WorkloadStatus> {
    let replicas = replicas(entry, true);
    let refused = entry.refusal.as_ref().map(|refusal| &refusal.workload);
    let of_pods = entry.pods.values().find_map(|pod| pod.wish.as_ref());
    let Some(wish) = of_pods.or(refused) else {
        return if replicas.is_empty() { Observed::Absent } else { unknown() };
    };
    if replicas.is_empty() && refused.is_none() {
        return Observed::Absent;
    }
    // Nothing is asked for at the moment: whoever wants the workload finds that this is not it.
    let workload = Workload { replicas: 0, ..wish.clone() };
    let drift = vec!["Deployment: it is not there".to_owned()];
    let epoch = modelyard_core::Epoch::default();
    Observed::Known(WorkloadStatus { workload, epoch, replicas, drift, messages, autoscaler: None })
}

fn unreadable(entry: &Entry, deployment: &Live, messages: Vec<String>) -> Observed<WorkloadStatus> {
    let Some(wish) = entry.pods.values().find_map(|pod| pod.wish.clone()) else { return unknown() };
    Observed::Known(WorkloadStatus {
        workload: wish,
        epoch: deployment.epoch,
        replicas: replicas(entry, false),
        drift: vec!["Deployment: its annotation that says what was asked for is gone".to_owned()],
        messages,
        autoscaler: None,
    })
}

fn unknown() -> Observed<WorkloadStatus> {
    Observed::Unknown { reason: "there are objects of it that do not say what they are for".into() }
}

fn replicas(entry: &Entry, leaving: bool) -> Vec<ReplicaStatus> {
    let mut replicas: Vec<_> =
        entry.pods.values().filter_map(|pod| Some((pod.node_lost, pod.replica.clone()?))).collect();
    let is_heard_of = |(lost, replica): &(bool, ReplicaStatus)| !lost && replica.phase == ReplicaPhase::Ready;
    // A worker on a node that nobody hears of is better than none: more often than not it is the node's agent that
    // is gone, and the gateway finds out when it is not.
    if replicas.iter().any(is_heard_of) {
        for (lost, replica) in &mut replicas {
            if *lost && replica.phase == ReplicaPhase::Ready {
                replica.phase = ReplicaPhase::NotReady;
                replica.message = Some("NodeNotReady: its node is not heard of".into());
            }
        }
    }
    let mut replicas: Vec<_> = replicas.into_iter().map(|(_, replica)| replica).collect();
    if leaving {
        replicas.iter_mut().for_each(|replica| replica.phase = ReplicaPhase::Draining);
    }
    // In order of their ids, which pods' names are not kept in where one holds another's beginning.
    replicas.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: BTreeSet<_> = replicas.iter().map(|r| r.id.clone()).collect();
    debug_assert_eq!(ids.len(), replicas.len(), "pods have names of their own");
    replicas
}

/// Whether a worker may be about to ask for its artifact.
pub(crate) fn may_fetch(replica: &ReplicaStatus) -> bool {
    matches!(replica.phase, ReplicaPhase::Starting | ReplicaPhase::BackOff { .. })
}
