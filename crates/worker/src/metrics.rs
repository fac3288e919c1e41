//! Figures of this worker for Prometheus, labelled by nothing that clients choose.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
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
        // 50 µs to 26 s
        let inference = Histogram::new(exponential_buckets(50e-6, 2.0, 20));
        registry.register_with_unit("inference", "Time that the engine took", Unit::Seconds, inference.clone());
        let queue_time = Histogram::new(exponential_buckets(50e-6, 2.0, 20));
        let help = "Time from the arrival of a request to its computation";
        registry.register_with_unit("queue", help, Unit::Seconds, queue_time.clone());
        // 1 to 4096
        let batch_rows = Histogram::new(exponential_buckets(1.0, 2.0, 13));
        registry.register("batch_rows", "Rows of the batches computed, where requests are batched", batch_rows.clone());
        Self { registry, requests, errors, queued, busy, inference, queue_time, batch_rows }
    }

    pub(crate) fn answered(&self, status: u16) {
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
