//! An engine in this process, asked by as many threads as it is given, with nothing around it: the most that a server of the
//! same engine can reach.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use modelyard_core::Format;
use modelyard_engine::{Engine, EngineOptions, in_engines_pool, load};
use modelyard_protocol::InferRequest;
use serde::Serialize;

use crate::cli::EngineArgs;
use crate::cpu;

/// What came of it, of the measured part alone.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) engine: &'static str,
    pub(crate) calls: u64,
    pub(crate) per_second: f64,
    /// Of a core, in microseconds, for each call.
    pub(crate) cpu_us: f64,
    /// Of the whole process, resident.
    pub(crate) memory: u64,
}

/// # Errors
/// If the model cannot be loaded, or refuses the request.
pub(crate) fn run(args: &EngineArgs) -> anyhow::Result<Figures> {
    let options =
        EngineOptions { onnxruntime: args.onnxruntime.clone(), parallelism: args.threads, ..EngineOptions::default() };
    let engine = load(Format::Onnx, &args.model, &options)?;
    let body = std::fs::read(&args.request).with_context(|| format!("cannot read {}", args.request.display()))?;
    let request = InferRequest::from_json(&body)?;
    engine.infer(request.inputs.clone(), &[])?;
    let (calls, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let own = [std::process::id()];
    let measured = std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| in_engines_pool(&mut || ask(&*engine, &request, &calls, &stop)));
        }
        std::thread::sleep(args.warm_up.as_duration());
        let (began, before, used) = (Instant::now(), calls.load(Relaxed), cpu::time(&own));
        std::thread::sleep(args.time.as_duration());
        let measured = (began.elapsed(), calls.load(Relaxed) - before, cpu::time(&own).saturating_sub(used));
        stop.store(true, Relaxed);
        measured
    });
    let (time, calls, used): (Duration, u64, Duration) = measured;
    #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
    let count = calls as f64;
    Ok(Figures {
        engine: engine.name(),
        calls,
        per_second: count / time.as_secs_f64(),
        cpu_us: used.as_secs_f64() * 1e6 / count,
        memory: cpu::memory(&own),
    })
}

/// A request that it took once, it takes again.
fn ask(engine: &dyn Engine, request: &InferRequest, calls: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        if engine.infer(request.inputs.clone(), &[]).is_ok() {
            calls.fetch_add(1, Relaxed);
        }
    }
}
