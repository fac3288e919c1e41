use std::collections::HashMap;

use modelyard_core::{
    Backend, DeploymentName, Epoch, RevisionNumber, Route, RouteTable, Slots, TableVersion, Variant, Weight, Window,
};

use super::*;
use crate::counters::Counters;
use crate::table::{Compiler, Table};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

fn name(text: &str) -> VariantName {
    text.parse().unwrap()
}

/// Variants by (name, basis points, how many backends): the first is the fallback.
fn route(variants: &[(&str, u16, u16)]) -> Route {
    let variant = |(i, (variant, weight, backends)): (usize, &(&str, u16, u16))| Variant {
        name: name(variant),
        revision: RevisionNumber(7),
        version: format!("{}", i + 1).parse().unwrap(),
        workload: format!("m-{i:0>10}").parse().unwrap(),
        weight: Weight::from_basis_points(*weight).unwrap(),
        fallback: i == 0,
        backends: (0..*backends)
            .map(|b| Backend { id: b.to_string().parse().unwrap(), address: ([127, 0, 0, 1], b + 1).into() })
            .collect(),
    };
    let window = Window { revision: RevisionNumber(7), step: 1 };
    Route { window, variants: variants.iter().enumerate().map(variant).collect(), ..Route::default() }
}

fn assigned_by(mut route: Route, sticky_by: StickyBy) -> Route {
    let weights: Vec<_> = route.variants.iter().map(|v| (v.name.clone(), v.weight)).collect();
    let slots = Slots::of(&weights).unwrap();
    route.assignment = Some(Assignment { sticky_by, salt: "m/7".parse().unwrap(), slots });
    route
}

fn compile(route: Route) -> Table {
    let deployment: DeploymentName = "m".parse().unwrap();
    let version = TableVersion { epoch: Epoch(1), sequence: 1 };
    let table = RouteTable { version, deployments: [(deployment, route)].into() };
    Compiler::default().compile(&table, &Counters::default())
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}

fn choose_in<'t>(table: &'t Table, headers: &HeaderMap, dice: u16) -> Result<Choice<'t>, Refusal> {
    let wanted = Wanted { version: None, headers, client: CLIENT, is_secure: false };
    choose(&table.routes["m"], &wanted, 0, dice, || 42)
}

fn chosen(table: &Table, pairs: &[(&str, &str)], dice: u16) -> String {
    choose_in(table, &headers(pairs), dice).unwrap().variant.series.variant.to_string()
}

fn by_header() -> StickyBy {
    StickyBy::Header("X-User-Id".parse().unwrap())
}

#[test]
fn what_is_asked_for_goes_before_rules_and_rules_before_units() {
    let mut route = assigned_by(route(&[("a", 10_000, 1), ("b", 0, 1), ("c", 0, 1)]), by_header());
    let rule = |header: &str, variant| MatchRule {
        header: header.parse().unwrap(),
        equals: "beta".into(),
        variant: name(variant),
    };
    route.rules = vec![rule("x-cohort", "b"), rule("x-other", "c"), rule("x-gone", "z")];
    let table = compile(route);
    let user = ("x-user-id", "u");
    assert_eq!(chosen(&table, &[user], 0), "a");
    assert_eq!(chosen(&table, &[user, ("x-cohort", "beta")], 0), "b");
    assert_eq!(chosen(&table, &[user, ("x-other", "beta"), ("x-cohort", "beta")], 0), "b", "the first rule");
    assert_eq!(chosen(&table, &[user, ("x-cohort", "Beta")], 0), "a", "exactly this value");
    assert_eq!(chosen(&table, &[user, ("x-gone", "beta")], 0), "a", "a rule to nowhere is none");
    let preview = headers(&[user, ("x-cohort", "beta"), ("x-modelyard-variant", "c")]);
    let choice = choose_in(&table, &preview, 0).unwrap();
    assert_eq!((choice.variant.series.variant.as_str(), choice.may_fall_back), ("c", false));
    assert!(choice.assigned.is_none(), "it is no part of the experiment");
    let wanted = Wanted { version: Some("2"), headers: &preview, client: CLIENT, is_secure: false };
    assert_eq!(choose(&table.routes["m"], &wanted, 0, 0, || 0).unwrap().variant.version, "2");
}

#[test]
fn a_variant_or_version_that_is_not_there_is_refused_by_name() {
    let table = compile(route(&[("stable", 10_000, 1), ("preview", 0, 0)]));
    let refused = choose_in(&table, &headers(&[("x-modelyard-variant", "green")]), 0).unwrap_err();
    assert_eq!(refused, Refusal::NoVariant("green".into()));
    assert_eq!(refused.into_answer(&table.routes["m"]).status(), 404);
    let refused = choose_in(&table, &headers(&[("x-modelyard-variant", "preview")]), 0).unwrap_err();
    assert_eq!(refused, Refusal::NothingRuns, "it is there, and does not run: nobody answers in its place");
}

#[test]
fn a_unit_keeps_its_variant_whatever_the_dice() {
    let table = compile(assigned_by(route(&[("a", 5_000, 1), ("b", 3_000, 1), ("holdout", 2_000, 1)]), by_header()));
    let mut seen = HashMap::<String, u32>::new();
    for user in 0..500 {
        let user = format!("user-{user}");
        let first = chosen(&table, &[("x-user-id", &user)], 0);
        assert_eq!(chosen(&table, &[("X-USER-ID", &user)], 9_999), first);
        *seen.entry(first).or_default() += 1;
    }
    assert!(seen["a"] > seen["b"] && seen["b"] > seen["holdout"] && seen["holdout"] > 50, "{seen:?}");
}

#[test]
fn the_gateway_assigns_as_the_control_plane_computes() {
    let route = assigned_by(route(&[("a", 5_000, 1), ("b", 5_000, 1)]), by_header());
    let (assignment, table) = (route.assignment.clone().unwrap(), compile(route));
    for user in 0..200 {
        let user = user.to_string();
        assert_eq!(chosen(&table, &[("x-user-id", &user)], 0), assignment.variant_of(&user).as_str());
    }
}

#[test]
fn without_a_unit_a_request_is_drawn_on_its_own_and_belongs_to_the_experiment() {
    let table = compile(assigned_by(route(&[("a", 5_000, 1), ("b", 5_000, 1)]), by_header()));
    for (pairs, dice, expected) in [(vec![], 4_999, "a"), (vec![("x-user-id", "")], 5_000, "b")] {
        let choice = choose_in(&table, &headers(&pairs), dice).unwrap();
        let assigned = choice.assigned.unwrap();
        assert_eq!((choice.variant.series.variant.as_str(), assigned.unit), (expected, None));
        assert_eq!(assigned.variant.series.variant.as_str(), expected);
    }
}

#[test]
fn a_client_without_our_cookie_gets_one_and_belongs_to_it() {
    let table = compile(assigned_by(route(&[("a", 5_000, 1), ("b", 5_000, 1)]), StickyBy::Cookie(CookieName::unit())));
    let choice = choose_in(&table, &HeaderMap::new(), 0).unwrap();
    let assigned = choice.assigned.unwrap();
    let cookie = assigned.set_cookie.unwrap();
    let cookie = cookie.to_str().unwrap();
    let unit = "0000000000000000000000000000002a";
    assert_eq!(cookie, format!("modelyard-unit={unit}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax"));
    let again = headers(&[("cookie", "theme=dark; modelyard-unit="), ("cookie", &format!("modelyard-unit={unit}"))]);
    let choice = choose_in(&table, &again, 9_999).unwrap();
    let assigned_again = choice.assigned.unwrap();
    assert_eq!((assigned_again.unit, assigned_again.set_cookie), (assigned.unit, None));
}

#[test]
fn a_cookie_of_somebody_else_is_read_and_not_made() {
    let table =
        compile(assigned_by(route(&[("a", 5_000, 1), ("b", 5_000, 1)]), StickyBy::Cookie("session".parse().unwrap())));
    let of = |pairs: &[(&str, &str)]| choose_in(&table, &headers(pairs), 0).unwrap().assigned.unwrap();
    let without = of(&[("cookie", "modelyard-unit=1")]);
    assert!(without.unit.is_none() && without.set_cookie.is_none());
    assert!(of(&[("cookie", "session=1")]).unit.is_some());
}

#[test]
fn an_address_is_the_same_unit_in_both_notations() {
    let table = compile(assigned_by(route(&[("a", 5_000, 1), ("b", 5_000, 1)]), StickyBy::ClientIp));
    let unit = |client: &str| {
        let (headers, client) = (HeaderMap::new(), client.parse().unwrap());
        let wanted = Wanted { version: None, headers: &headers, client, is_secure: false };
        choose(&table.routes["m"], &wanted, 0, 0, || 0).unwrap().assigned.unwrap().unit.unwrap()
    };
    assert_eq!(unit("10.1.2.3"), unit("::ffff:10.1.2.3"));
    assert_ne!(unit("10.1.2.3"), unit("10.1.2.4"));
}

#[test]
fn a_unit_whose_variant_does_not_run_is_answered_by_the_fallback_and_stays_assigned() {
    let table = compile(assigned_by(route(&[("a", 0, 1), ("b", 10_000, 0)]), by_header()));
    let choice = choose_in(&table, &headers(&[("x-user-id", "u")]), 0).unwrap();
    assert_eq!(choice.variant.series.variant.as_str(), "a");
    assert_eq!(choice.assigned.unwrap().variant.series.variant.as_str(), "b");
}

#[test]
fn a_route_without_any_of_this_draws_by_weight() {
    let table = compile(route(&[("stable", 9_000, 1), ("canary", 1_000, 1)]));
    assert_eq!((chosen(&table, &[], 8_999), chosen(&table, &[], 9_000)), ("stable".into(), "canary".into()));
    assert!(choose_in(&table, &HeaderMap::new(), 0).unwrap().assigned.is_none());
}
