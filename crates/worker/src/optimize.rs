//! `optimize`: makes a copy of a model with narrower weights, runs both on a sample, and says as one line of JSON what was
//! gained and by how much the answers differ; or why there is no copy.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use modelyard_core::{Digest, Format, Signature, TensorSpec};
use modelyard_engine::{Engine, InferError, LoadError, load, quantize};
use modelyard_protocol::{InferRequest, Tensor, TensorData};
use serde::Serialize;

use crate::REFUSED;
use crate::artifact::{ArtifactError, verify};
use crate::cli::OptimizeArgs;
use crate::inspect::limit_memory;

/// Of a random sample, which is the same each time.
const SEED: u64 = 7;
/// What a free dimension is in a random sample: the first (rows), and others.
const ROWS: usize = 2;
const FREE: usize = 8;
/// The largest input of a random sample, in elements.
const LARGEST: usize = 1 << 22;

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Ok(Optimized),
    Refused { code: &'static str, message: String },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Optimized {
    sha256: Digest,
    engine: &'static str,
    /// How many constants are narrower.
    tensors: usize,
    /// In bytes.
    size: Pair<usize>,
    /// The median of one inference, in microseconds.
    latency_p50_micros: Pair<u128>,
    /// How many requests were compared.
    samples: usize,
    #[serde(flatten)]
    difference: Difference,
}

#[derive(Debug, Serialize)]
struct Pair<T> {
    before: T,
    after: T,
}

/// The largest differences between an output of the model and of its copy.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    /// Over the largest absolute value that the output has in the request, or 1 if that is less: what is bounded.
    difference: f64,
    absolute_difference: f64,
    /// The output that has it.
    output: String,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("weights are narrowed in ONNX models only, not in {0}")]
    Format(Format),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the copy is refused by the engine that runs the model: {0}")]
    Copy(#[source] LoadError),
    #[error("{file}, line {line}: {problem}")]
    Samples { file: String, line: usize, problem: String },
    #[error("the model fails on a request of the sample: {0}; give requests that it answers (--samples)")]
    Infer(#[from] InferError),
    #[error(
        "output `{output}` differs by {difference:.3e} of its size (by {absolute_difference:.3e}), and {bound} is allowed"
    )]
    TooDifferent { output: String, difference: f64, absolute_difference: f64, bound: f64 },
}

impl Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Artifact(error) => error.code(),
            Self::Load(error) | Self::Copy(error) => error.code(),
            Self::Samples { .. } => "samples",
            Self::Infer(_) => "infer",
            Self::TooDifferent { .. } => "difference",
        }
    }
}

/// Prints a [`Report`].
///
/// # Errors
/// If the copy cannot be written, or the report cannot be given. A model that is not optimised is no error.
pub(crate) fn optimize(args: &OptimizeArgs) -> anyhow::Result<ExitCode> {
    limit_memory(args.max_memory)?;
    // Its own engine's: beside it, so that it can be renamed, and not to be taken for a whole one.
    let part = PathBuf::from(format!("{}.part", args.out.display()));
    let made = make(args, &part)?;
    let report = match made {
        Ok(optimized) => {
            std::fs::rename(&part, &args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
            Report::Ok(optimized)
        }
        Err(refusal) => {
            std::fs::remove_file(&part).ok();
            Report::Refused { code: refusal.code(), message: refusal.to_string() }
        }
    };
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line).context("the report could not be written")?;
    Ok(match report {
        Report::Ok(_) => ExitCode::SUCCESS,
        Report::Refused { .. } => ExitCode::from(REFUSED),
    })
}

fn make(args: &OptimizeArgs, part: &Path) -> anyhow::Result<Result<Optimized, Refusal>> {
    let copy = match narrowed(args) {
        Ok(copy) => copy,
        Err(refusal) => return Ok(Err(refusal)),
    };
    std::fs::write(part, &copy.bytes).with_context(|| format!("cannot write {}", part.display()))?;
    Ok(measured(args, part, &copy))
}

fn narrowed(args: &OptimizeArgs) -> Result<modelyard_engine::Quantized, Refusal> {
    if args.model.format != Format::Onnx {
        return Err(Refusal::Format(args.model.format));
    }
    verify(&args.artifact, args.model.sha256)?;
    Ok(quantize(&args.artifact, args.quantize.into())?)
}

fn measured(args: &OptimizeArgs, part: &Path, copy: &modelyard_engine::Quantized) -> Result<Optimized, Refusal> {
    let before = load(Format::Onnx, &args.artifact, &args.model.engine.options(1))?;
    let after = load(Format::Onnx, part, &args.model.engine.options(1)).map_err(Refusal::Copy)?;
    let samples = match &args.samples {
        Some(file) => read(file)?,
        None => random(before.signature(), args.count.into())?,
    };
    let mut largest = Difference::default();
    let (mut times_before, mut times_after) = (Vec::new(), Vec::new());
    // The first of each is slow, and is not counted unless it is the only one.
    for sample in samples.iter().take(1).chain(&samples) {
        let (expected, time_before) = timed(&*before, sample)?;
        let (found, time_after) = timed(&*after, sample)?;
        times_before.push(time_before);
        times_after.push(time_after);
        for (expected, found) in expected.iter().zip(&found) {
            let difference = difference(expected, found);
            // Not a number is a difference, too.
            if difference.difference.is_nan() || difference.difference > largest.difference {
                largest = difference;
            }
        }
    }
    let Difference { difference, absolute_difference, output } = largest.clone();
    if difference.is_nan() || difference > args.max_difference {
        return Err(Refusal::TooDifferent { output, difference, absolute_difference, bound: args.max_difference });
    }
    let size = std::fs::metadata(&args.artifact).map_err(ArtifactError::Io)?.len();
    Ok(Optimized {
        sha256: Digest::of(&copy.bytes),
        engine: after.name(),
        tensors: copy.tensors,
        size: Pair { before: usize::try_from(size).unwrap_or(usize::MAX), after: copy.bytes.len() },
        latency_p50_micros: Pair { before: median(times_before), after: median(times_after) },
        samples: samples.len(),
        difference: largest,
    })
}

fn timed(engine: &dyn Engine, sample: &[Tensor]) -> Result<(Vec<Tensor>, Duration), InferError> {
    let inputs = sample.to_vec();
    let begun = Instant::now();
    let outputs = engine.infer(inputs, &[])?;
    Ok((outputs, begun.elapsed()))
}

/// In microseconds, without the first.
fn median(mut times: Vec<Duration>) -> u128 {
    times.remove(0);
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0, Duration::as_micros)
}

fn difference(expected: &Tensor, found: &Tensor) -> Difference {
    let same_shape = expected.shape == found.shape;
    let (a, b) = (numbers(&expected.data), numbers(&found.data));
    let largest = a.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
    let apart = |(a, b): (&f64, &f64)| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
    // A NaN among the differences stays the largest.
    let most = |most: f64, next: f64| if next > most || next.is_nan() { next } else { most };
    let absolute = if same_shape { a.iter().zip(&b).map(apart).fold(0.0, most) } else { f64::INFINITY };
    Difference { difference: absolute / largest, absolute_difference: absolute, output: expected.name.clone() }
}

/// Texts are numbers by what they are: a text that differs differs by 1.
#[expect(clippy::cast_precision_loss, reason = "the difference of large integers is large, however they are rounded")]
fn numbers(data: &TensorData) -> Vec<f64> {
    match data {
        TensorData::Bool(v) => v.iter().map(|v| f64::from(u8::from(*v))).collect(),
        TensorData::Uint8(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Uint16(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Uint32(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Uint64(v) => v.iter().map(|v| *v as f64).collect(),
        TensorData::Int8(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Int16(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Int32(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Int64(v) => v.iter().map(|v| *v as f64).collect(),
        TensorData::Fp16(v) => v.iter().map(|v| v.to_f64()).collect(),
        TensorData::Bf16(v) => v.iter().map(|v| v.to_f64()).collect(),
        TensorData::Fp32(v) => v.iter().map(|v| f64::from(*v)).collect(),
        TensorData::Fp64(v) => v.clone(),
        TensorData::Bytes(v) => {
            v.iter().map(|v| v.iter().fold(0.0, |sum, byte| sum * 257.0 + f64::from(*byte))).collect()
        }
    }
}

/// Requests of the Open Inference Protocol as JSON, one a line.
fn read(file: &Path) -> Result<Vec<Vec<Tensor>>, Refusal> {
    let refuse = |line, problem: String| Refusal::Samples { file: file.display().to_string(), line, problem };
    let text = std::fs::read_to_string(file).map_err(|error| refuse(0, error.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let requests = lines.map(|(at, line)| {
        InferRequest::from_json(line.as_bytes()).map(|r| r.inputs).map_err(|error| refuse(at + 1, error.to_string()))
    });
    let requests = requests.collect::<Result<Vec<_>, _>>()?;
    if requests.is_empty() { Err(refuse(1, "there is no request in it".into())) } else { Ok(requests) }
}

/// Requests with numbers of a standard normal distribution, and zeros and ones where those are not to be had.
fn random(signature: &Signature, count: usize) -> Result<Vec<Vec<Tensor>>, Refusal> {
    let mut rng = fastrand::Rng::with_seed(SEED);
    (0..count).map(|_| signature.inputs.iter().map(|spec| one(spec, &mut rng)).collect()).collect()
}

fn one(spec: &TensorSpec, rng: &mut fastrand::Rng) -> Result<Tensor, Refusal> {
    let free = |axis: usize| if axis == 0 { ROWS } else { FREE };
    let sizes = spec.shape.iter().enumerate();
    let shape: Vec<usize> = sizes.map(|(axis, size)| usize::try_from(*size).unwrap_or_else(|_| free(axis))).collect();
    let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= LARGEST);
    let count = count.ok_or_else(|| InferError::BadInput(format!("input `{}` is too large to make up", spec.name)))?;
    let mut data = TensorData::zeros(spec.datatype, count);
    #[expect(clippy::cast_possible_truncation, reason = "a random number is as good with fewer digits")]
    match &mut data {
        TensorData::Fp32(v) => v.fill_with(|| normal(rng) as f32),
        TensorData::Fp64(v) => v.fill_with(|| normal(rng)),
        TensorData::Fp16(v) => v.fill_with(|| half::f16::from_f64(normal(rng))),
        TensorData::Bool(v) => v.fill_with(|| rng.bool()),
        TensorData::Int32(v) => v.fill_with(|| rng.i32(0..=1)),
        TensorData::Int64(v) => v.fill_with(|| rng.i64(0..=1)),
        _ => {}
    }
    Ok(Tensor { name: spec.name.clone(), shape, data })
}

/// By Box and Muller.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}
