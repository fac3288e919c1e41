//! Datatypes and shapes at the boundary, concurrency, and what each engine refuses.

use half::f16;
use modelyard_core::{EngineName, EngineSpec, EngineThreads, Format, TensorSpec};
use modelyard_engine::{Engine, EngineOptions, InferError, LoadError, in_engines_pool, load};
use modelyard_protocol::{Tensor, TensorData};

use crate::onnx_writer::{BOOL, DOUBLE, FLOAT, FLOAT16, INT64, OnnxModel, UINT16};
use crate::{engines, rten};

fn open(model: Vec<u8>, options: &EngineOptions) -> Result<Box<dyn Engine>, LoadError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model).unwrap();
    load(Format::Onnx, file.path(), options)
}

fn add(datatype: u64) -> Vec<u8> {
    OnnxModel::default()
        .node("Add", &["a", "a"], &["b"])
        .input("a", datatype, &[-1])
        .output("b", datatype, &[-1])
        .write("add")
}

fn tensor(name: &str, data: TensorData) -> Tensor {
    Tensor { name: name.into(), shape: vec![data.len()], data }
}

#[test]
fn declared_datatypes_are_kept_both_ways() {
    let cases = [
        (INT64, TensorData::Int64(vec![-5, 1 << 29]), TensorData::Int64(vec![-10, 1 << 30])),
        (DOUBLE, TensorData::Fp64(vec![0.5, -2.0]), TensorData::Fp64(vec![1.0, -4.0])),
    ];
    for options in engines() {
        for (datatype, a, b) in cases.clone() {
            let model = open(add(datatype), &options).unwrap();
            let spec = |name: &str| TensorSpec { name: name.into(), datatype: a.datatype(), shape: vec![-1] };
            assert_eq!((&model.signature().inputs, &model.signature().outputs), (&vec![spec("a")], &vec![spec("b")]));
            assert_eq!(model.infer(vec![tensor("a", a)], &[]).unwrap(), [tensor("b", b)], "{}", model.name());
        }
        let not = OnnxModel::default()
            .node("Not", &["a"], &["b"])
            .input("a", BOOL, &[-1])
            .output("b", BOOL, &[-1])
            .write("not");
        let found = open(not, &options).unwrap().infer(vec![tensor("a", TensorData::Bool(vec![true, false]))], &[]);
        assert_eq!(found.unwrap(), [tensor("b", TensorData::Bool(vec![false, true]))]);
    }
}

#[test]
fn half_precision_goes_through() {
    let a = TensorData::Fp16(vec![f16::from_f32(0.5), f16::from_f32(-3.0)]);
    let b = TensorData::Fp16(vec![f16::from_f32(1.0), f16::from_f32(-6.0)]);
    for options in engines() {
        let model = open(add(FLOAT16), &options).unwrap();
        assert_eq!(model.infer(vec![tensor("a", a.clone())], &[]).unwrap(), [tensor("b", b.clone())]);
    }
}

#[test]
fn scalars_go_through() {
    let model = OnnxModel::default()
        .node("Add", &["a", "sr"], &["b"])
        .input("a", INT64, &[-1])
        .input("sr", INT64, &[])
        .output("b", INT64, &[-1])
        .write("scalar");
    let sr = Tensor { name: "sr".into(), shape: vec![], data: TensorData::Int64(vec![16000]) };
    for options in engines() {
        let model = open(model.clone(), &options).unwrap();
        assert_eq!(model.signature().inputs[1].shape, Vec::<i64>::new());
        let found = model.infer(vec![tensor("a", TensorData::Int64(vec![1, 2])), sr.clone()], &[]).unwrap();
        assert_eq!(found, [tensor("b", TensorData::Int64(vec![16001, 16002]))]);
    }
}

#[test]
fn rten_refuses_integers_that_it_would_narrow() {
    let model = open(add(INT64), &rten()).unwrap();
    let error = model.infer(vec![tensor("a", TensorData::Int64(vec![1 << 40]))], &[]).unwrap_err();
    assert_eq!(
        error,
        InferError::BadInput("input `a`: 1099511627776 is beyond INT32, which the engine rten computes with".into())
    );
}

#[test]
fn what_an_engine_lacks_is_refused_with_the_remedy() {
    let ml = |op: &str| {
        OnnxModel::default()
            .ml_node(op, &["a"], &["b"], &[])
            .input("a", FLOAT, &[-1, 2])
            .output("b", FLOAT, &[-1, 2])
            .write("ml")
    };
    let mixed = OnnxModel::default()
        .ml_node("Binarizer", &["a"], &["c"], &[])
        .node("Einsum", &["c"], &["b"])
        .input("a", FLOAT, &[-1, 2])
        .output("b", FLOAT, &[-1, 2])
        .write("mixed");
    let cases = [
        (ml("CastMap"), "onnx-ml cannot run it (it has no operator ai.onnx.ml.CastMap, which node `the CastMap` is)"),
        (mixed, "onnx-ml cannot run it (it has no operator Einsum, which node 1 is)"),
        (add(UINT16), "rten cannot run it (it has no UINT16, which `a` is)"),
    ];
    for (model, reason) in cases {
        let error = open(model, &rten()).err().unwrap();
        assert_eq!(error.code(), "needs-onnxruntime");
        let message = error.to_string();
        assert!(message.starts_with(reason) && message.contains("MODELYARD_ONNXRUNTIME"), "{message}");
    }
}

#[test]
fn an_engine_that_was_asked_for_is_used_or_refused_and_no_other_taken() {
    let ask = |name| EngineOptions { spec: EngineSpec { name: Some(name), ..EngineSpec::default() }, ..rten() };
    let used = open(add(FLOAT), &ask(EngineName::OnnxMl)).unwrap();
    assert_eq!((used.name(), used.details()), ("onnx-ml", vec![("engine_reason", "it was asked for".into())]));
    let error = open(add(UINT16), &ask(EngineName::Rten)).err().unwrap();
    assert_eq!(error.code(), "engine-refused");
    let message = error.to_string();
    assert!(message.contains("it has no UINT16") && message.contains("without `engine`"), "{message}");
    assert_eq!(open(add(FLOAT), &ask(EngineName::Dense)).err().unwrap().code(), "other-format");
    assert_eq!(open(add(FLOAT), &ask(EngineName::OnnxRuntime)).err().unwrap().code(), "no-onnxruntime");
}

#[test]
fn rten_may_use_more_threads_than_its_callers() {
    let threads = EngineThreads { intra: Some(2), inter: None };
    let options = EngineOptions { spec: EngineSpec { threads, ..EngineSpec::default() }, ..rten() };
    let model = open(add(FLOAT), &options).unwrap();
    assert!(model.details().contains(&("intra_threads", "2".into())), "{:?}", model.details());
    let mut answers = Vec::new();
    in_engines_pool(&mut || answers = model.infer(vec![tensor("a", TensorData::Fp32(vec![2.0]))], &[]).unwrap());
    assert_eq!(answers, [tensor("b", TensorData::Fp32(vec![4.0]))]);
}

#[test]
fn operators_of_onnx_ml_run_with_and_without_its_runtime() {
    let ml = OnnxModel::default()
        .foreign_node("ai.onnx.ml", "Binarizer", &["a"], &["b"])
        .input("a", FLOAT, &[-1])
        .output("b", FLOAT, &[-1])
        .write("ml");
    for options in engines() {
        let model = open(ml.clone(), &options).unwrap();
        assert_eq!(model.name(), if options.onnxruntime.is_some() { "onnxruntime" } else { "onnx-ml" });
        let found = model.infer(vec![tensor("a", TensorData::Fp32(vec![-1.0, 0.5]))], &[]).unwrap();
        assert_eq!(found, [tensor("b", TensorData::Fp32(vec![0.0, 1.0]))]);
    }
}

#[test]
fn a_library_that_is_none_is_named() {
    let options =
        EngineOptions { onnxruntime: Some("/nonexistent/libonnxruntime.so".into()), ..EngineOptions::default() };
    let error = open(add(FLOAT), &options).err().unwrap();
    assert_eq!(error.code(), "onnxruntime-library");
    assert!(error.to_string().contains("/nonexistent/libonnxruntime.so"), "{error}");
}

#[test]
fn many_threads_share_a_model() {
    for options in engines() {
        let model = open(add(FLOAT), &options).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let model = &model;
                scope.spawn(move || {
                    let mut answered = 0;
                    modelyard_engine::in_engines_pool(&mut || {
                        for i in 0..50_u8 {
                            let a = f32::from(thread) + f32::from(i);
                            let found = model.infer(vec![tensor("a", TensorData::Fp32(vec![a]))], &[]).unwrap();
                            assert_eq!(found, [tensor("b", TensorData::Fp32(vec![a + a]))]);
                            answered += 1;
                        }
                    });
                    assert_eq!(answered, 50);
                });
            }
        });
    }
}
