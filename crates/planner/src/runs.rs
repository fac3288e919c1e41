//! What a revision runs: one workload, or for an A/B test one for each of its versions.

use std::collections::BTreeSet;

use modelyard_core::state::Revision;
use modelyard_core::{DeploymentName, Workload, WorkloadId};

#[derive(Debug, Clone)]
pub(crate) struct Runs {
    /// At least one, each once.
    workloads: Vec<Workload>,
    /// Which of them each variant has.
    of_variants: Vec<usize>,
}

impl Runs {
    pub(crate) fn of(revision: &Revision, deployment: &DeploymentName) -> Self {
        if revision.variants.is_empty() {
            return Self { workloads: vec![revision.workload(deployment)], of_variants: Vec::new() };
        }
        let mut runs = Self { workloads: Vec::new(), of_variants: Vec::new() };
        for variant in &revision.variants {
            let workload = revision.workload_of(deployment, &variant.version);
            let known = runs.workloads.iter().position(|w| w.id == workload.id);
            runs.of_variants.push(known.unwrap_or(runs.workloads.len()));
            if known.is_none() {
                runs.workloads.push(workload);
            }
        }
        runs
    }

    pub(crate) fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// Of a variant, by its place among the revision's; of the only one, where there are none.
    pub(crate) fn workload(&self, variant: usize) -> Option<&Workload> {
        self.workloads.get(self.of_variants.get(variant).copied().unwrap_or(0))
    }

    pub(crate) fn ids(&self) -> BTreeSet<&WorkloadId> {
        self.workloads.iter().map(|workload| &workload.id).collect()
    }

    /// The most workers that there may be of it.
    pub(crate) fn size(&self) -> u32 {
        self.workloads.iter().map(Workload::size).fold(0, u32::saturating_add)
    }

    /// How many must be ready for it to be up.
    pub(crate) fn needed(&self) -> u32 {
        self.workloads.iter().map(Workload::needed).fold(0, u32::saturating_add)
    }
}
