//! What one inference takes, by each engine at hand, in turns: `latency MODEL [COLUMNS]`, with MODELYARD_ONNXRUNTIME for
//! ONNX Runtime. Prints the median, in µs a row, of batches of 1 and 256 rows of noise.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "it is run by hand")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use modelyard_core::Format;
use modelyard_engine::{Engine, EngineOptions, load};
use modelyard_protocol::{Tensor, TensorData};

const ROUNDS: usize = 40;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let model = PathBuf::from(arguments.next().expect("the first argument is a model"));
    let columns = arguments.next().map_or(8, |columns| columns.parse().unwrap());
    let libraries = [None, std::env::var_os("MODELYARD_ONNXRUNTIME").map(PathBuf::from)];
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    for onnxruntime in libraries {
        if engines.is_empty() || onnxruntime.is_some() {
            engines
                .push(load(Format::Onnx, &model, &EngineOptions { onnxruntime, ..EngineOptions::default() }).unwrap());
        }
    }
    for batch in [1, 256] {
        let mut medians: Vec<Vec<Duration>> = vec![Vec::new(); engines.len()];
        for round in 0..ROUNDS {
            for (engine, times) in engines.iter().zip(&mut medians) {
                let calls = if batch == 1 { 2000 } else { 50 };
                modelyard_engine::in_engines_pool(&mut || times.push(measure(&**engine, batch, columns, calls, round)));
            }
        }
        for (engine, times) in engines.iter().zip(&mut medians) {
            times.sort();
            let median = times[times.len() / 2].as_secs_f64() * 1e6 / f64::from(u32::try_from(batch).unwrap());
            println!("{:12} batch {batch:3}: {median:.2} µs a row", engine.name());
        }
    }
}

/// The mean of some calls, each with other rows.
fn measure(engine: &dyn Engine, batch: usize, columns: usize, calls: usize, round: usize) -> Duration {
    let name = &engine.signature().inputs[0].name;
    let mut seed = 88_172_645_463_325_252_u64.wrapping_add(u64::try_from(round).unwrap());
    let mut noise = || {
        // xorshift64, spread over about -3 to 3.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        f32::from(i16::from_le_bytes([seed.to_le_bytes()[0], seed.to_le_bytes()[1]])) / 10_000.0
    };
    let inputs: Vec<Tensor> = (0..calls)
        .map(|_| {
            let data = TensorData::Fp32((0..batch * columns).map(|_| noise()).collect());
            Tensor::new(name.clone(), vec![batch, columns], data).unwrap()
        })
        .collect();
    let start = Instant::now();
    for input in inputs {
        std::hint::black_box(engine.infer(vec![input], &[]).unwrap());
    }
    start.elapsed() / u32::try_from(calls).unwrap()
}
