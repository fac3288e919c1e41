//! Figures for Prometheus, read off the counters and the table when asked for: nothing is counted twice.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use crate::counters::{LATENCY_BOUNDS, MirrorTotals, Series, Totals};
use crate::shared::Shared;
use crate::table::{CompiledVariant, Table};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The text exposition format.
pub(crate) fn encode(shared: &Shared) -> String {
    let mut out = String::new();
    let table = shared.table.load_full();
    let mut gauge = |name, help, value: u64| {
        head(&mut out, name, "gauge", help);
        writeln!(out, "modelyard_gateway_{name} {value}").ok();
    };
    gauge("route_table_epoch", "Term of office that the route table is from.", table.version.epoch.0);
    gauge("route_table_sequence", "Number of the route table in it; 0 before the first.", table.version.sequence);
    gauge("connections", "Connections of clients.", shared.connections.load(Relaxed) as u64);
    gauge("stopping", "Whether it was told to end.", u64::from(shared.is_stopping()));
    of_backends(&mut out, &table, shared.now_ms());
    of_requests(&mut out, &shared.counters.totals());
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP modelyard_gateway_{name} {help}\n# TYPE modelyard_gateway_{name} {kind}").ok();
}

fn of_backends(out: &mut String, table: &Table, now_ms: u64) {
    let variants = table.routes.values().flat_map(|route| &route.variants);
    // Sorted, and one of each: two revisions may share a version.
    let variants: BTreeMap<_, _> = variants.map(|variant| (labels(&variant.series), variant)).collect();
    let ejected = |v: &CompiledVariant| v.backends.iter().filter(|b| !b.is_usable(now_ms)).count();
    let in_flight = |v: &CompiledVariant| v.backends.iter().map(|b| b.in_flight.load(Relaxed)).sum();
    let mut family = |name, help, figure: &dyn Fn(&CompiledVariant) -> usize| {
        head(out, name, "gauge", help);
        for (labels, variant) in &variants {
            writeln!(out, "modelyard_gateway_{name}{{{labels}}} {}", figure(variant)).ok();
        }
    };
    family("backends", "Workers that requests are sent to.", &|v| v.backends.len());
    family("backends_ejected", "Of those, the ones that failed and are left out for a while.", &ejected);
    family("requests_in_flight", "Requests that workers have in hand.", &in_flight);
}

fn of_requests(out: &mut String, totals: &BTreeMap<Series, Totals>) {
    let all: Vec<_> = totals.iter().map(|(series, totals)| (labels(series), totals)).collect();
    type Figure = fn(&Totals) -> u64;
    let families: [(&str, &str, Figure); 3] = [
        ("requests_total", "Requests that the variant was asked, answered or not.", |t| t.requests),
        ("errors_total", "Of those, the ones that it failed.", |t| t.errors),
        ("rescued_total", "Failed requests that the stable version answered instead.", |t| t.rescued),
    ];
    for (name, help, figure) in families {
        head(out, name, "counter", help);
        for (labels, totals) in &all {
            writeln!(out, "modelyard_gateway_{name}{{{labels}}} {}", figure(totals)).ok();
        }
    }
    of_mirrors(out, &all);
    let name = "answer_duration_seconds";
    head(out, name, "histogram", "Time from asking a worker to its whole answer, or to the head of a long one.");
    for (labels, totals) in &all {
        let mut seen = 0;
        for (bound, count) in LATENCY_BOUNDS.iter().zip(&totals.latency) {
            seen += count;
            let (seconds, micros) = (bound / 1_000_000, bound % 1_000_000);
            writeln!(out, "modelyard_gateway_{name}_bucket{{{labels},le=\"{seconds}.{micros:06}\"}} {seen}").ok();
        }
        let count: u64 = totals.latency.iter().sum();
        writeln!(out, "modelyard_gateway_{name}_bucket{{{labels},le=\"+Inf\"}} {count}").ok();
        let (seconds, micros) = (totals.micros / 1_000_000, totals.micros % 1_000_000);
        writeln!(out, "modelyard_gateway_{name}_sum{{{labels}}} {seconds}.{micros:06}").ok();
        writeln!(out, "modelyard_gateway_{name}_count{{{labels}}} {count}").ok();
    }
}

/// Of variants that requests are mirrored to: most are not.
fn of_mirrors(out: &mut String, all: &[(String, &Totals)]) {
    let mirrored: Vec<_> = all.iter().filter(|(_, t)| t.mirror != MirrorTotals::default()).collect();
    type Figure = fn(&MirrorTotals) -> u64;
    let families: [(&str, &str, Figure); 4] = [
        ("mirrored_total", "Requests that the variant was asked after another one had answered.", |m| m.mirrored),
        ("mirror_dropped_total", "Requests that were to be mirrored, and were not for want of room.", |m| m.dropped),
        ("mirror_compared_total", "Mirrored requests of which both answers were compared.", |m| m.compared),
        ("mirror_differing_total", "Of those, the ones whose answers differ.", |m| m.differing),
    ];
    for (name, help, figure) in families {
        head(out, name, "counter", help);
        for (labels, totals) in &mirrored {
            writeln!(out, "modelyard_gateway_{name}{{{labels}}} {}", figure(&totals.mirror)).ok();
        }
    }
}

/// Names and versions hold nothing that would need escaping.
fn labels(series: &Series) -> String {
    format!("deployment=\"{}\",variant=\"{}\",version=\"{}\"", series.deployment, series.variant, series.version)
}
