//! Sticky assignment: which variant of an experiment a unit (a user, a client) belongs to. The same on every gateway, after
//! every restart, in the control plane, and for whoever computes SHA-256.
//!
//! A unit's hash is a point of 10,000, and variants own stretches of them ([`Slots`]). When weights move, only as many
//! points change hands as must: from variants that shrink to variants that grow. No function of the weights alone could
//! do that for three variants or more (Bavarian et al. 2020, "On the optimality of correlated sampling strategies"), so
//! the layout is state: whoever changes weights makes the next layout from the last one ([`Slots::reweighted`]) and
//! keeps it. A holdout is a variant like the others.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::names::{CookieName, HeaderName, Salt, VariantName};
use crate::weight::Weight;

/// Basis points in the whole.
const WHOLE: u16 = 10_000;

/// How requests become units, and units belong to variants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub sticky_by: StickyBy,
    /// Made once per experiment, and kept for as long as it runs. The deployment's name and the revision that began the
    /// experiment will do: it is no secret.
    pub salt: Salt,
    pub slots: Slots,
}

impl Assignment {
    /// The variant of a unit.
    pub fn variant_of(&self, unit: &str) -> &VariantName {
        self.slots.variant_at(UnitHash::of(&self.salt, unit).point())
    }
}

/// What a unit is told by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum StickyBy {
    /// A header's value. A request without it is drawn by weight on its own, and belongs to no unit: its address may be
    /// that of a proxy with a thousand users behind it.
    Header(HeaderName),
    /// A cookie's value. A client without it gets one if it is [`CookieName::unit`], which is the gateway's to make; without
    /// another one it is as without a header.
    Cookie(CookieName),
    /// The address that the connection comes from: behind a proxy it is the proxy's, and a header is the better choice.
    ClientIp,
}

/// A unit's hash: the first 16 bytes of SHA-256(salt, a byte 0, unit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitHash {
    point: u64,
    rank: u64,
}

impl UnitHash {
    pub fn of(salt: &Salt, unit: &str) -> Self {
        let hash = Sha256::new().chain_update(salt.as_str()).chain_update([0]).chain_update(unit).finalize();
        let number = |from: usize| hash.iter().skip(from).take(8).fold(0, |n, byte| n << 8 | u64::from(*byte));
        Self { point: number(0), rank: number(8) }
    }

    /// A point of 10,000: the first 8 bytes as a big-endian number, times 10,000, divided by 2^64.
    pub fn point(self) -> u16 {
        u16::try_from((u128::from(self.point) * u128::from(WHOLE)) >> 64).unwrap_or(WHOLE - 1)
    }

    /// The next 6 bytes as a number. Independent of the point.
    pub fn rank(self) -> u64 {
        self.rank >> 16
    }
}

/// Which points of 10,000 belong to which variant: stretches, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Slot>", into = "Vec<Slot>")]
pub struct Slots(Vec<Slot>);

/// A stretch of points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub variant: VariantName,
    pub width: Weight,
}

/// Why slots are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    #[error("the weights of an assignment's variants sum to {0} basis points, not to 10,000")]
    Sum(u32),
    #[error("variant `{0}` has two weights")]
    Twice(VariantName),
}

impl Slots {
    /// The first layout: one stretch per variant, in their order.
    ///
    /// # Errors
    /// If the weights do not sum to the whole, or a variant has two.
    pub fn of(weights: &[(VariantName, Weight)]) -> Result<Self, SlotsError> {
        check(weights)?;
        Ok(Self::joined(weights.iter().map(|(variant, width)| Slot { variant: variant.clone(), width: *width })))
    }

    /// The layout with other weights that moves the fewest points: each of them from a variant that shrinks to one that
    /// grows. A variant that is not named has weight 0.
    ///
    /// # Errors
    /// As [`Slots::of`].
    pub fn reweighted(&self, weights: &[(VariantName, Weight)]) -> Result<Self, SlotsError> {
        check(weights)?;
        let points = |weight: Weight| weight.basis_points();
        let wanted = |variant: &VariantName| weights.iter().find(|(v, _)| v == variant).map_or(0, |(_, w)| points(*w));
        let mut growing: Vec<(&VariantName, u16)> =
            weights.iter().map(|(v, w)| (v, points(*w).saturating_sub(self.points_of(v)))).collect();
        let mut kept: Vec<(&VariantName, u16)> = Vec::new();
        let mut next = Vec::new();
        for Slot { variant, width } in &self.0 {
            let so_far = kept.iter().find(|(v, _)| *v == variant).map_or(0, |(_, n)| *n);
            let keep = points(*width).min(wanted(variant).saturating_sub(so_far));
            kept.retain(|(v, _)| *v != variant);
            kept.push((variant, so_far + keep));
            next.push((variant, keep));
            let mut free = points(*width) - keep;
            for (grower, missing) in &mut growing {
                let given = free.min(*missing);
                (free, *missing) = (free - given, *missing - given);
                next.push((grower, given));
            }
        }
        let slot = |(variant, width): (&VariantName, u16)| {
            Some(Slot { variant: variant.clone(), width: Weight::from_basis_points(width).ok()? })
        };
        Ok(Self::joined(next.into_iter().filter_map(slot)))
    }

    /// The variant that owns a point below 10,000.
    pub fn variant_at(&self, point: u16) -> &VariantName {
        let mut end = 0;
        let owner = self.0.iter().find(|slot| {
            end += slot.width.basis_points();
            point < end
        });
        // They cover the whole, so the last one is never the answer to a point that is one.
        owner.or(self.0.last()).map_or_else(|| unreachable!("slots sum to the whole"), |slot| &slot.variant)
    }

    /// The stretches, in the order of points.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    fn points_of(&self, variant: &VariantName) -> u16 {
        self.0.iter().filter(|slot| slot.variant == *variant).map(|slot| slot.width.basis_points()).sum()
    }

    /// Neighbours of one variant become one, and empty ones go.
    fn joined(slots: impl Iterator<Item = Slot>) -> Self {
        let mut joined: Vec<Slot> = Vec::new();
        for slot in slots.filter(|slot| !slot.width.is_zero()) {
            match joined.last_mut().filter(|last| last.variant == slot.variant) {
                Some(last) => {
                    let sum = last.width.basis_points() + slot.width.basis_points();
                    last.width = Weight::from_basis_points(sum).unwrap_or(Weight::FULL);
                }
                None => joined.push(slot),
            }
        }
        Self(joined)
    }
}

impl TryFrom<Vec<Slot>> for Slots {
    type Error = SlotsError;
    fn try_from(slots: Vec<Slot>) -> Result<Self, SlotsError> {
        sums_to_the_whole(slots.iter().map(|slot| slot.width))?;
        Ok(Self::joined(slots.into_iter()))
    }
}

impl From<Slots> for Vec<Slot> {
    fn from(slots: Slots) -> Self {
        slots.0
    }
}

fn check(weights: &[(VariantName, Weight)]) -> Result<(), SlotsError> {
    let twice = weights.iter().enumerate().find(|(i, (name, _))| weights.iter().take(*i).any(|(n, _)| n == name));
    if let Some((_, (name, _))) = twice {
        return Err(SlotsError::Twice(name.clone()));
    }
    sums_to_the_whole(weights.iter().map(|(_, weight)| *weight))
}

fn sums_to_the_whole(weights: impl Iterator<Item = Weight>) -> Result<(), SlotsError> {
    let sum: u32 = weights.map(|weight| u32::from(weight.basis_points())).sum();
    if sum == u32::from(WHOLE) { Ok(()) } else { Err(SlotsError::Sum(sum)) }
}

#[cfg(test)]
mod tests;
