//! What keeps a workload's workers from being ready, in the runtime's words, each said once.

use modelyard_core::inputs::Inputs;
use modelyard_core::{Observed, ReplicaPhase, ReplicaStatus, WorkloadId};

/// What the runtime did not do first, then what the whole workload lacks, then what its workers do. Workers in the same
/// trouble are told of together.
pub(crate) fn troubles(id: &WorkloadId, inputs: &Inputs) -> Vec<String> {
    let mut told = Vec::from_iter(inputs.failures.get(id).cloned());
    match inputs.observation.of(id) {
        Observed::Absent => {}
        Observed::Unknown { reason } => told.push(format!("the runtime does not tell: {reason}")),
        Observed::Known(status) => {
            for words in status.messages.iter().cloned().chain(of_workers(&status.replicas)) {
                // A refusal is what a call failed by, too.
                if !told.iter().any(|t| t.contains(&words)) {
                    told.push(words);
                }
            }
        }
    }
    told
}

fn of_workers(replicas: &[ReplicaStatus]) -> Vec<String> {
    let mut alike: Vec<Vec<&ReplicaStatus>> = Vec::new();
    for replica in replicas.iter().filter(|r| r.message.is_some() && !is_fine(r.phase)) {
        match alike.iter_mut().find(|others| others.iter().any(|other| is_same_trouble(other, replica))) {
            Some(others) => others.push(replica),
            None => alike.push(vec![replica]),
        }
    }
    alike.iter().filter_map(|replicas| tell(replicas)).collect()
}

/// One that drains is on its way out, and held up by nothing.
fn is_fine(phase: ReplicaPhase) -> bool {
    matches!(phase, ReplicaPhase::Ready | ReplicaPhase::Draining)
}

/// Times to start again differ from worker to worker; the trouble is the same.
fn is_same_trouble(a: &ReplicaStatus, b: &ReplicaStatus) -> bool {
    a.message == b.message && std::mem::discriminant(&a.phase) == std::mem::discriminant(&b.phase)
}

fn tell(replicas: &[&ReplicaStatus]) -> Option<String> {
    let first = replicas.iter().min_by_key(|r| starts_again(r.phase))?;
    let (phase, message) = (first.phase, first.message.as_deref().unwrap_or_default());
    Some(match replicas {
        [only] => format!("worker {}: {phase} ({message})", only.id),
        several => format!("{} workers: {phase} ({message})", several.len()),
    })
}

fn starts_again(phase: ReplicaPhase) -> Option<modelyard_core::Timestamp> {
    match phase {
        ReplicaPhase::BackOff { until } => Some(until),
        _ => None,
    }
}
