//! Figures for Prometheus, read off the state when asked for: nothing is counted twice.

use std::fmt::Write;

use modelyard_core::state::Phase;

use crate::app::App;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

const IN_OFFICE: &str = "# HELP modelyard_in_office Whether this control plane is the one that decides.\n\
                         # TYPE modelyard_in_office gauge\nmodelyard_in_office ";

/// What a control plane tells that is not in office: the other figures are the holder's to tell.
pub fn out_of_office() -> String {
    format!("{IN_OFFICE}0\n")
}

/// The text exposition format.
pub fn encode(app: &App) -> String {
    let mut out = format!("{IN_OFFICE}{}\n", u8::from(app.term.check().is_ok()));
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        writeln!(out, "# HELP modelyard_{name} {help}\n# TYPE modelyard_{name} gauge").ok();
        for (labels, value) in samples {
            writeln!(out, "modelyard_{name}{labels} {value}").ok();
        }
    };
    let reports = app.reports.borrow().clone();
    let variants = || reports.iter().flat_map(|(name, report)| report.variants.iter().map(move |v| (name, v)));
    let labels = |name, v: &modelyard_core::plan::VariantReport| {
        format!("{{deployment=\"{name}\",variant=\"{}\",version=\"{}\"}}", v.name, v.version)
    };
    #[expect(clippy::cast_precision_loss, reason = "epochs and sequences stay far below 2^53")]
    {
        let table = app.gateways.published().version;
        family("epoch", "Term of office of this control plane.", vec![(String::new(), app.term.epoch().0 as f64)]);
        family("route_table_sequence", "Route tables published in it.", vec![(String::new(), table.sequence as f64)]);
        family("gateways", "Gateways heard of lately.", vec![(String::new(), app.gateways.known().len() as f64)]);
    }
    let done = |phase| if phase == Phase::Completed { 1.0 } else { 0.0 };
    family(
        "rollout_completed",
        "Whether the latest revision serves all traffic.",
        reports.iter().map(|(name, r)| (format!("{{deployment=\"{name}\"}}"), done(r.phase))).collect(),
    );
    family(
        "variant_weight_percent",
        "Share of traffic.",
        variants().map(|(name, v)| (labels(name, v), v.weight.percent())).collect(),
    );
    family(
        "variant_ready_replicas",
        "Workers that are ready.",
        variants().map(|(name, v)| (labels(name, v), f64::from(v.ready))).collect(),
    );
    family(
        "variant_restarts",
        "Restarts of its workers.",
        variants().map(|(name, v)| (labels(name, v), f64::from(v.restarts))).collect(),
    );
    out
}
