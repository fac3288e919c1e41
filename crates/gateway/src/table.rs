//! A route table made ready for requests: names as header values, backends with their state, counters at hand.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use http::HeaderValue;
use modelyard_core::{
    DeploymentName, EvidenceKey, RevisionNumber, Route, RouteTable, TableVersion, Variant, WorkloadId,
};

use crate::backend::BackendState;
use crate::choose::{CompiledAssignment, CompiledRule};
use crate::counters::{Counters, Series, VariantCounters};
use crate::mirror::CompiledMirror;

/// What requests read. Never changed, only replaced.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) version: TableVersion,
    pub(crate) routes: HashMap<String, CompiledRoute>,
    pub(crate) workloads: BTreeSet<WorkloadId>,
}

#[derive(Debug)]
pub(crate) struct CompiledRoute {
    pub(crate) variants: Vec<CompiledVariant>,
    pub(crate) rules: Vec<CompiledRule>,
    pub(crate) assignment: Option<CompiledAssignment>,
    pub(crate) mirror: Option<CompiledMirror>,
    /// Versions by their movable names.
    pub(crate) aliases: HashMap<String, String>,
}

impl CompiledRoute {
    fn new(route: &Route, variants: Vec<CompiledVariant>) -> Self {
        Self {
            rules: route.rules.iter().filter_map(|rule| CompiledRule::new(rule, &variants)).collect(),
            assignment: route.assignment.as_ref().and_then(|a| CompiledAssignment::new(a, &variants)),
            mirror: route.mirror.as_ref().and_then(|mirror| CompiledMirror::new(mirror, &variants)),
            aliases: route.aliases.iter().map(|(alias, v)| (alias.to_string(), v.to_string())).collect(),
            variants,
        }
    }
}

#[derive(Debug)]
pub(crate) struct CompiledVariant {
    pub(crate) revision: RevisionNumber,
    pub(crate) version: String,
    pub(crate) name_header: HeaderValue,
    pub(crate) version_header: HeaderValue,
    /// In basis points.
    pub(crate) weight: u16,
    pub(crate) fallback: bool,
    pub(crate) backends: Vec<Arc<BackendState>>,
    pub(crate) counters: Arc<VariantCounters>,
    /// What its figures are told apart by.
    pub(crate) series: Series,
}

/// Makes tables, and keeps the state of backends from one to the next.
#[derive(Default)]
pub(crate) struct Compiler {
    backends: HashMap<(WorkloadId, SocketAddr), Weak<BackendState>>,
}

impl Compiler {
    pub(crate) fn compile(&mut self, table: &RouteTable, counters: &Counters) -> Table {
        self.backends.retain(|_, backend| backend.strong_count() > 0);
        let open = counters.open(keys(table));
        let routes = table.deployments.iter().map(|(name, route)| {
            let variants = route
                .variants
                .iter()
                .filter_map(|variant| Some(self.variant(name, variant, open.get(&key(name, route, variant))?.clone())));
            (name.to_string(), CompiledRoute::new(route, variants.collect()))
        });
        let routes: HashMap<_, CompiledRoute> = routes.collect();
        self.tell_withdrawn(&routes);
        Table { version: table.version, routes, workloads: table.workloads() }
    }

    fn variant(
        &mut self,
        deployment: &DeploymentName,
        variant: &Variant,
        counters: Arc<VariantCounters>,
    ) -> CompiledVariant {
        let header = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("invalid"));
        let backends = variant.backends.iter().map(|b| self.backend(&variant.workload, b.address));
        CompiledVariant {
            revision: variant.revision,
            version: variant.version.to_string(),
            name_header: header(variant.name.as_str()),
            version_header: header(variant.version.as_str()),
            weight: variant.weight.basis_points(),
            fallback: variant.fallback,
            backends: backends.collect(),
            counters,
            series: series(deployment, variant),
        }
    }

    fn backend(&mut self, workload: &WorkloadId, address: SocketAddr) -> Arc<BackendState> {
        let slot = self.backends.entry((workload.clone(), address)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let backend = Arc::new(BackendState::new(workload.clone(), address));
            *slot = Arc::downgrade(&backend);
            backend
        })
    }

    /// Tells each backend whether it is in this table: requests need not wait for one that is not.
    fn tell_withdrawn(&self, routes: &HashMap<String, CompiledRoute>) {
        let listed: HashSet<_> =
            routes.values().flat_map(|r| &r.variants).flat_map(|v| &v.backends).map(Arc::as_ptr).collect();
        for backend in self.backends.values().filter_map(Weak::upgrade) {
            backend.set_withdrawn(!listed.contains(&Arc::as_ptr(&backend)));
        }
    }

    /// Workloads that still have requests in flight, by this table or an earlier one.
    pub(crate) fn busy(&self) -> BTreeSet<WorkloadId> {
        let alive = self.backends.values().filter_map(Weak::upgrade);
        alive.filter(|b| b.in_flight.load(Relaxed) > 0).map(|b| b.workload.clone()).collect()
    }
}

fn keys(table: &RouteTable) -> impl Iterator<Item = (EvidenceKey, Series)> {
    table.deployments.iter().flat_map(|(name, route): (_, &Route)| {
        route.variants.iter().map(move |variant| (key(name, route, variant), series(name, variant)))
    })
}

fn key(deployment: &DeploymentName, route: &Route, variant: &Variant) -> EvidenceKey {
    EvidenceKey {
        deployment: deployment.clone(),
        window: route.window,
        revision: variant.revision,
        variant: variant.name.clone(),
    }
}

fn series(deployment: &DeploymentName, variant: &Variant) -> Series {
    Series { deployment: deployment.clone(), variant: variant.name.clone(), version: variant.version.clone() }
}
