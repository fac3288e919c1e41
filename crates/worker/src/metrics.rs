//! Figures of this worker for Prometheus, labelled by nothing that clients choose.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::models::Identity;

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

/// One of the models of a repository: there are as many as its directory has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    model: String,
    version: String,
    status: u16,
}

/// Of each model of a repository.
#[derive(Debug)]
struct OfModels {
    requests: Family<AnswerLabels, Counter>,
    inference: Family<ModelLabels, Histogram, fn() -> Histogram>,
    loads: Family<ModelLabels, Counter>,
    evictions: Family<ModelLabels, Counter>,
    loaded: Gauge,
    memory: Gauge,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    models: Option<OfModels>,
    requests: Family<StatusLabel, Counter>,
    errors: Counter,
    pub(crate) queued: Gauge,
    pub(crate) busy: Gauge,
    pub(crate) inference: Histogram,
    pub(crate) queue_time: Histogram,
    pub(crate) batch_rows: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("modelyard_worker");
        let requests = Family::<StatusLabel, Counter>::default();
        registry.register("requests", "Inference requests answered, by HTTP status", requests.clone());
        let errors = Counter::default();
        registry.register("errors", "Inference requests that the worker failed (status 500 and above)", errors.clone());
        let queued = Gauge::default();
        registry.register("queue_depth", "Requests that wait for a compute thread", queued.clone());
        let busy = Gauge::default();
        registry.register("busy_threads", "Compute threads that have a request", busy.clone());
        let inference = seconds();
        registry.register_with_unit("inference", "Time that the engine took", Unit::Seconds, inference.clone());
        let queue_time = seconds();
        let help = "Time from the arrival of a request to its computation";
        registry.register_with_unit("queue", help, Unit::Seconds, queue_time.clone());
        // 1 to 4096
        let batch_rows = Histogram::new(exponential_buckets(1.0, 2.0, 13));
        registry.register("batch_rows", "Rows of the batches computed, where requests are batched", batch_rows.clone());
        let models = None;
        Self { registry, models, requests, errors, queued, busy, inference, queue_time, batch_rows }
    }

    /// With figures of each model.
    pub(crate) fn of_models() -> Self {
        let mut metrics = Self::new();
        let models = OfModels {
            requests: Family::default(),
            inference: Family::new_with_constructor(seconds),
            loads: Family::default(),
            evictions: Family::default(),
            loaded: Gauge::default(),
            memory: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        let help = "Inference requests answered, by model and HTTP status";
        registry.register("model_requests", help, models.requests.clone());
        let help = "Time that the engine took, by model";
        registry.register_with_unit("model_inference", help, Unit::Seconds, models.inference.clone());
        registry.register("model_loads", "How often a model was loaded", models.loads.clone());
        let help = "How often a model was unloaded to make room for another";
        registry.register("model_evictions", help, models.evictions.clone());
        registry.register("models_loaded", "Models that are loaded", models.loaded.clone());
        let help = "Memory that loaded models are taken to need";
        registry.register_with_unit("model_memory", help, Unit::Bytes, models.memory.clone());
        metrics.models = Some(models);
        metrics
    }

    /// Where the time of a model is counted beside that of all.
    pub(crate) fn inference_of(&self, identity: &Identity) -> Option<Histogram> {
        self.models.as_ref().map(|models| models.inference.get_or_create_owned(&labels(identity)))
    }

    /// A model was loaded, and so many are now, which have so much memory.
    pub(crate) fn loaded(&self, identity: &Identity, count: usize, memory: u64) {
        let Some(models) = &self.models else { return };
        models.loads.get_or_create(&labels(identity)).inc();
        models.now(count, memory);
    }

    /// As above.
    pub(crate) fn evicted(&self, identity: &Identity, count: usize, memory: u64) {
        let Some(models) = &self.models else { return };
        models.evictions.get_or_create(&labels(identity)).inc();
        models.now(count, memory);
    }

    pub(crate) fn answered(&self, identity: &Identity, status: u16) {
        if let Some(models) = &self.models {
            let ModelLabels { model, version } = labels(identity);
            models.requests.get_or_create(&AnswerLabels { model, version, status }).inc();
        }
        self.requests.get_or_create(&StatusLabel { status }).inc();
        if status >= 500 {
            self.errors.inc();
        }
    }

    /// The text exposition format of OpenMetrics.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl OfModels {
    fn now(&self, count: usize, memory: u64) {
        self.loaded.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.memory.set(i64::try_from(memory).unwrap_or(i64::MAX));
    }
}

/// 50 µs to 26 s
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

fn labels(identity: &Identity) -> ModelLabels {
    ModelLabels { model: identity.name.clone(), version: identity.version.clone() }
}
