//! The words of Modelyard as values: names, manifests, workloads, observations, rollouts, route tables, plans.
//!
//! Everything here is data and its parsing. No async, no I/O, no clock, no randomness: whoever needs those passes
//! their results in.

pub mod ab_test;
pub mod access;
pub mod analysis;
pub mod assignment;
pub mod chain;
pub mod deployment;
pub mod digest;
pub mod disagreement;
pub mod engine;
pub mod event;
pub mod evidence;
pub mod experiment;
pub mod figure;
pub mod following;
pub mod histogram;
pub mod inputs;
pub mod magnitude;
pub mod manifest;
pub mod mirror;
pub mod names;
pub mod observation;
pub mod outcomes;
pub mod plan;
pub mod quantity;
pub mod request_id;
pub mod route;
pub mod schema;
pub mod scores;
pub mod signature;
pub mod span;
pub mod state;
pub mod strategy;
pub mod timestamp;
pub mod units;
pub mod verdict;
pub mod version;
pub mod weight;
pub mod workload;
pub mod yaml;

pub use ab_test::{AbTest, AbVariant, Goal, Metric, PerUnit, RevisionVariant};
pub use access::{Role, TokenId, TokenSecret};
pub use analysis::{Analysis, Increase, LatencyIncreases, PrometheusGate, Quantile};
pub use assignment::{Assignment, Slots, StickyBy, UnitHash};
pub use chain::{ChainHead, ChainedEvent};
pub use deployment::{
    Autoscaling, Batching, DeploymentSpec, DisruptionBudget, Labels, Resources, Toleration, VersionRef,
};
pub use digest::Digest;
pub use disagreement::{Disagreement, DisagreementExample, OutputDisagreement};
pub use engine::{EngineName, EngineSpec, EngineThreads, Optimization, Provider};
pub use evidence::{Evidence, EvidenceKey, EvidenceReport, VariantEvidence};
pub use experiment::Experiment;
pub use figure::Figure;
pub use following::Following;
pub use histogram::LatencyHistogram;
pub use magnitude::Magnitude;
pub use mirror::{Mirror, OutputRule, Redaction, Tolerance};
pub use names::{
    Actor, AliasName, BackendId, CookieName, DeploymentName, Epoch, GatewayId, HeaderName, MetricName, ModelName,
    NameError, RequestId, RevisionNumber, Salt, StateVersion, TokenName, Unit, VariantName, VersionName,
};
pub use observation::{Observation, Observed, ReplicaPhase, ReplicaStatus, WorkloadStatus};
pub use quantity::Quantity;
pub use route::{Backend, MatchRule, Route, RouteTable, TableVersion, Variant, Window};
pub use scores::ScoreHistogram;
pub use signature::{Datatype, Signature, TensorSpec};
pub use span::Span;
pub use strategy::{
    BlueGreen, Canary, Course, CourseKind, Mirroring, OnInconclusive, Shadow, ShadowStep, Stage, Step, Strategy,
};
pub use timestamp::Timestamp;
pub use units::{Exposure, UnitSample};
pub use version::{Format, ModelVersion};
pub use weight::{Rate, Weight};
pub use workload::{Workload, WorkloadId};
