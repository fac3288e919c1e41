//! The other end of the queue: asks the candidate, compares, and counts.
//!
//! Asking has a thread of its own, so that the candidate's latency is not that of comparing; comparing has another one, of
//! low priority.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use modelyard_core::{DisagreementExample, Mirror, Redaction, Timestamp, VariantName};
use modelyard_protocol::AnyPath;
use tokio::sync::{Mutex, watch};
use tokio::task::LocalSet;

use crate::ask::{Ask, Outcome, ask_variant};
use crate::compare::{Comparison, compare};
use crate::counters::VariantCounters;
use crate::mirror::{Framed, Job, Jobs, readable};
use crate::shared::{Shared, Worker};
use crate::table::CompiledVariant;

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// As of `nice`: whoever serves clients goes first.
const NICENESS: i32 = 10;

/// Starts the thread that asks, `tasks` requests at a time. It ends when `stopping` says so, whatever is left.
///
/// # Errors
/// If there is no thread to be had.
pub(crate) fn start(
    jobs: Jobs,
    tasks: usize,
    shared: &Arc<Shared>,
    stopping: &watch::Receiver<bool>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .thread_name("mirror-compare")
        .on_thread_start(|| {
            // In Linux it is the thread's. One that may not be lowered compares all the same.
            rustix::process::setpriority_process(None, NICENESS).ok();
        })
        .build()?;
    let (shared, mut stopping) = (shared.clone(), stopping.clone());
    std::thread::Builder::new().name("mirror".into()).spawn(move || {
        let worker = Rc::new(Worker::new(shared));
        let jobs = Rc::new(Mutex::new(jobs));
        LocalSet::new().block_on(&runtime, async move {
            worker.keep_time();
            for _ in 0..tasks.max(1) {
                tokio::task::spawn_local(serve_all(worker.clone(), jobs.clone()));
            }
            tokio::select! {
                () = sweep(&worker) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
        runtime.shutdown_background();
    })
}

async fn sweep(worker: &Worker) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        worker.pool.sweep();
    }
}

async fn serve_all(worker: Rc<Worker>, jobs: Rc<Mutex<Jobs>>) {
    loop {
        let job = jobs.lock().await.0.recv().await;
        let Some(job) = job else { return };
        serve(&worker, job).await;
    }
}

async fn serve(worker: &Worker, job: Job) {
    let table = worker.shared.table.load_full();
    let route = table.routes.get(&job.copied.deployment);
    let mirror = route.and_then(|route| route.mirror.as_ref());
    let candidate = route.zip(mirror).and_then(|(route, mirror)| route.variants.get(mirror.candidate));
    // The table may have changed meanwhile: what belongs to another window, or is no longer mirrored, is let go.
    let is_same = |v: &&CompiledVariant| Arc::ptr_eq(&v.counters, &job.copied.candidate);
    let Some((mirror, candidate)) = mirror.zip(candidate.filter(is_same)) else { return };
    if candidate.backends.is_empty() {
        candidate.counters.mirrored.dropped.fetch_add(1, Relaxed);
        return;
    }
    candidate.counters.mirrored.asked.fetch_add(1, Relaxed);
    let ask = Ask {
        parts: &job.parts,
        body: Some(job.copied.body.clone()),
        rest: None,
        client: job.client,
        request_id: job.request_id.clone(),
    };
    let answer = match ask_variant(worker, candidate, ask).await {
        Outcome::Answered(answer) if answer.status().as_u16() < 400 => answer,
        // Another variant could answer this request.
        _ => {
            candidate.counters.errors.fetch_add(1, Relaxed);
            return;
        }
    };
    let (parts, body) = answer.into_parts();
    // One that is too long to hold is too long to compare.
    let body = if body.bytes().is_some() { body.collect().await.ok() } else { None };
    let body = readable(&parts.headers, body.map(http_body_util::Collected::to_bytes).as_ref());
    let judged = Judged { spec: mirror.spec.clone(), counters: candidate.counters.clone(), job, answer: body };
    let name = candidate.series.variant.clone();
    tokio::task::spawn_blocking(move || judged.judge(name)).await.ok();
}

/// A job with the candidate's answer.
struct Judged {
    spec: Arc<Mirror>,
    counters: Arc<VariantCounters>,
    job: Job,
    answer: Option<Framed>,
}

impl Judged {
    fn judge(self, candidate: VariantName) {
        let protocol = AnyPath::parse(self.job.parts.uri.path()).map(|path| path.protocol()).unwrap_or_default();
        let read = |answer: &Option<Framed>| answer.as_ref()?.read(protocol);
        let Some((reference, answer)) = read(&self.job.copied.reference.body).zip(read(&self.answer)) else {
            self.counters.mirrored.unreadable.fetch_add(1, Relaxed);
            return;
        };
        let comparison = compare(&self.spec, &reference, &answer);
        let example = comparison.differs().then(|| self.example(candidate, &comparison));
        self.counters.mirrored.compared(comparison, example, &self.spec);
    }

    fn example(&self, candidate: VariantName, comparison: &Comparison) -> DisagreementExample {
        let redact = self.spec.redact;
        let said = comparison.differences.iter().map(|difference| match redact {
            Redaction::Values => format!("`{}`: {}", difference.output, difference.what),
            Redaction::Inputs | Redaction::Nothing => difference.to_string(),
        });
        let reference = &self.job.copied.reference;
        let shown = |answer: &Option<Framed>| {
            answer.as_ref().filter(|_| redact != Redaction::Values).map(|a| beginning(a.text()))
        };
        DisagreementExample {
            at: now(),
            request_id: String::from_utf8_lossy(self.job.request_id.as_bytes()).into_owned(),
            reference: reference.variant.clone(),
            reference_revision: reference.revision,
            candidate,
            differences: said.collect(),
            request: readable(&self.job.parts.headers, Some(&self.job.copied.body))
                .filter(|_| redact == Redaction::Nothing)
                .map(|request| beginning(request.text())),
            reference_answer: shown(&reference.body),
            candidate_answer: shown(&self.answer),
        }
    }
}

/// As much of a body as an example keeps.
fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..DisagreementExample::LONGEST_BODY).unwrap_or(body)).into_owned()
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
