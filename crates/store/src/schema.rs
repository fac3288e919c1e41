//! The schema gate: whether the callers of the version that serves can use the one that is to take its place. The rule
//! itself is pure, in `modelyard_core::schema`; here are the versions that it is asked of.
//!
//! It stands where people ask for another version: at an apply, and at the move of an alias. A rollback does not pass
//! it: what served once may serve again, whatever came between.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::schema::differences;
use modelyard_core::{ModelName, ModelVersion, Signature, VersionName};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::{Result, parse};

/// What the gate says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Pass,
    PassWithWarning(String),
    Refuse(String),
}

/// The version that serves a deployment's callers now; `None` before the first has.
pub(crate) fn live(deployment: &DesiredDeployment) -> Option<&ModelVersion> {
    deployment.state.stable.and_then(|stable| deployment.revisions.get(&stable)).map(|revision| &revision.version)
}

pub(crate) type Version = (ModelName, VersionName);

/// Of registered versions, by model and version.
pub(crate) async fn signatures(
    connection: &mut PgConnection,
    versions: &BTreeSet<Version>,
) -> Result<BTreeMap<Version, Signature>> {
    let (models, numbers): (Vec<_>, Vec<_>) = versions.iter().map(|(m, v)| (m.to_string(), v.to_string())).unzip();
    let rows = sqlx::query!(
        r#"select v.model, v.version, v.signature as "signature: Json<Signature>"
           from model_versions v join unnest($1::text[], $2::text[]) as w (model, version) using (model, version)"#,
        &models,
        &numbers,
    );
    let rows = rows.fetch_all(connection).await?;
    rows.into_iter().map(|r| Ok(((parse(&r.model)?, parse(&r.version)?), r.signature.0))).collect()
}

pub(crate) fn gate(live: &ModelVersion, (model, version): &Version, new: &Signature, allowed: bool) -> Gate {
    if (&live.model, &live.version) == (model, version) {
        return Gate::Pass;
    }
    let named = |m: &ModelName, v: &VersionName| {
        if live.model == *model { format!("version {v}") } else { format!("version {v} of {m}") }
    };
    let (old, next) = (named(&live.model, &live.version), named(model, version));
    for (which, signature) in [(&old, &live.signature), (&next, new)] {
        if !signature.is_known() {
            let message =
                format!("the inputs and outputs of {which} are not known: whether callers can go on is not checked");
            return Gate::PassWithWarning(message);
        }
    }
    let found: Vec<_> = differences(&live.signature, new).iter().map(ToString::to_string).collect();
    let found = found.join("; ");
    match (found.is_empty(), allowed) {
        (true, _) => Gate::Pass,
        (false, true) => Gate::PassWithWarning(format!(
            "callers of {old}, which serves, cannot use {next}: {found}. It goes ahead by allowSchemaChange; remove that \
             when it is done"
        )),
        (false, false) => Gate::Refuse(format!(
            "callers of {old}, which serves, cannot use {next}: {found}. Give it a deployment of its own, or set \
             allowSchemaChange: true in this one's spec"
        )),
    }
}
