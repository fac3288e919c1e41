//! A gateway: follows the latest table that reached it, through restarts of its own too, sends requests by it, and reports
//! what it counted since it started.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;
use modelyard_core::{
    Disagreement, Evidence, EvidenceKey, EvidenceReport, GatewayId, LatencyHistogram, Route, RouteTable, Variant,
    VariantEvidence, WorkloadId,
};

use super::Broken;
use super::runtime::Runtime;
use super::story::Story;

/// How long the counts of a window that is over are still reported.
const KEPT_AFTER_END: u64 = 60_000;
/// Requests take this long at most, in milliseconds.
const LONGEST_REQUEST: u64 = 4_000;

/// A table, and when what it was made from was observed.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) table: Arc<RouteTable>,
    pub(crate) made: u64,
}

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: &'static str,
    /// A new one with each start; the last one is its own.
    pub(crate) ids: Vec<GatewayId>,
    pub(crate) following: Rc<Published>,
    /// The control plane that it has a stream of tables from.
    pub(crate) link: Option<usize>,
    /// When it last heard of that, and when it looks for another.
    pub(crate) heard: u64,
    pub(crate) looks_at: u64,
    pub(crate) reported: u64,
    pub(crate) down_until: u64,
    pub(crate) cut_until: u64,
    counters: BTreeMap<EvidenceKey, Counter>,
    in_flight: Vec<(WorkloadId, u64)>,
}

#[derive(Debug, Default)]
struct Counter {
    evidence: Evidence,
    ended: Option<u64>,
}

impl Gateway {
    pub(crate) fn new(name: &'static str, id: GatewayId) -> Self {
        Self {
            name,
            ids: vec![id],
            following: Rc::default(),
            link: None,
            heard: 0,
            looks_at: 0,
            reported: 0,
            down_until: 0,
            cut_until: 0,
            counters: BTreeMap::new(),
            in_flight: Vec::new(),
        }
    }

    pub(crate) fn is_up(&self, now: u64) -> bool {
        self.down_until <= now
    }

    pub(crate) fn is_reachable(&self, now: u64) -> bool {
        self.is_up(now) && self.cut_until <= now
    }

    /// Ends, and starts again later: with the table that it had, and nothing counted.
    pub(crate) fn restart(&mut self, id: GatewayId, until: u64) {
        self.ids.push(id);
        self.counters.clear();
        self.in_flight.clear();
        (self.link, self.down_until) = (None, until);
    }

    /// Takes a table, unless it has that one or a later one.
    pub(crate) fn take(&mut self, published: &Rc<Published>, now: u64) -> bool {
        if published.table.version <= self.following.table.version {
            return false;
        }
        self.following = published.clone();
        let open: BTreeSet<_> = self.keys().collect();
        for (key, counter) in &mut self.counters {
            counter.ended = if open.contains(key) { None } else { counter.ended.or(Some(now)) };
        }
        self.counters.retain(|_, counter| counter.ended.is_none_or(|ended| now < ended + KEPT_AFTER_END));
        for key in open {
            self.counters.entry(key).or_default();
        }
        true
    }

    fn keys(&self) -> impl Iterator<Item = EvidenceKey> {
        self.following.table.deployments.iter().flat_map(|(name, route)| {
            route.variants.iter().map(|variant| EvidenceKey {
                deployment: name.clone(),
                window: route.window,
                revision: variant.revision,
                variant: variant.name.clone(),
            })
        })
    }

    pub(crate) fn report(&self) -> EvidenceReport {
        let mut in_use = self.following.table.workloads();
        in_use.extend(self.in_flight.iter().map(|(id, _)| id.clone()));
        let variants = self.counters.iter().map(|(key, counter)| VariantEvidence {
            deployment: key.deployment.clone(),
            window: key.window,
            revision: key.revision,
            variant: key.variant.clone(),
            evidence: counter.evidence.clone(),
            examples: Vec::new(),
        });
        let gateway = self.ids.last().cloned().unwrap_or_else(|| unreachable!("it has had an id since it was made"));
        EvidenceReport { gateway, applied: self.following.table.version, in_use, variants: variants.collect() }
    }

    pub(crate) fn tick(&mut self, now: u64) {
        self.in_flight.retain(|(_, until)| *until > now);
    }

    /// Whether its requests may be at the workload, or go there next.
    pub(crate) fn sends_to(&self, id: &WorkloadId) -> bool {
        let routes = self.following.table.deployments.values().flat_map(|route| &route.variants);
        let is_routed = routes.into_iter().any(|v| v.workload == *id && !v.backends.is_empty());
        is_routed || self.in_flight.iter().any(|(busy, _)| busy == id)
    }

    /// Sends so many requests to each deployment. `is_followed`: whether whoever ends workloads must have heard of it.
    ///
    /// # Errors
    /// If one is sent to a worker that was ended after the table was made.
    pub(crate) fn serve(
        &mut self,
        requests: u64,
        is_followed: bool,
        runtime: &Runtime,
        rng: &mut Rng,
        story: &Story,
    ) -> Result<(), Broken> {
        let published = self.following.clone();
        for (name, route) in &published.table.deployments {
            let mut of_variants = vec![0u64; route.variants.len()];
            for _ in 0..requests {
                if let Some(place) = draw(route, rng.u16(..10_000))
                    && let Some(count) = of_variants.get_mut(place)
                {
                    *count += 1;
                }
            }
            for (variant, count) in route.variants.iter().zip(of_variants).filter(|(_, count)| *count > 0) {
                let sent = self.send(variant, published.made, is_followed, runtime, rng, story)?;
                let truth = Truth::of(variant.version.as_str());
                self.count(name, route, variant, truth.answer(count, sent, rng));
                let mirror = route.mirror.as_ref().filter(|mirror| mirror.variant != variant.name);
                let copied = mirror.and_then(|m| route.variants.iter().find(|v| v.name == m.variant));
                if let Some(copied) = copied.filter(|copied| !copied.backends.is_empty()) {
                    let sent = self.send(copied, published.made, is_followed, runtime, rng, story)?;
                    let mut evidence = Truth::of(copied.version.as_str()).answer(count, sent, rng);
                    let compared = count - evidence.errors;
                    evidence.disagreement = Disagreement { mirrored: count, compared, ..Disagreement::default() };
                    self.count(name, route, copied, evidence);
                    story.count("gateway mirrors");
                }
            }
        }
        Ok(())
    }

    /// Whether a worker of the variant took it.
    fn send(
        &mut self,
        variant: &Variant,
        made: u64,
        is_followed: bool,
        runtime: &Runtime,
        rng: &mut Rng,
        story: &Story,
    ) -> Result<bool, Broken> {
        let first = rng.usize(..variant.backends.len().max(1));
        let in_turn = variant.backends.iter().cycle().skip(first).take(variant.backends.len());
        for backend in in_turn {
            if runtime.answers(&variant.workload, backend.address) {
                self.in_flight.push((variant.workload.clone(), story.now() + rng.u64(1..LONGEST_REQUEST)));
                return Ok(true);
            }
            if runtime.ended(backend.address).is_some_and(|ended| ended > made) {
                story.count("request to a worker that was ended");
                if is_followed {
                    let (name, id, of) = (self.name, &variant.workload, self.following.table.version);
                    return Err(Broken(format!(
                        "no request goes to a worker that was ended: {name} sends one to {id} by table {of}"
                    )));
                }
            }
        }
        Ok(false)
    }

    fn count(&mut self, name: &modelyard_core::DeploymentName, route: &Route, variant: &Variant, evidence: Evidence) {
        let key = EvidenceKey {
            deployment: name.clone(),
            window: route.window,
            revision: variant.revision,
            variant: variant.name.clone(),
        };
        self.counters.entry(key).or_default().evidence.merge(&evidence);
    }
}

/// The place of the variant that the dice fall on, by weight; where it has no backend, the fallback, then any other.
fn draw(route: &Route, dice: u16) -> Option<usize> {
    let mut rest = dice;
    let drawn = route.variants.iter().position(|v| {
        let hit = rest < v.weight.basis_points();
        rest = rest.saturating_sub(v.weight.basis_points());
        hit
    });
    let has_backend = |place: &usize| route.variants.get(*place).is_some_and(|v| !v.backends.is_empty());
    let fallback = route.variants.iter().position(|v| v.fallback);
    let weighted = route.variants.iter().enumerate().filter(|(_, v)| !v.weight.is_zero()).map(|(place, _)| place);
    drawn.into_iter().chain(fallback).chain(weighted).find(has_backend)
}

/// What a version does with requests.
#[derive(Debug, Clone, Copy)]
struct Truth {
    /// In a thousand.
    fails: u64,
    micros: u64,
}

impl Truth {
    /// Version 3 fails a fifth of its requests, version 4 takes five times as long as the others.
    fn of(version: &str) -> Self {
        match version {
            "3" => Self { fails: 200, micros: 8_000 },
            "4" => Self { fails: 0, micros: 200_000 },
            _ => Self { fails: 0, micros: 8_000 },
        }
    }

    fn answer(self, requests: u64, is_sent: bool, rng: &mut Rng) -> Evidence {
        let mut errors = requests;
        let mut latency = LatencyHistogram::default();
        if is_sent {
            errors = (requests * self.fails + rng.u64(..1_000)) / 1_000;
            latency.add(LatencyHistogram::bucket(self.micros), requests - errors);
        }
        Evidence { requests, errors, latency, ..Evidence::default() }
    }
}
