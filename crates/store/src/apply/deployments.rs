//! The deployments of a batch: what each comes to, and the revisions that they make, in few statements however many.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::manifest::DeploymentManifest;
use modelyard_core::state::{Cause, Control, DeploymentState};
use modelyard_core::{
    DeploymentName, ModelName, RevisionNumber, RevisionVariant, VariantName, VersionName, VersionRef,
};
use sqlx::types::Json;

use super::{Applying, Change, Deployment, DocumentWarning};
use crate::aliases;
use crate::error::ProblemStatus;
use crate::revisions::{self, NewRevision};
use crate::schema::{self, Gate};
use crate::{Result, StoreError, models};

/// A deployment that can be applied.
struct Checked<'b> {
    document: usize,
    manifest: &'b DeploymentManifest,
    /// What `spec.version` means now.
    version: VersionName,
    /// Of an A/B test.
    variants: Vec<RevisionVariant>,
    known: Option<&'b DesiredDeployment>,
}

impl Checked<'_> {
    /// The latest revision, if it is as wanted.
    fn is_at(&self) -> Option<RevisionNumber> {
        let known = self.known?;
        let target = known.revisions.get(&known.target)?;
        let is_same = target.spec == self.manifest.spec && target.version.version == self.version;
        is_same.then_some(target.number)
    }

    /// Each version that is to serve, once, and what names it.
    fn to_serve(&self) -> Vec<(String, schema::Version)> {
        if self.variants.is_empty() {
            return vec![("spec.version".into(), (self.manifest.spec.model.clone(), self.version.clone()))];
        }
        let mut versions = Vec::<(String, schema::Version)>::new();
        for (place, RevisionVariant { name, version, .. }) in self.variants.iter().enumerate() {
            let version = (version.model.clone(), version.version.clone());
            if versions.iter().all(|(_, known)| *known != version) {
                versions.push((path_of_variant(place, name), version));
            }
        }
        versions
    }
}

/// Where a manifest says which version a variant has.
fn path_of_variant(place: usize, name: &VariantName) -> String {
    if *name == VariantName::holdout() {
        return "spec.version".into();
    }
    format!("spec.strategy.abTest.variants[{place}].version")
}

impl Applying<'_> {
    pub(super) async fn deployments(
        &mut self,
        batch: &[Deployment],
        before: &BTreeMap<DeploymentName, DesiredDeployment>,
    ) -> Result<()> {
        let mut checked = Vec::new();
        let mut versions = BTreeMap::new();
        for (document, manifest, expected) in batch {
            let Some(version) = self.resolve(*document, manifest, &mut versions).await? else { continue };
            let Some(variants) = self.variants(*document, manifest, &version).await? else { continue };
            let known = before.get(&manifest.name);
            match stale(&manifest.name, *expected, known) {
                Some(message) => self.problem(*document, "metadata.name", ProblemStatus::Stale, message),
                None => checked.push(Checked { document: *document, manifest, version, variants, known }),
            }
        }
        self.gate(&checked).await?;
        if !self.problems.is_empty() {
            return Ok(());
        }
        self.create(checked.iter().filter(|c| c.known.is_none()).map(|c| c.manifest)).await?;
        let relabelled = self.relabel(checked.iter().filter(|c| c.known.is_some()).map(|c| c.manifest)).await?;
        let new = checked.iter().filter(|c| c.is_at().is_none()).map(|c| NewRevision {
            deployment: &c.manifest.name,
            spec: &c.manifest.spec,
            version: &c.version,
            variants: &c.variants,
            cause: &Cause::Applied,
            actor: self.actor,
        });
        let made = revisions::create_all(&mut self.tx, &new.collect::<Vec<_>>(), self.now).await?;
        for c in &checked {
            let name = &c.manifest.name;
            let change = match c.known {
                None => Change::Created,
                Some(_) if made.contains_key(name) || relabelled.contains(name.as_str()) => Change::Updated,
                Some(_) => Change::Unchanged,
            };
            self.done(c.document, change, made.get(name).copied().or_else(|| c.is_at()));
        }
        Ok(())
    }

    /// What `spec.version` means now; a problem if it means nothing.
    async fn resolve(
        &mut self,
        document: usize,
        manifest: &DeploymentManifest,
        versions: &mut BTreeMap<ModelName, Vec<String>>,
    ) -> Result<Option<VersionName>> {
        let model = &manifest.spec.model;
        let known = match versions.entry(model.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let select = sqlx::query_scalar!(
                    "select version from model_versions where model = $1 order by version",
                    model.as_str()
                );
                unknown.insert(select.fetch_all(&mut *self.tx).await?)
            }
        };
        let version = match &manifest.spec.version {
            VersionRef::Exact(version) => Some(version.clone()),
            VersionRef::Alias(alias) => aliases::resolve(&mut self.tx, model, alias).await?,
        };
        if let Some(version) = version.filter(|v| known.iter().any(|k| k == v.as_str())) {
            return Ok(Some(version));
        }
        let exists = sqlx::query_scalar!("select 1 from models where name = $1", model.as_str());
        if exists.fetch_optional(&mut *self.tx).await?.is_none() {
            self.problem(document, "spec.model", ProblemStatus::Invalid, format!("there is no model {model}"));
            return Ok(None);
        }
        let has = if known.is_empty() { "no versions".to_owned() } else { known.join(", ") };
        let message = match &manifest.spec.version {
            VersionRef::Exact(version) => format!("model {model} has no version {version}; it has {has}"),
            VersionRef::Alias(alias) => {
                format!(
                    "model {model} has no alias {alias}: PUT /api/v1/models/{model}/aliases/{alias} makes it; versions: {has}"
                )
            }
        };
        self.problem(document, "spec.version", ProblemStatus::Invalid, message);
        Ok(None)
    }

    /// The variants of an A/B test with their versions, which must be registered; none for another strategy.
    async fn variants(
        &mut self,
        document: usize,
        manifest: &DeploymentManifest,
        baseline: &VersionName,
    ) -> Result<Option<Vec<RevisionVariant>>> {
        let Some(test) = manifest.spec.strategy.ab_test() else { return Ok(Some(Vec::new())) };
        let mut variants = Vec::new();
        let wanted = test.versions(&manifest.spec.model, baseline);
        for (place, ((name, weight), (model, version))) in test.shares().into_iter().zip(&wanted).enumerate() {
            match models::find(&mut self.tx, model, version).await? {
                Some(version) => variants.push(RevisionVariant { name, version, weight }),
                None => {
                    let message = format!("model {model} has no version {version}");
                    self.problem(document, &path_of_variant(place, &name), ProblemStatus::Invalid, message);
                }
            }
        }
        let is_whole = variants.len() == wanted.len();
        Ok(is_whole.then_some(variants))
    }

    /// Refuses versions that the callers of the one that serves cannot use.
    async fn gate(&mut self, checked: &[Checked<'_>]) -> Result<()> {
        let mut moves = Vec::new();
        for c in checked.iter().filter(|c| c.is_at().is_none()) {
            if let Some(live) = c.known.and_then(schema::live) {
                moves.extend(c.to_serve().into_iter().map(|(path, version)| (c, live, path, version)));
            }
        }
        if moves.is_empty() {
            return Ok(());
        }
        let versions = moves.iter().map(|(_, _, _, version)| version.clone()).collect();
        let signatures = schema::signatures(&mut self.tx, &versions).await?;
        for (c, live, path, version) in moves {
            let Some(signature) = signatures.get(&version) else { continue };
            match schema::gate(live, &version, signature, c.manifest.spec.allow_schema_change) {
                Gate::Pass => {}
                Gate::PassWithWarning(message) => {
                    self.warnings.push(DocumentWarning { document: c.document, path, message });
                }
                Gate::Refuse(message) => self.problem(c.document, &path, ProblemStatus::Conflict, message),
            }
        }
        Ok(())
    }

    async fn create(&mut self, manifests: impl Iterator<Item = &DeploymentManifest>) -> Result<()> {
        let (names, labels): (Vec<_>, Vec<_>) = manifests.map(|m| (m.name.to_string(), Json(&m.labels))).unzip();
        sqlx::query!(
            "insert into deployments (name, labels, target, control, state, state_version, created_ms)
             select d.name, d.labels, 0, $3, $4, 0, $5 from unnest($1::text[], $2::jsonb[]) as d (name, labels)",
            &names,
            &labels as &[Json<&BTreeMap<String, String>>],
            Json(Control::default()) as _,
            Json(DeploymentState::default()) as _,
            self.now.as_millis(),
        )
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Labels make no revision. The names of those that had others.
    async fn relabel(&mut self, manifests: impl Iterator<Item = &DeploymentManifest>) -> Result<BTreeSet<String>> {
        let (names, labels): (Vec<_>, Vec<_>) = manifests.map(|m| (m.name.to_string(), Json(&m.labels))).unzip();
        let relabelled = sqlx::query_scalar!(
            "update deployments d set labels = l.labels from unnest($1::text[], $2::jsonb[]) as l (name, labels)
             where d.name = l.name and d.labels <> l.labels returning d.name",
            &names,
            &labels as &[Json<&BTreeMap<String, String>>],
        );
        Ok(relabelled.fetch_all(&mut *self.tx).await?.into_iter().collect())
    }
}

/// What is wrong if the deployment is not at the revision expected.
fn stale(name: &DeploymentName, expected: Option<RevisionNumber>, known: Option<&DesiredDeployment>) -> Option<String> {
    let expected = expected?;
    match known {
        None => Some(format!("there is no deployment {name}, so it is not at generation {expected}")),
        Some(known) if known.target == expected => None,
        Some(known) => Some(StoreError::stale(name.as_str(), expected, known.target).to_string()),
    }
}
