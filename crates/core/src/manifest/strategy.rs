//! `spec.strategy`, field by field.

use super::ab_test::ab_test;
use super::analysis::analysis;
use super::fields::Fields;
use super::resources::finish_with;
use crate::analysis::Analysis;
use crate::magnitude::Magnitude;
use crate::mirror::{Mirror, Tolerance};
use crate::span::Span;
use crate::strategy::{
    BlueGreen, Canary, DEFAULT_PROGRESS_DEADLINE, Mirroring, OnInconclusive, Shadow, ShadowStep, Step, Strategy,
};
use crate::weight::Weight;

const STRATEGIES: [&str; 5] = ["rolling", "canary", "blueGreen", "shadow", "abTest"];

pub(super) fn strategy(mut fields: Fields<'_>) -> Option<Strategy> {
    let given: Vec<&str> = STRATEGIES.into_iter().filter(|key| fields.has_key(key)).collect();
    let strategy = match given.as_slice() {
        ["rolling"] => {
            let max_surge = fields.optional_fields("rolling").and_then(|mut f| finish_with(max_surge(&mut f), f));
            Some(Strategy::Rolling { max_surge })
        }
        ["canary"] => fields.required_fields("canary").and_then(canary).map(Strategy::Canary),
        // All that it says has a default: `blueGreen:` is enough.
        ["blueGreen"] => match fields.optional_fields("blueGreen") {
            Some(fields) => blue_green(fields).map(Strategy::BlueGreen),
            None => Some(Strategy::BlueGreen(BlueGreen::default())),
        },
        ["shadow"] => fields.required_fields("shadow").and_then(shadow).map(Strategy::Shadow),
        ["abTest"] => fields.required_fields("abTest").and_then(ab_test).map(Strategy::AbTest),
        [] => {
            fields.problem_here(format_args!("name one strategy: {}", STRATEGIES.join(", ")));
            None
        }
        several => {
            fields.problem_here(format_args!("name one strategy, not several: {}", several.join(", ")));
            None
        }
    };
    for key in STRATEGIES {
        fields.ignore(key);
    }
    fields.finish();
    strategy
}

fn canary(mut fields: Fields<'_>) -> Option<Canary> {
    let steps = fields.required_list("steps").and_then(|steps| {
        let wanted = steps.len();
        let steps: Vec<Step> = steps.into_iter().filter_map(step).collect();
        (steps.len() == wanted).then_some(steps)
    });
    if let Some(steps) = &steps {
        if steps.is_empty() {
            fields.problem("steps", "needs at least one step, such as {weight: 10, hold: 30s}; for none use `rolling`");
        }
        for (i, pair) in steps.windows(2).enumerate() {
            if pair[1].weight <= pair[0].weight {
                let message =
                    format_args!("step {} must have more weight than the {} before it", i + 2, pair[0].weight);
                fields.problem("steps", message);
            }
        }
    }
    let is_shadowed = fields.has("shadow");
    let shadow = fields.optional_fields("shadow").and_then(|mut f| finish_with(shadow_step(&mut f), f));
    let max_surge = max_surge(&mut fields);
    if is_shadowed && max_surge.is_some() {
        fields.problem("maxSurge", "a shadow needs both versions whole, side by side: leave out one of the two");
    }
    let judged = judged(&mut fields);
    fields.finish();
    let Judged { analysis, on_inconclusive, progress_deadline } = judged?;
    let shadow = if is_shadowed { Some(shadow?) } else { None };
    Some(Canary { shadow, steps: steps?, max_surge, analysis, on_inconclusive, progress_deadline })
}

fn blue_green(mut fields: Fields<'_>) -> Option<BlueGreen> {
    let hold = fields.optional("hold").unwrap_or_default();
    let auto_promote = fields.optional_bool("autoPromote").unwrap_or(true);
    let is_mirrored = fields.has("mirror");
    let mirror = fields.optional_fields("mirror").and_then(|mut f| finish_with(mirroring(&mut f), f));
    let judged = judged(&mut fields);
    fields.finish();
    let Judged { analysis, on_inconclusive, progress_deadline } = judged?;
    let mirror = if is_mirrored { Some(mirror?) } else { None };
    Some(BlueGreen { hold, auto_promote, mirror, analysis, on_inconclusive, progress_deadline })
}

fn shadow(mut fields: Fields<'_>) -> Option<Shadow> {
    let step = shadow_step(&mut fields);
    let auto_promote = fields.optional_bool("autoPromote").unwrap_or(false);
    let judged = judged(&mut fields);
    fields.finish();
    let Judged { analysis, on_inconclusive, progress_deadline } = judged?;
    Some(Shadow { step: step?, auto_promote, analysis, on_inconclusive, progress_deadline })
}

fn shadow_step(fields: &mut Fields<'_>) -> Option<ShadowStep> {
    let hold = fields.optional("hold").unwrap_or_default();
    Some(ShadowStep { mirror: mirroring(fields)?, hold })
}

fn mirroring(fields: &mut Fields<'_>) -> Option<Mirroring> {
    let share = if fields.has("share") { fields.optional_number("share", Weight::from_percent)? } else { Weight::FULL };
    if share.is_zero() {
        fields.problem("share", "more than 0 % of the requests must be mirrored");
    }
    let most = u64::from(Mirror::MOST_EXAMPLES);
    let examples = fields.optional_u64("examples", 0..=most).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let redact = fields.optional("redact").unwrap_or_default();
    let tolerance = fields.optional_fields("tolerance").map(tolerance).unwrap_or_default();
    let outputs = fields.strings("outputs").into_iter().filter_map(|(name, rule)| match rule.parse() {
        Ok(rule) => Some((name, rule)),
        Err(error) => {
            fields.problem("outputs", format_args!("{name}: {error}"));
            None
        }
    });
    let outputs = outputs.collect();
    Some(Mirroring { share, tolerance, outputs, examples, redact })
}

fn tolerance(mut fields: Fields<'_>) -> Tolerance {
    let default = Tolerance::default();
    let mut magnitude = |key| fields.optional_number(key, Magnitude::try_from);
    let (absolute, relative) = (magnitude("absolute"), magnitude("relative"));
    fields.finish();
    Tolerance { absolute: absolute.unwrap_or(default.absolute), relative: relative.unwrap_or(default.relative) }
}

/// What all strategies with an analysis have in common.
struct Judged {
    analysis: Option<Analysis>,
    on_inconclusive: OnInconclusive,
    progress_deadline: Span,
}

fn judged(fields: &mut Fields<'_>) -> Option<Judged> {
    let given = fields.has("analysis");
    let analysis = fields.optional_fields("analysis").and_then(analysis);
    let on_inconclusive = fields.optional("onInconclusive").unwrap_or_default();
    let progress_deadline = fields.optional("progressDeadline").unwrap_or(DEFAULT_PROGRESS_DEADLINE);
    (analysis.is_some() || !given).then_some(Judged { analysis, on_inconclusive, progress_deadline })
}

fn max_surge(fields: &mut Fields<'_>) -> Option<u32> {
    fields.optional_u64("maxSurge", 0..=1000).and_then(|n| u32::try_from(n).ok())
}

fn step(mut fields: Fields<'_>) -> Option<Step> {
    let weight = fields.required_number("weight", Weight::from_percent);
    if weight.is_some_and(Weight::is_zero) {
        fields.problem("weight", "a step needs more than 0 % of the traffic");
    }
    let hold = fields.optional("hold").unwrap_or_default();
    fields.finish();
    Some(Step { weight: weight?, hold })
}
