//! Which variant a request goes to, and which of its backends. Pure: the dice are thrown by the caller.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::backend::BackendState;
use crate::table::{CompiledRoute, CompiledVariant};

/// Basis points in the whole.
pub(crate) const WHOLE: u16 = 10_000;

impl CompiledVariant {
    fn is_usable(&self, now_ms: u64) -> bool {
        self.backends.iter().any(|b| b.is_usable(now_ms))
    }
}

/// The variant for a request that names no version; `dice` is below [`WHOLE`].
///
/// By weight; where that variant has no usable backend, the fallback, then any other with weight. If everything is
/// ejected, an ejected backend is better than none. `None`: nothing runs at all.
pub(crate) fn by_weight(route: &CompiledRoute, dice: u16, now_ms: u64) -> Option<&CompiledVariant> {
    let mut rest = dice;
    let drawn = route.variants.iter().find(|v| {
        let hit = rest < v.weight;
        rest = rest.saturating_sub(v.weight);
        hit
    });
    let in_order = || {
        let fallback = route.variants.iter().filter(|v| v.fallback);
        drawn.into_iter().chain(fallback).chain(route.variants.iter().filter(|v| v.weight > 0))
    };
    in_order().find(|v| v.is_usable(now_ms)).or_else(|| in_order().find(|v| !v.backends.is_empty()))
}

/// The variant for a request that names a version, whatever its weight.
///
/// # Errors
/// If the deployment does not have that version.
pub(crate) fn by_version<'r>(
    route: &'r CompiledRoute,
    version: &str,
    now_ms: u64,
) -> Result<Option<&'r CompiledVariant>, NotServed> {
    let mut of_version = route.variants.iter().filter(|v| v.version == version).peekable();
    if of_version.peek().is_none() {
        return Err(NotServed);
    }
    let all: Vec<_> = of_version.collect();
    let usable = all.iter().find(|v| v.is_usable(now_ms));
    Ok(usable.or_else(|| all.iter().find(|v| !v.backends.is_empty())).copied())
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotServed;

/// The less loaded of two random backends that were not tried yet. Ejected or withdrawn ones only if there is no other.
pub(crate) fn backend<'v>(
    variant: &'v CompiledVariant,
    tried: &[Arc<BackendState>],
    now_ms: u64,
    dice: &mut impl FnMut(usize) -> usize,
) -> Option<&'v Arc<BackendState>> {
    let untried = |b: &&Arc<BackendState>| !tried.iter().any(|t| Arc::ptr_eq(t, b));
    let is_good = |b: &&Arc<BackendState>| b.is_usable(now_ms) && !b.is_withdrawn();
    let mut candidates: Vec<_> = variant.backends.iter().filter(untried).filter(is_good).collect();
    if candidates.is_empty() {
        candidates = variant.backends.iter().filter(untried).collect();
    }
    match candidates.len() {
        0 => None,
        1 => candidates.first().copied(),
        n => {
            let first = dice(n);
            let second = (first + 1 + dice(n - 1)) % n;
            let load = |i: usize| candidates.get(i).map_or(usize::MAX, |b| b.in_flight.load(Relaxed));
            candidates.get(if load(second) < load(first) { second } else { first }).copied()
        }
    }
}
