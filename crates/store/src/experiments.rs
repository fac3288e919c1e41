//! Experiments: what comes of requests, who was assigned to which variant, and their end.
//!
//! Outcomes and exposures are written beside all else, without the lock of writers: nothing is decided on what is there,
//! and each row is written once or only grows.

use std::collections::BTreeMap;

use modelyard_core::experiment::Joined;
use modelyard_core::outcomes::Tally;
use modelyard_core::state::{Cause, DeploymentState, Revision};
use modelyard_core::{
    Actor, DeploymentName, DeploymentSpec, Experiment, Exposure, GatewayId, MetricName, RevisionNumber, Strategy,
    Timestamp, UnitSample, VariantName, VersionRef, Window,
};
use sqlx::types::Json;

use crate::deployments::lock;
use crate::revisions::{self, NewRevision, RevisionRow};
use crate::{Result, Store, StoreError, parse, signed, unsigned};

/// A deployment's experiment that runs, or that ran last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentRow {
    pub experiment: Experiment,
    /// The latest of those that have the layout in force.
    pub revision: Revision,
    /// Whether it serves.
    pub running: bool,
}

/// An outcome that has found its variant.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRow {
    pub joined: Joined,
    pub metric: MetricName,
    pub value: f64,
    pub at: Timestamp,
}

/// What one gateway counted of one variant in one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposureRow {
    pub deployment: DeploymentName,
    pub revision: RevisionNumber,
    pub variant: VariantName,
    pub gateway: GatewayId,
    pub window: Window,
    pub exposure: Exposure,
}

impl Store {
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such deployment, or it has had no experiment.
    pub async fn experiment(&self, name: &DeploymentName) -> Result<ExperimentRow> {
        let mut connection = self.pool.acquire().await?;
        let state = sqlx::query_scalar!(
            r#"select state as "state: Json<DeploymentState>" from deployments where name = $1"#,
            name.as_str()
        );
        let state = state.fetch_optional(&mut *connection).await?;
        let state = state.ok_or_else(|| StoreError::not_found("deployment", name))?.0;
        let experiment = state.experiment.ok_or_else(|| StoreError::not_found("experiment of deployment", name))?;
        let revisions = &experiment.layout().revisions;
        let latest = revisions.last().copied().unwrap_or(experiment.began);
        let running = state.stable.is_some_and(|stable| revisions.contains(&stable));
        let revision = revisions::one(&mut connection, name, latest).await?.revision;
        Ok(ExperimentRow { experiment, revision, running })
    }

    /// How many of them were not there yet: what was posted before counts once.
    pub async fn record_outcomes(
        &self,
        name: &DeploymentName,
        experiment: RevisionNumber,
        outcomes: &[OutcomeRow],
    ) -> Result<u64> {
        // In one order, so that two posts of the same do not wait for each other.
        let mut outcomes: Vec<_> = outcomes.iter().collect();
        outcomes.sort_by(|a, b| (&a.metric, &a.joined.key).cmp(&(&b.metric, &b.joined.key)));
        let strings = |of: fn(&OutcomeRow) -> &str| outcomes.iter().map(|o| of(o).to_owned()).collect::<Vec<_>>();
        let numbers = |of: fn(&OutcomeRow) -> i64| outcomes.iter().map(|o| of(o)).collect::<Vec<_>>();
        let written = sqlx::query!(
            "insert into outcomes (deployment, experiment, layout, metric, key, variant, unit, value, at_ms)
             select $1, $2, o.layout, o.metric, o.key, o.variant, o.unit, o.value, o.at_ms
             from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[], $9::bigint[])
                  as o (layout, metric, key, variant, unit, value, at_ms)
             on conflict do nothing",
            name.as_str(),
            signed(experiment.0),
            &numbers(|o| signed(o.joined.layout.0)),
            &strings(|o| o.metric.as_str()),
            &strings(|o| &o.joined.key),
            &strings(|o| o.joined.variant.as_str()),
            &strings(|o| &o.joined.unit),
            &outcomes.iter().map(|o| o.value).collect::<Vec<_>>(),
            &numbers(|o| o.at.as_millis()),
        );
        Ok(written.execute(&self.pool).await?.rows_affected())
    }

    /// The outcomes of one layout by variant and metric. Of each unit one number: the sum of its outcomes for the metrics
    /// in `summed`, for others their mean.
    pub async fn tallies(
        &self,
        name: &DeploymentName,
        experiment: RevisionNumber,
        layout: RevisionNumber,
        summed: &[MetricName],
    ) -> Result<Vec<Tally>> {
        let summed: Vec<_> = summed.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            r#"select variant, metric, count(*) as "units!", avg(u.value) as "mean!", var_samp(u.value) as variance
               from (select variant, metric,
                            case when metric = any ($4::text[]) then sum(value) else avg(value) end as value
                     from outcomes where deployment = $1 and experiment = $2 and layout = $3
                     group by variant, metric, unit) u
               group by variant, metric order by variant, metric"#,
            name.as_str(),
            signed(experiment.0),
            signed(layout.0),
            &summed,
        );
        let rows = rows.fetch_all(&self.pool).await?.into_iter().map(|row| {
            Ok(Tally {
                variant: parse(&row.variant)?,
                metric: parse(&row.metric)?,
                units: unsigned(row.units),
                mean: row.mean,
                variance: row.variance.unwrap_or(0.0),
            })
        });
        rows.collect()
    }

    /// Counts only grow, so that the larger one is the later one. Those of deployments that are gone are dropped.
    pub async fn record_exposures(&self, exposures: &[ExposureRow]) -> Result<()> {
        let strings = |of: fn(&ExposureRow) -> &str| exposures.iter().map(|e| of(e).to_owned()).collect::<Vec<_>>();
        let numbers = |of: fn(&ExposureRow) -> u64| exposures.iter().map(|e| signed(of(e))).collect::<Vec<_>>();
        sqlx::query!(
            "insert into exposures
                (deployment, revision, variant, gateway, window_revision, window_step, requests, units)
             select e.deployment, e.revision, e.variant, e.gateway, e.window_revision, e.window_step, e.requests, e.units
             from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                         $8::jsonb[])
                  as e (deployment, revision, variant, gateway, window_revision, window_step, requests, units)
             join deployments d on d.name = e.deployment
             on conflict (deployment, revision, variant, gateway, window_revision, window_step) do update
             set requests = excluded.requests, units = excluded.units where exposures.requests < excluded.requests",
            &strings(|e| e.deployment.as_str()),
            &numbers(|e| e.revision.0),
            &strings(|e| e.variant.as_str()),
            &strings(|e| e.gateway.as_str()),
            &numbers(|e| e.window.revision.0),
            &numbers(|e| u64::from(e.window.step)),
            &numbers(|e| e.exposure.requests),
            &exposures.iter().map(|e| Json(&e.exposure.units)).collect::<Vec<_>>() as &[Json<&UnitSample>],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Who was assigned to each variant of these revisions, over all gateways there ever were.
    pub async fn exposures(
        &self,
        name: &DeploymentName,
        revisions: &[RevisionNumber],
    ) -> Result<BTreeMap<VariantName, Exposure>> {
        let revisions: Vec<_> = revisions.iter().map(|number| signed(number.0)).collect();
        let rows = sqlx::query!(
            r#"select variant, requests, units as "units: Json<UnitSample>" from exposures
               where deployment = $1 and revision = any ($2)"#,
            name.as_str(),
            &revisions,
        );
        let mut all = BTreeMap::<VariantName, Exposure>::new();
        for row in rows.fetch_all(&self.pool).await? {
            let exposure = Exposure { requests: unsigned(row.requests), units: row.units.0 };
            all.entry(parse(&row.variant)?).or_default().merge(&exposure);
        }
        Ok(all)
    }

    /// Ends the experiment that runs: a new revision with the version of one of its variants, which comes to serve by
    /// `strategy`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if none runs, or another rollout is under way; [`StoreError::Invalid`] if it has no such
    /// variant; [`StoreError::Stale`]; [`StoreError::NotFound`].
    pub async fn conclude(
        &self,
        name: &DeploymentName,
        winner: &VariantName,
        strategy: Strategy,
        expected: Option<RevisionNumber>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RevisionRow> {
        let mut tx = self.write().await?;
        let locked = lock(&mut tx, name, expected).await?;
        let (target, is_rolling) = (&locked.target, locked.is_rolling());
        let experiment = match locked.state.experiment {
            Some(experiment) if !is_rolling && !target.variants.is_empty() => experiment,
            _ if is_rolling => {
                let message = format!(
                    "the rollout to revision {} of {name} is under way: let it end, or abort it, then conclude",
                    target.number
                );
                return Err(StoreError::Conflict { message });
            }
            _ => {
                let message = format!("no experiment runs in {name}: revision {} has no variants", target.number);
                return Err(StoreError::Conflict { message });
            }
        };
        let Some(variant) = target.variants.iter().find(|variant| variant.name == *winner) else {
            let names: Vec<_> = target.variants.iter().map(|variant| variant.name.as_str()).collect();
            let message = format!("there is no variant {winner}; the experiment has {}", names.join(", "));
            return Err(StoreError::Invalid { message });
        };
        let spec = DeploymentSpec {
            model: variant.version.model.clone(),
            version: VersionRef::Exact(variant.version.version.clone()),
            strategy,
            ..target.spec.clone()
        };
        let cause = Cause::Concluded { experiment: experiment.began, winner: winner.clone() };
        let version = &variant.version.version;
        let new = NewRevision { deployment: name, spec: &spec, version, variants: &[], cause: &cause, actor };
        let number = revisions::create(&mut tx, &new, now).await?;
        let row = revisions::one(&mut tx, name, number).await?;
        tx.commit().await?;
        Ok(row)
    }
}
