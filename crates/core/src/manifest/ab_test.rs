//! `spec.strategy.abTest`, field by field.

use super::fields::Fields;
use crate::ab_test::{AbTest, AbVariant, Metric};
use crate::assignment::StickyBy;
use crate::deployment::VersionRef;
use crate::names::{ModelName, VariantName};
use crate::route::MatchRule;
use crate::weight::Weight;

/// More would leave each too few units to learn anything from.
const MOST_VARIANTS: usize = 20;
const MOST_RULES: usize = 100;
const MOST_METRICS: usize = 20;

pub(super) fn ab_test(mut fields: Fields<'_>) -> Option<AbTest> {
    let variants = whole(&mut fields, "variants", MOST_VARIANTS, variant);
    if let Some(variants) = &variants {
        check(variants, &fields);
    }
    let sticky_by = sticky_by(&mut fields);
    let holdout = fields.optional_number("holdout", Weight::from_percent);
    if holdout == Some(Weight::FULL) {
        fields.problem("holdout", "must leave some units to the variants");
    }
    let rules = whole(&mut fields, "match", MOST_RULES, rule);
    if let (Some(rules), Some(variants)) = (&rules, &variants) {
        let is_known = |name: &VariantName| variants.iter().any(|v| v.name == *name);
        let is_holdout = |name: &VariantName| holdout.is_some() && *name == VariantName::holdout();
        for rule in rules.iter().filter(|rule| !is_known(&rule.variant) && !is_holdout(&rule.variant)) {
            fields.problem("match", format_args!("there is no variant {}", rule.variant));
        }
    }
    let salt = fields.optional("salt");
    let metrics = whole(&mut fields, "metrics", MOST_METRICS, metric);
    if let Some(twice) = metrics.as_ref().and_then(|metrics| first_twice(metrics.iter().map(|m| &m.name))) {
        fields.problem("metrics", format_args!("{twice} is named twice"));
    }
    fields.finish();
    Some(AbTest { variants: variants?, sticky_by: sticky_by?, rules: rules?, holdout, salt, metrics: metrics? })
}

/// A list of which each item must be right; empty if it is not there.
fn whole<'a, T>(
    fields: &mut Fields<'a>,
    key: &'static str,
    most: usize,
    read: impl FnMut(Fields<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    if !fields.has(key) {
        fields.ignore(key);
        return Some(Vec::new());
    }
    let items = fields.optional_list(key)?;
    let wanted = items.len();
    if wanted > most {
        fields.problem(key, format_args!("at most {most}, not {wanted}"));
    }
    let read: Vec<T> = items.into_iter().filter_map(read).collect();
    (read.len() == wanted).then_some(read)
}

fn check(variants: &[AbVariant], fields: &Fields<'_>) {
    if variants.len() < 2 {
        fields.problem("variants", "a test needs two variants at least; for one version use another strategy");
        return;
    }
    if let Some(twice) = first_twice(variants.iter().map(|v| &v.name)) {
        fields.problem("variants", format_args!("{twice} is named twice"));
    }
    let sum: u32 = variants.iter().map(|v| u32::from(v.weight.basis_points())).sum();
    if sum != u32::from(Weight::FULL.basis_points()) {
        fields.problem("variants", format_args!("the weights sum to {} %, not to 100 %", f64::from(sum) / 100.0));
    }
}

fn first_twice<'a, T: PartialEq + 'a>(names: impl Iterator<Item = &'a T> + Clone) -> Option<&'a T> {
    names.clone().enumerate().find(|(i, name)| names.clone().take(*i).any(|other| other == *name)).map(|(_, name)| name)
}

fn variant(mut fields: Fields<'_>) -> Option<AbVariant> {
    let name: Option<VariantName> = fields.required("name");
    if let Some(name) = name.as_ref().filter(|name| name.is_reserved()) {
        fields.problem("name", format_args!("`{name}` is a name of the system's: choose another"));
    }
    let (has_model, model) = (fields.has("model"), fields.optional("model"));
    let version = fields.required::<VersionRef>("version").and_then(|version| match version {
        VersionRef::Exact(version) => Some(version),
        VersionRef::Alias(_) => {
            fields.problem("version", "name the version: an alias moves, and a test's variants must not");
            None
        }
    });
    let weight = fields.required_number("weight", Weight::from_percent);
    fields.finish();
    let is_whole = model.is_some() || !has_model;
    Some(AbVariant { name: name?, model, version: version?, weight: weight? }).filter(|_| is_whole)
}

/// `{header: NAME}`, `{cookie: NAME}`, `{clientIp: {}}`; or `clientIp`, as it is written where it is kept.
fn sticky_by(fields: &mut Fields<'_>) -> Option<StickyBy> {
    if fields.is_text("stickyBy", "clientIp") {
        return Some(StickyBy::ClientIp);
    }
    let mut by = fields.required_fields("stickyBy")?;
    let given: Vec<_> = ["header", "cookie", "clientIp"].into_iter().filter(|key| by.has_key(key)).collect();
    let sticky_by = match given.as_slice() {
        ["header"] => by.required("header").map(StickyBy::Header),
        ["cookie"] => by.required("cookie").map(StickyBy::Cookie),
        ["clientIp"] => Some(StickyBy::ClientIp),
        _ => {
            by.problem_here("name one: {header: NAME}, {cookie: NAME} or {clientIp: {}}");
            None
        }
    };
    ["header", "cookie", "clientIp"].into_iter().for_each(|key| by.ignore(key));
    by.finish();
    sticky_by
}

fn rule(mut fields: Fields<'_>) -> Option<MatchRule> {
    let (header, equals, variant) = (fields.required("header"), fields.required("equals"), fields.required("variant"));
    fields.finish();
    Some(MatchRule { header: header?, equals: equals?, variant: variant? })
}

fn metric(mut fields: Fields<'_>) -> Option<Metric> {
    let name = fields.required("name");
    let (goal, per_unit) = (fields.optional("goal"), fields.optional("perUnit"));
    fields.finish();
    Some(Metric { name: name?, goal: goal.unwrap_or_default(), per_unit: per_unit.unwrap_or_default() })
}

/// The version that a deployment under test has besides its variants: what units that are held out get. By default that
/// of the first variant.
pub(super) fn baseline(
    test: &AbTest,
    model: &ModelName,
    given: Option<VersionRef>,
    fields: &Fields<'_>,
) -> Option<VersionRef> {
    let of_model = || test.variants.iter().filter(|v| v.model.as_ref().is_none_or(|m| m == model)).map(|v| &v.version);
    match given {
        None => {
            let first = of_model().next().cloned().map(VersionRef::Exact);
            if first.is_none() {
                fields.problem_here("`version` is missing, and no variant is of the deployment's own model");
            }
            first
        }
        Some(VersionRef::Alias(_)) => {
            fields.problem("version", "name the version: an alias moves, and what a test compares must not");
            None
        }
        Some(VersionRef::Exact(version)) => {
            let is_held_out = test.holdout.is_some_and(|weight| !weight.is_zero());
            if !is_held_out && of_model().all(|known| *known != version) {
                fields.problem("version", "nothing serves it: leave it out, make it a variant's, or set a `holdout`");
            }
            Some(VersionRef::Exact(version))
        }
    }
}
