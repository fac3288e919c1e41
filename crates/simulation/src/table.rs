//! The figures for people: a table that Markdown reads too.

use crate::decisions::{ALPHA, BETA, Effect, Row};

/// The lines of the table, and what they are about.
pub fn table(rows: &[Row], runs: u32, seed: u64) -> Vec<String> {
    let header = [
        "version on trial",
        "rolled back",
        "promoted",
        "median requests",
        "median time",
        "over Wald's bound",
        "by threshold, 1st check",
        "3rd check",
    ];
    let mut cells: Vec<Vec<String>> = vec![header.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(line));
    let columns = header.len();
    let width = |column: usize| cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let show = |row: &Vec<String>| {
        let padded: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("| {} |", padded.join(" | "))
    };
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut lines = vec![
        format!(
            "{runs} rollouts for each row (the last two: a fifth), seed {seed}: steps of 10 % and 50 %, 100 requests a second, a look every second, \
             alpha {ALPHA}, power {}.",
            1.0 - BETA
        ),
        String::new(),
    ];
    let mut shown = cells.iter().map(show);
    lines.extend(shown.next());
    lines.push(format!("| {} |", rule.join(" | ")));
    lines.extend(shown);
    lines
}

fn line(row: &Row) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let none = || "-".to_owned();
    let over = match (row.over_wald(), row.wald, row.wald_nominal) {
        (Some(over), Some(wald), Some(nominal)) => {
            format!("{over:.2} ({wald:.0}; {nominal:.0} at power {})", 1.0 - BETA)
        }
        _ => none(),
    };
    let what = if Effect::CAUGHT.contains(&row.effect) { "to rollback" } else { "to promotion" };
    vec![
        row.effect.name().to_owned(),
        percent(row.rolled_back),
        percent(row.promoted),
        row.median_requests.map_or_else(none, |n| format!("{n} {what}")),
        row.median_seconds.map_or_else(none, |s| format!("{s} s")),
        over,
        percent(row.threshold[0]),
        percent(row.threshold[1]),
    ]
}
