//! Mirroring: copies of requests on their way to a variant that no client gets an answer from.
//!
//! A copy is made of reference counts, handed over when the client's answer has been written, and dropped where the
//! queue is full. Everything else (asking, decoding, comparing) happens on threads of its own, in [`serve`].

mod serve;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use modelyard_core::{Mirror, RevisionNumber, TensorSpec, VariantName};
use modelyard_protocol::{
    Coding, Framing, InferResponse, JSON_LENGTH, OUTPUTS, Parameters, Protocol, tf_serving, torch_serve,
};
use tokio::sync::mpsc;

use crate::answer::Answer;
use crate::config::Config;
use crate::counters::VariantCounters;
use crate::table::{CompiledRoute, CompiledVariant};

pub(crate) use serve::start;

/// What a job holds beside its bodies, about: heads and bookkeeping.
const OVERHEAD_BYTES: usize = 1_024;
/// Of an answer that is compared, decompressed.
const LARGEST_ANSWER: usize = 8 << 20;

#[derive(Debug)]
pub(crate) struct CompiledMirror {
    /// Among the route's variants.
    candidate: usize,
    spec: Arc<Mirror>,
}

impl CompiledMirror {
    /// `None` if the route has no such variant.
    pub(crate) fn new(mirror: &Mirror, variants: &[CompiledVariant]) -> Option<Self> {
        let candidate = variants.iter().position(|variant| variant.series.variant == mirror.variant)?;
        Some(Self { candidate, spec: Arc::new(mirror.clone()) })
    }

    /// Whether a request is of the share that is mirrored.
    pub(crate) fn takes(&self, dice: u16) -> bool {
        dice < self.spec.share.basis_points()
    }

    /// A copy of a request, if its answer is one to compare with: whole, good, and another variant's.
    pub(crate) fn copy(
        &self,
        deployment: &str,
        route: &CompiledRoute,
        answered_by: &CompiledVariant,
        body: Bytes,
        answer: &Answer,
    ) -> Option<Copied> {
        let candidate = route.variants.get(self.candidate)?;
        if std::ptr::eq(candidate, answered_by) || answer.status() != StatusCode::OK {
            return None;
        }
        let reference =
            Reference { variant: answered_by.series.variant.clone(), revision: answered_by.revision, body: None };
        answer.body().bytes()?;
        Some(Copied { deployment: deployment.to_owned(), candidate: candidate.counters.clone(), reference, body })
    }
}

/// A request that is to be mirrored, and lacks what its connection still needs.
pub(crate) struct Copied {
    deployment: String,
    candidate: Arc<VariantCounters>,
    reference: Reference,
    body: Bytes,
}

/// What the client got.
struct Reference {
    variant: VariantName,
    revision: RevisionNumber,
    /// `None` if it is encoded in a way that is not read here.
    body: Option<Framed>,
}

impl Copied {
    /// Has the copy follow the answer: it is handed over once that is written.
    pub(crate) fn follow(
        mut self,
        answer: &mut Answer,
        parts: Parts,
        client: IpAddr,
        request_id: HeaderValue,
        queue: &MirrorQueue,
    ) {
        self.reference.body = readable(answer.headers(), answer.body().bytes());
        let job = Job { copied: self, parts, client, request_id, held: None };
        answer.body_mut().hand_over_after(Handover { job: Some(job), queue: queue.clone() });
    }
}

/// An answer's body, and how it is read.
struct Framed {
    body: Bytes,
    framing: Framing,
    /// What its outputs are, where it does not say that itself.
    outputs: Option<HeaderValue>,
}

fn readable(headers: &HeaderMap, body: Option<&Bytes>) -> Option<Framed> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let framing = Framing::read(header(JSON_LENGTH), header(header::CONTENT_ENCODING.as_str())).ok()?;
    Some(Framed { body: body?.clone(), framing, outputs: headers.get(OUTPUTS).cloned() })
}

impl Framed {
    /// An answer to a request of `protocol`.
    fn read(&self, protocol: Protocol) -> Option<InferResponse> {
        let plain = self.framing.coding.decode(&self.body, LARGEST_ANSWER).ok()?;
        let described = || serde_json::from_slice::<Vec<TensorSpec>>(self.outputs.as_ref()?.as_bytes()).ok();
        let outputs = match protocol {
            Protocol::OpenInference => return InferResponse::decode(&plain, self.framing.json_length).ok(),
            Protocol::TfServing => tf_serving::read_answer(&plain, &described()?),
            Protocol::TorchServe => torch_serve::read_answer(&plain, &described()?),
        };
        let (model_name, parameters) = (String::new(), Parameters::new());
        Some(InferResponse { model_name, model_version: None, id: None, parameters, outputs: outputs.ok()? })
    }

    /// Its JSON, for people; not what is compressed.
    fn text(&self) -> &[u8] {
        match self.framing {
            Framing { coding: Coding::Identity, json_length } => {
                self.body.get(..json_length.unwrap_or(self.body.len())).unwrap_or(&self.body)
            }
            _ => b"(compressed)",
        }
    }
}

/// A request to mirror.
struct Job {
    copied: Copied,
    parts: Parts,
    client: IpAddr,
    request_id: HeaderValue,
    held: Option<Held>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.copied.body.len()
            + self.copied.reference.body.as_ref().map_or(0, |framed| framed.body.len())
            + OVERHEAD_BYTES
    }
}

/// Room in the queue, given back when the job is done or dropped.
struct Held {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Held {
    fn take(bytes: usize, of: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let held = Self { bytes, of: of.clone() };
        (of.fetch_add(bytes, Relaxed) + bytes <= limit).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Relaxed);
    }
}

/// Where copies wait, bounded in number and bytes.
#[derive(Clone)]
pub(crate) struct MirrorQueue {
    jobs: mpsc::Sender<Job>,
    held: Arc<AtomicUsize>,
    most_bytes: usize,
}

/// The other end of the queue.
pub(crate) struct Jobs(mpsc::Receiver<Job>);

pub(crate) fn queue(config: &Config) -> (MirrorQueue, Jobs) {
    let (jobs, receiver) = mpsc::channel(config.mirror_queue.max(1));
    (MirrorQueue { jobs, held: Arc::default(), most_bytes: config.mirror_bytes }, Jobs(receiver))
}

impl MirrorQueue {
    /// Never waits.
    fn offer(&self, mut job: Job) {
        let candidate = job.copied.candidate.clone();
        job.held = Held::take(job.bytes(), &self.held, self.most_bytes);
        if job.held.is_none() || self.jobs.try_send(job).is_err() {
            candidate.mirrored.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Hands a job over when it is dropped: with the answer's body, when that has been given to the connection.
pub(crate) struct Handover {
    job: Option<Job>,
    queue: MirrorQueue,
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.queue.offer(job);
        }
    }
}
