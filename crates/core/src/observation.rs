//! What a runtime sees of its workloads. Never stored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::names::{BackendId, Epoch};
use crate::timestamp::Timestamp;
use crate::workload::{Workload, WorkloadId};

/// Something looked at: not there, there and known, or not known.
///
/// A remote call whose answer was lost leaves `Unknown`; only a new observation ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "value")]
pub enum Observed<T> {
    #[default]
    Absent,
    Known(T),
    Unknown {
        reason: String,
    },
}

impl<T> Observed<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unknown { .. } => None,
        }
    }
}

/// All workloads of a runtime. One that is not listed is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub workloads: BTreeMap<WorkloadId, Observed<WorkloadStatus>>,
}

impl Observation {
    pub fn of(&self, id: &WorkloadId) -> &Observed<WorkloadStatus> {
        static ABSENT: Observed<WorkloadStatus> = Observed::Absent;
        self.workloads.get(id).unwrap_or(&ABSENT)
    }

    /// Takes workloads that are there for unknown: of what is under way for them, only a later observation tells.
    pub fn take_for_unknown<'a>(&mut self, ids: impl IntoIterator<Item = &'a WorkloadId>, reason: &str) {
        for id in ids {
            if let Some(observed) = self.workloads.get_mut(id) {
                *observed = Observed::Unknown { reason: reason.to_owned() };
            }
        }
    }
}

/// A workload as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// What the runtime was last asked to run.
    pub workload: Workload,
    /// The term of office of who asked last.
    pub epoch: Epoch,
    /// In order of their ids.
    pub replicas: Vec<ReplicaStatus>,
    /// How what is there differs from `workload` by somebody else's hand, in words (`the Service is missing`). Ensuring
    /// the workload again mends it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<String>,
    /// What people should know that no replica can tell: why there are fewer than asked for (a quota, an admission
    /// refusal), or what was asked for and cannot be had here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Why its number of workers does not follow its load, though that was asked for, in the cluster's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler: Option<String>,
}

impl WorkloadStatus {
    /// The replicas that may get traffic.
    pub fn ready(&self) -> impl Iterator<Item = (&BackendId, SocketAddr)> {
        self.replicas.iter().filter_map(|r| match (&r.phase, r.endpoint) {
            (ReplicaPhase::Ready, Some(endpoint)) => Some((&r.id, endpoint)),
            _ => None,
        })
    }
}

/// One worker process or pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub id: BackendId,
    pub phase: ReplicaPhase,
    /// Where it answers, once it listens.
    pub endpoint: Option<SocketAddr>,
    /// Since this runtime first saw it.
    pub restarts: u32,
    /// Why it is not ready, in words a person can act on: the last lines of its log, an exit code; on Kubernetes, the
    /// cluster's own reason first (`ImagePullBackOff: …`).
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplicaPhase {
    Starting,
    Ready,
    /// It ran, and does not answer its readiness probe.
    NotReady,
    Draining,
    /// It ended, and is started again at the time named.
    BackOff {
        until: Timestamp,
    },
}

impl fmt::Display for ReplicaPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.pad("starting"),
            Self::Ready => f.pad("ready"),
            Self::NotReady => f.pad("not ready"),
            Self::Draining => f.pad("draining"),
            Self::BackOff { until } => write!(f, "crashed, starts again at {until}"),
        }
    }
}
