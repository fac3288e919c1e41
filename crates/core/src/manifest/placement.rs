//! The fields of a deployment that only a cluster heeds: where pods may run, and who may change their number.

use super::fields::Fields;
use crate::deployment::{Autoscaling, DisruptionBudget, Toleration};

pub(super) fn toleration(mut fields: Fields<'_>) -> Option<Toleration> {
    let key: Option<String> = fields.optional("key");
    let operator = fields.optional("operator").unwrap_or_else(|| "Equal".to_owned());
    let value: Option<String> = fields.optional("value");
    let effect: Option<String> = fields.optional("effect");
    let toleration_seconds = number(&mut fields, "tolerationSeconds", 0..=u64::from(u32::MAX));
    match operator.as_str() {
        "Exists" if value.is_some() => fields.problem("value", "`Exists` takes no value"),
        "Equal" if key.is_none() => fields.problem_here("name a `key`, or tolerate every taint: {operator: Exists}"),
        "Equal" | "Exists" => {}
        other => fields.problem("operator", format_args!("`{other}` is not known; use Equal or Exists")),
    }
    if let Some(other) = effect.as_deref().filter(|e| !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(e)) {
        let message = format_args!("`{other}` is not known; use NoSchedule, PreferNoSchedule or NoExecute");
        fields.problem("effect", message);
    }
    if toleration_seconds.is_some() && effect.as_deref() != Some("NoExecute") {
        fields.problem("tolerationSeconds", "goes with `effect: NoExecute` only");
    }
    fields.finish();
    Some(Toleration { key, operator, value, effect, toleration_seconds })
}

pub(super) fn autoscaling(mut fields: Fields<'_>) -> Option<Autoscaling> {
    let min = number(&mut fields, "minReplicas", 1..=1000).unwrap_or(1);
    let max = number(&mut fields, "maxReplicas", 1..=1000);
    let target = number(&mut fields, "targetCpuUtilization", 1..=1000).unwrap_or(80);
    match max {
        None if !fields.has("maxReplicas") => fields.problem("maxReplicas", "`maxReplicas` is missing"),
        Some(max) if max < min => {
            fields.problem("maxReplicas", format_args!("must be at least minReplicas, which is {min}"));
        }
        _ => {}
    }
    fields.finish();
    Some(Autoscaling { min_replicas: min, max_replicas: max?, target_cpu_utilization: target })
}

pub(super) fn disruption_budget(mut fields: Fields<'_>) -> Option<DisruptionBudget> {
    let max = number(&mut fields, "maxUnavailable", 0..=1000);
    if !fields.has("maxUnavailable") {
        fields.problem("maxUnavailable", "`maxUnavailable` is missing");
    }
    fields.finish();
    Some(DisruptionBudget { max_unavailable: max? })
}

fn number(fields: &mut Fields<'_>, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u32> {
    fields.optional_u64(key, range).and_then(|n| u32::try_from(n).ok())
}
