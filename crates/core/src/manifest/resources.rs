//! The three kinds of documents, field by field.

use serde_yaml::Value;

use super::ab_test::baseline;
use super::engine::engine;
use super::fields::{Fields, Path, Problems};
use super::placement;
use super::strategy::strategy;
use super::{API_VERSION, ArtifactRef, ArtifactUri, DeploymentManifest, ModelManifest, Resource, VersionManifest};
use crate::deployment::{Batching, DeploymentSpec, Resources};
use crate::names::DeploymentName;
use crate::quantity::Quantity;
use crate::strategy::Strategy;

/// The resource, if the document is whole, and all its problems.
pub(super) fn read(value: &Value) -> (Option<Resource>, Vec<(Path, String)>) {
    let problems = Problems::default();
    let resource = Fields::of(value, Path::default(), &problems).and_then(document);
    (resource, problems.into_vec())
}

fn document(mut top: Fields<'_>) -> Option<Resource> {
    let api_version: Option<String> = top.required("apiVersion");
    if let Some(other) = api_version.filter(|v| v != API_VERSION) {
        top.problem("apiVersion", format_args!("`{other}` is not known; use {API_VERSION}"));
    }
    let kind: Option<String> = top.required("kind");
    let resource = match kind.as_deref() {
        Some("Model") => model(&mut top).map(Resource::Model),
        Some("ModelVersion") => version(&mut top).map(Resource::ModelVersion),
        Some("ModelDeployment") => deployment(&mut top).map(Resource::ModelDeployment),
        other => {
            if let Some(other) = other {
                let message = format_args!("`{other}` is not known; use Model, ModelVersion or ModelDeployment");
                top.problem("kind", message);
            }
            // Their fields cannot be checked, but they are no further mistake.
            top.ignore("metadata");
            top.ignore("spec");
            None
        }
    };
    top.finish();
    resource
}

fn model(top: &mut Fields<'_>) -> Option<ModelManifest> {
    let mut metadata = top.required_fields("metadata");
    let name = metadata.as_mut().and_then(|m| m.required("name"));
    let labels = metadata.map(|mut m| finish_with(m.strings("labels"), m)).unwrap_or_default();
    let (description, owner) = match top.optional_fields("spec") {
        Some(mut spec) => finish_with((spec.optional("description"), spec.optional("owner")), spec),
        None => (None, None),
    };
    Some(ModelManifest { name: name?, labels, description, owner })
}

fn version(top: &mut Fields<'_>) -> Option<VersionManifest> {
    let mut metadata = top.required_fields("metadata");
    // Only a label for the document, but kept to the rules of names so that it can be one elsewhere.
    let name: Option<DeploymentName> = metadata.as_mut().and_then(|m| m.required("name"));
    let labels = metadata.map(|mut m| finish_with(m.strings("labels"), m)).unwrap_or_default();
    let mut spec = top.required_fields("spec")?;
    let model = spec.required("model");
    let version = spec.required("version");
    let format = spec.required("format");
    let artifact = spec.required_fields("artifact").and_then(|mut artifact| {
        let uri = artifact.required::<String>("uri").and_then(|uri| artifact_uri(&artifact, uri));
        let pinned = artifact.has("sha256");
        let sha256 = artifact.optional("sha256");
        artifact.finish();
        // A digest that is wrong in form is a problem, not a missing pin.
        (sha256.is_some() || !pinned).then_some(ArtifactRef { uri: uri?, sha256 })
    });
    let metadata = spec.strings("metadata");
    spec.finish();
    let name = name?.to_string();
    Some(VersionManifest {
        name,
        labels,
        model: model?,
        version: version?,
        format: format?,
        artifact: artifact?,
        metadata,
    })
}

fn artifact_uri(fields: &Fields<'_>, uri: String) -> Option<ArtifactUri> {
    let refuse = |message: &str| {
        fields.problem("uri", message);
        None
    };
    match uri.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Some(ArtifactUri::File(path.to_owned())),
        Some(("file", _)) => refuse("a file:// URI needs an absolute path: file:///models/linear.onnx"),
        Some(("http" | "https", _)) => Some(ArtifactUri::Http(uri)),
        Some(("s3" | "gs", rest)) if rest.split_once('/').is_some_and(|(b, k)| !b.is_empty() && !k.is_empty()) => {
            Some(ArtifactUri::Bucket(uri))
        }
        Some(("s3" | "gs", _)) => refuse("use s3://BUCKET/KEY or gs://BUCKET/KEY"),
        Some((scheme, _)) => {
            let message = format!(
                "`{scheme}://` is not known; use a path relative to the manifest, file://, http(s)://, s3:// or gs://"
            );
            refuse(&message)
        }
        None if uri.starts_with('/') => {
            refuse("use a path relative to the manifest, or file:///… for a file on the control plane's machine")
        }
        None => Some(ArtifactUri::Relative(uri)),
    }
}

fn deployment(top: &mut Fields<'_>) -> Option<DeploymentManifest> {
    let mut metadata = top.required_fields("metadata");
    let name = metadata.as_mut().and_then(|m| m.required("name"));
    let labels = metadata.map(|mut m| finish_with(m.strings("labels"), m)).unwrap_or_default();
    let mut spec = top.required_fields("spec")?;
    let model = spec.required("model");
    let is_tested = spec.has_within("strategy", "abTest");
    let version = if is_tested { spec.optional("version") } else { spec.required("version") };
    let is_misread = version.is_none() && spec.has("version");
    let replicas = spec.optional_u64("replicas", 0..=1000).and_then(|n| u32::try_from(n).ok());
    let resources = spec.optional_fields("resources").map(resources).unwrap_or_default();
    let batching = spec.optional_fields("batching").and_then(batching);
    let engine = engine(&mut spec);
    let node_selector = spec.strings("nodeSelector");
    let tolerations = spec.optional_list("tolerations").unwrap_or_default();
    let tolerations = tolerations.into_iter().filter_map(placement::toleration).collect();
    let scaled = spec.has("autoscaling");
    let autoscaling = spec.optional_fields("autoscaling").and_then(placement::autoscaling);
    if scaled && resources.cpu.is_none() {
        spec.problem("autoscaling", "follows the share of `resources.cpu` that is used: set that too");
    }
    let disruption_budget = spec.optional_fields("disruptionBudget").and_then(placement::disruption_budget);
    let rollback_window = spec.optional("rollbackWindow").unwrap_or(DeploymentSpec::DEFAULT_ROLLBACK_WINDOW);
    let allow_schema_change = spec.optional_bool("allowSchemaChange").unwrap_or(false);
    let strategy = match spec.optional_fields("strategy") {
        Some(fields) => strategy(fields),
        None => Some(Strategy::rolling()),
    };
    let version = match (&strategy, &model) {
        (Some(Strategy::AbTest(test)), Some(model)) if !is_misread => baseline(test, model, version, &spec),
        _ => version,
    };
    spec.finish();
    let spec = DeploymentSpec {
        model: model?,
        version: version?,
        replicas: replicas.unwrap_or(DeploymentSpec::DEFAULT_REPLICAS),
        resources,
        batching,
        engine,
        node_selector,
        tolerations,
        autoscaling,
        disruption_budget,
        rollback_window,
        allow_schema_change,
        strategy: strategy?,
    };
    Some(DeploymentManifest { name: name?, labels, spec })
}

fn resources(mut fields: Fields<'_>) -> Resources {
    let mut quantity = |key, least: Quantity, told: &str| {
        let text: String = fields.optional(key)?;
        match text.parse::<Quantity>() {
            Ok(quantity) if quantity < least => fields.problem(key, format_args!("`{text}` is less than {told}")),
            Ok(_) => {}
            Err(error) => fields.problem(key, error),
        }
        Some(text)
    };
    let cpu = quantity("cpu", Quantity::from_millis(1), "1m, a thousandth of a CPU, which is the least there is");
    let memory = quantity("memory", Quantity::from_units(1), "one byte; did you mean a unit such as Mi or Gi?");
    let gpu = fields.optional_u64("gpu", 1..=64).and_then(|n| u32::try_from(n).ok());
    let resources = Resources { cpu, memory, gpu };
    fields.finish();
    resources
}

fn batching(mut fields: Fields<'_>) -> Option<Batching> {
    let size = fields.optional_u64("maxBatchSize", 1..=65_536).and_then(|n| u32::try_from(n).ok());
    if !fields.has("maxBatchSize") {
        fields.problem("maxBatchSize", "`maxBatchSize` is missing");
    }
    let delay = fields.optional("maxDelay").unwrap_or_default();
    fields.finish();
    Some(Batching { max_batch_size: size?, max_delay: delay })
}

pub(super) fn finish_with<T>(value: T, fields: Fields<'_>) -> T {
    fields.finish();
    value
}
