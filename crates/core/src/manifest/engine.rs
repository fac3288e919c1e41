//! `spec.engine`: an engine's name alone, or a mapping.

use super::fields::Fields;
use crate::engine::{EngineName, EngineSpec, EngineThreads, Provider};

/// The most inferences on zeros before a worker is ready.
const MOST_WARM_UPS: u64 = 10_000;

pub(super) fn engine(spec: &mut Fields<'_>) -> EngineSpec {
    if spec.has("engine") && !spec.is_mapping("engine") {
        return EngineSpec { name: spec.optional("engine"), ..EngineSpec::default() };
    }
    spec.optional_fields("engine").map(mapping).unwrap_or_default()
}

fn mapping(mut fields: Fields<'_>) -> EngineSpec {
    let name: Option<EngineName> = fields.optional("name");
    let threads = fields.optional_fields("threads").map(|fields| threads(fields, name)).unwrap_or_default();
    let optimization = fields.optional("optimization");
    let providers: Vec<Provider> = fields.optional_texts("providers");
    if (1..providers.len()).any(|at| providers[..at].contains(&providers[at])) {
        fields.problem("providers", "one of them is named twice");
    }
    for key in ["optimization", "providers"] {
        if let Some(other) = name.filter(|name| *name != EngineName::OnnxRuntime && fields.has(key)) {
            fields.problem(key, format_args!("is for onnxruntime: the engine {other} has none"));
        }
    }
    let warm_up = fields.optional_u64("warmUp", 0..=MOST_WARM_UPS).and_then(|n| u32::try_from(n).ok());
    fields.finish();
    EngineSpec { name, threads, optimization, providers, warm_up }
}

fn threads(mut fields: Fields<'_>, engine: Option<EngineName>) -> EngineThreads {
    let mut number = |key| fields.optional_u64(key, 1..=1024).and_then(|n| u16::try_from(n).ok());
    let threads = EngineThreads { intra: number("intra"), inter: number("inter") };
    match engine {
        Some(engine) if !engine.has_threads() => {
            fields.problem_here(format_args!("the engine {engine} computes a request by one thread"));
        }
        Some(EngineName::Rten) if threads.inter.is_some() => {
            fields.problem("inter", "is for onnxruntime: the engine rten runs one operator after the other");
        }
        _ => {}
    }
    fields.finish();
    threads
}
