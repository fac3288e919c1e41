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

/// The variant that the dice fall on, by weight; `dice` is below [`WHOLE`].
pub(crate) fn by_weight(route: &CompiledRoute, dice: u16) -> Option<&CompiledVariant> {
    let mut rest = dice;
    route.variants.iter().find(|v| {
        let hit = rest < v.weight;
        rest = rest.saturating_sub(v.weight);
        hit
    })
}

/// The variant that was drawn; where it has no usable backend, the fallback, then any other with weight. If everything
/// is ejected, an ejected backend is better than none. `None`: nothing runs at all.
pub(crate) fn usable<'r>(
    route: &'r CompiledRoute,
    drawn: Option<&'r CompiledVariant>,
    now_ms: u64,
) -> Option<&'r CompiledVariant> {
    let in_order = || {
        let fallback = route.variants.iter().filter(|v| v.fallback);
        drawn.into_iter().chain(fallback).chain(route.variants.iter().filter(|v| v.weight > 0))
    };
    in_order().find(|v| v.is_usable(now_ms)).or_else(|| in_order().find(|v| !v.backends.is_empty()))
}

/// One of the variants that were asked for, whatever its weight. `None` if there is no such variant; `Some(None)` if none of
/// them runs.
pub(crate) fn one_of(
    route: &CompiledRoute,
    is_asked_for: impl Fn(&CompiledVariant) -> bool,
    now_ms: u64,
) -> Option<Option<&CompiledVariant>> {
    let all = || route.variants.iter().filter(|v| is_asked_for(v));
    all().next()?;
    Some(all().find(|v| v.is_usable(now_ms)).or_else(|| all().find(|v| !v.backends.is_empty())))
}

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
