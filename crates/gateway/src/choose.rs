//! Which variant a request goes to. In this order: the version that its path names; the variant that its header
//! `x-modelyard-variant` names; the first rule that it matches; the variant that its unit is assigned to; by weight.
//!
//! Pure: the dice are thrown by the caller. See `modelyard_core::assignment` for how units are assigned.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use modelyard_core::{Assignment, CookieName, MatchRule, Salt, StickyBy, UnitHash, VariantName};

use crate::answer::{self, Answer, VARIANT};
use crate::pick;
use crate::table::{CompiledRoute, CompiledVariant};

/// A year. Longer than any experiment, and below what browsers cut it to (400 days).
const UNIT_LASTS_SECONDS: u32 = 365 * 24 * 60 * 60;

/// A rule whose variant the route has.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    header: HeaderName,
    equals: String,
    /// Among the route's.
    variant: usize,
}

impl CompiledRule {
    /// `None` if the route has no such variant, or the header could not be one.
    pub(crate) fn new(rule: &MatchRule, variants: &[CompiledVariant]) -> Option<Self> {
        let header = rule.header.as_str().parse().ok()?;
        Some(Self { header, equals: rule.equals.clone(), variant: place(&rule.variant, variants)? })
    }

    fn matches(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.header).iter().any(|value| value.as_bytes() == self.equals.as_bytes())
    }
}

fn place(name: &VariantName, variants: &[CompiledVariant]) -> Option<usize> {
    variants.iter().position(|variant| variant.series.variant == *name)
}

#[derive(Debug)]
pub(crate) struct CompiledAssignment {
    by: By,
    salt: Salt,
    /// Stretches of points: where each ends, and whose it is. A variant that the route lacks owns what is drawn by weight.
    stretches: Vec<(u16, Option<usize>)>,
}

#[derive(Debug)]
enum By {
    Header(HeaderName),
    /// One that we make may be made anew; another one belongs to somebody else.
    Cookie {
        name: String,
        is_ours: bool,
    },
    ClientIp,
}

impl CompiledAssignment {
    /// `None` if its header could not be one.
    pub(crate) fn new(assignment: &Assignment, variants: &[CompiledVariant]) -> Option<Self> {
        let by = match &assignment.sticky_by {
            StickyBy::Header(name) => By::Header(name.as_str().parse().ok()?),
            StickyBy::Cookie(name) => By::Cookie { name: name.to_string(), is_ours: *name == CookieName::unit() },
            StickyBy::ClientIp => By::ClientIp,
        };
        let mut end = 0;
        let stretch = |slot: &modelyard_core::assignment::Slot| {
            end += slot.width.basis_points();
            (end, place(&slot.variant, variants))
        };
        let stretches = assignment.slots.iter().map(stretch).collect();
        Some(Self { by, salt: assignment.salt.clone(), stretches })
    }

    fn unit<'a>(&self, headers: &'a HeaderMap, client: IpAddr) -> Unit<'a> {
        match &self.by {
            By::ClientIp => Unit::Known(client.to_canonical().to_string().into()),
            By::Header(name) => {
                let value = headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
                value.filter(|value| !value.is_empty()).map_or(Unit::None, |value| Unit::Known(value.into()))
            }
            By::Cookie { name, is_ours } => match cookie(headers, name) {
                Some(value) => Unit::Known(value.into()),
                None if *is_ours => Unit::New,
                None => Unit::None,
            },
        }
    }

    fn owner(&self, point: u16) -> Option<usize> {
        self.stretches.iter().find(|(end, _)| point < *end).and_then(|(_, variant)| *variant)
    }
}

/// Who asks.
enum Unit<'a> {
    Known(Cow<'a, str>),
    /// Nobody yet: the client gets a cookie.
    New,
    /// Nobody who could be told by the next request.
    None,
}

/// A cookie's value (RFC 6265 §5.4), if it is there and not empty.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(n, value)| *n == name && !value.is_empty()).map(|(_, value)| value).next()
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Choice<'r> {
    /// Has a backend.
    pub(crate) variant: &'r CompiledVariant,
    /// Whether another variant may answer in its place. A caller who asked for a version or a variant gets its answer,
    /// whatever it is.
    pub(crate) may_fall_back: bool,
    /// Within an experiment, unless the request or a rule said otherwise.
    pub(crate) assigned: Option<Assigned<'r>>,
}

/// The part of an experiment that a request belongs to, whoever answers it.
#[derive(Debug)]
pub(crate) struct Assigned<'r> {
    pub(crate) variant: &'r CompiledVariant,
    /// `None`: it has no unit, and was drawn by weight on its own.
    pub(crate) unit: Option<UnitHash>,
    /// What the client is to be told that it is.
    pub(crate) set_cookie: Option<HeaderValue>,
}

/// Why a request goes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoVersion(String),
    NoVariant(String),
    NothingRuns,
}

impl Refusal {
    pub(crate) fn into_answer(self, route: &CompiledRoute) -> Answer {
        let listed = |of: fn(&CompiledVariant) -> &str| route.variants.iter().map(of).collect::<Vec<_>>().join(", ");
        let message = match self {
            Self::NothingRuns => {
                return answer::error(StatusCode::SERVICE_UNAVAILABLE, "no worker of this deployment is ready");
            }
            Self::NoVersion(version) => {
                format!("version {version} is not served here; served: {}", listed(|v| &v.version))
            }
            Self::NoVariant(name) => {
                format!("there is no variant {name} here; there are: {}", listed(|v| v.series.variant.as_str()))
            }
        };
        answer::error(StatusCode::NOT_FOUND, message)
    }
}

/// What choosing needs of a request.
pub(crate) struct Wanted<'a> {
    pub(crate) version: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) client: IpAddr,
    /// Whether the client's connection is encrypted: then its cookie must not go over another one.
    pub(crate) is_secure: bool,
}

/// `dice` is below [`pick::WHOLE`]; `new_unit` makes a random name.
///
/// # Errors
/// If there is no such version or variant, or no worker at all.
pub(crate) fn choose<'r>(
    route: &'r CompiledRoute,
    wanted: &Wanted<'_>,
    now_ms: u64,
    dice: u16,
    new_unit: impl FnOnce() -> u128,
) -> Result<Choice<'r>, Refusal> {
    let as_asked = |picked: Option<&'r CompiledVariant>| {
        let variant = picked.ok_or(Refusal::NothingRuns)?;
        Ok(Choice { variant, may_fall_back: false, assigned: None })
    };
    if let Some(version) = wanted.version {
        let picked = pick::one_of(route, |v| v.version == version, now_ms);
        return as_asked(picked.ok_or_else(|| Refusal::NoVersion(version.into()))?);
    }
    if let Some(name) = wanted.headers.get(&VARIANT) {
        let picked = pick::one_of(route, |v| v.name_header == *name, now_ms);
        let no_such = || Refusal::NoVariant(String::from_utf8_lossy(name.as_bytes()).chars().take(80).collect());
        return as_asked(picked.ok_or_else(no_such)?);
    }
    let rule = route.rules.iter().find(|rule| rule.matches(wanted.headers));
    let (drawn, assigned) = match (rule, &route.assignment) {
        (Some(rule), _) => (route.variants.get(rule.variant), None),
        (None, Some(assignment)) => {
            let assigned = assign(route, assignment, wanted, dice, new_unit);
            (assigned.as_ref().map(|assigned| assigned.variant), assigned)
        }
        (None, None) => (pick::by_weight(route, dice), None),
    };
    let variant = pick::usable(route, drawn, now_ms).ok_or(Refusal::NothingRuns)?;
    Ok(Choice { variant, may_fall_back: true, assigned })
}

fn assign<'r>(
    route: &'r CompiledRoute,
    assignment: &CompiledAssignment,
    wanted: &Wanted<'_>,
    dice: u16,
    new_unit: impl FnOnce() -> u128,
) -> Option<Assigned<'r>> {
    let (unit, set_cookie) = match assignment.unit(wanted.headers, wanted.client) {
        Unit::Known(unit) => (Some(UnitHash::of(&assignment.salt, &unit)), None),
        Unit::New => {
            let unit = format!("{:032x}", new_unit());
            (Some(UnitHash::of(&assignment.salt, &unit)), set_cookie(&unit, wanted.is_secure))
        }
        Unit::None => (None, None),
    };
    let owner = unit.and_then(|unit| route.variants.get(assignment.owner(unit.point())?));
    let variant = owner.or_else(|| pick::by_weight(route, unit.map_or(dice, UnitHash::point)))?;
    Some(Assigned { variant, unit, set_cookie })
}

fn set_cookie(unit: &str, is_secure: bool) -> Option<HeaderValue> {
    let secure = if is_secure { "; Secure" } else { "" };
    let name = CookieName::unit();
    let cookie = format!("{name}={unit}; Path=/; Max-Age={UNIT_LASTS_SECONDS}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(cookie).ok()
}

#[cfg(test)]
mod tests;
