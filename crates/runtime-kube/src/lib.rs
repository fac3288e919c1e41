//! Workloads as pods: per workload a Deployment, and what belongs to it.
//!
//! [`build`](mod@build) says which objects a workload is; it is pure. `write` makes the cluster agree, by server-side
//! apply, one write per object that differs. `watch` keeps `world`, a copy of what the cluster has, up to date, and
//! `observe` reads workloads off it: in steady state nothing is listed, got or written.
//!
//! This is the only crate that knows Kubernetes' types. It must not decide what should run: it knows workloads, and no
//! revisions, weights or rollouts. Nothing without this program's labels is touched.

mod build;
mod cluster;
mod config;
mod credentials;
mod drift;
mod error;
mod fence;
mod kind;
mod names;
mod observe;
mod pods;
mod runtime;
mod watch;
mod world;
mod write;

pub use cluster::Cluster;
pub use config::{ArtifactCache, KubeSettings, TokenIssuer};
pub use error::KubeError;
pub use runtime::KubeRuntime;
