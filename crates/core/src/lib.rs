//! The words of Modelyard as values: names, manifests, workloads, observations, rollouts, route tables, plans.
//!
//! Everything here is data and its parsing. No async, no I/O, no clock, no randomness: whoever needs those passes
//! their results in.

pub mod access;
pub mod deployment;
pub mod digest;
pub mod event;
pub mod evidence;
pub mod histogram;
pub mod inputs;
pub mod manifest;
pub mod names;
pub mod observation;
pub mod plan;
pub mod quantity;
pub mod route;
pub mod signature;
pub mod span;
pub mod state;
pub mod timestamp;
pub mod verdict;
pub mod version;
pub mod weight;
pub mod workload;
pub mod yaml;

pub use access::{Role, TokenId, TokenSecret};
pub use deployment::{
    Analysis, Autoscaling, Batching, Canary, DeploymentSpec, DisruptionBudget, Labels, OnInconclusive, Resources, Step,
    Strategy, Toleration, VersionRef,
};
pub use digest::Digest;
pub use evidence::{Evidence, EvidenceKey, EvidenceReport, VariantEvidence};
pub use histogram::LatencyHistogram;
pub use names::{
    Actor, AliasName, BackendId, DeploymentName, Epoch, GatewayId, ModelName, NameError, RevisionNumber, StateVersion,
    TokenName, VariantName, VersionName,
};
pub use observation::{Observation, Observed, ReplicaPhase, ReplicaStatus, WorkloadStatus};
pub use quantity::Quantity;
pub use route::{Backend, Route, RouteTable, TableVersion, Variant, Window};
pub use signature::{Datatype, Signature, TensorSpec};
pub use span::Span;
pub use timestamp::Timestamp;
pub use version::{Format, ModelVersion};
pub use weight::{Rate, Weight};
pub use workload::{Workload, WorkloadId};
