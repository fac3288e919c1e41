//! What is no frozen graph, or one that would not be computed as TensorFlow does: each refused for what it is.

use modelyard_core::Format;
use modelyard_engine::{EngineOptions, examine, load};

use crate::graph_writer::{Attribute, FLOAT, Graph, STRING, bytes, varint};
use crate::open;

fn refused(graph: &[u8]) -> (&'static str, String) {
    let error = open(graph).err().expect("it must be refused");
    (error.code(), error.to_string())
}

fn relu() -> Graph {
    Graph::default().placeholder("x", FLOAT, Some(&[-1, 2])).op("y", "Relu", &["x"])
}

#[test]
fn a_saved_model_and_others_files_are_refused_with_the_way_to_convert_them() {
    let mut saved_model = Vec::new();
    varint(&mut saved_model, 1, 1);
    bytes(&mut saved_model, 2, &relu().write());
    let (code, message) = refused(&saved_model);
    assert_eq!(code, "savedmodel");
    assert!(message.contains("tf2onnx") && message.contains("docs/engines.md"), "{message}");
    let (code, message) = refused(b"\x1c\x00\x00\x00TFL3\x14\x00\x20\x00");
    assert_eq!(code, "tflite");
    assert!(message.contains("--tflite"), "{message}");
    let (code, message) = refused(b"\x89HDF\r\n\x1a\n");
    assert_eq!(code, "keras");
    assert!(message.contains("model.export"), "{message}");
    for other in [b"\x08\x08\x12\x09modelyard".as_slice(), &[0; 4096], b"\x13\x37\xff\x00\x01\x02"] {
        assert_eq!(refused(other).0, "not-graphdef", "{other:?}");
    }
}

#[test]
fn a_graph_that_is_cut_off_is_refused_or_lacks_an_end() {
    let whole = relu().floats("unused", &[64], &[1.0; 64]).write();
    for length in 0..whole.len() {
        if let Err(error) = open(&whole[..length]) {
            assert!(["empty", "text", "not-graphdef", "truncated"].contains(&error.code()), "at {length}: {error}");
        }
    }
}

#[test]
fn variables_and_functions_are_refused_by_name() {
    for op in ["VarHandleOp", "VariableV2", "StatefulPartitionedCall"] {
        let graph = relu().op("weights", op, &[]).op("sum", "AddV2", &["y", "weights"]).write();
        let (code, message) = refused(&graph);
        assert_eq!(code, "not-frozen");
        assert!(message.contains("`weights`") && message.contains(op), "{message}");
    }
}

#[test]
fn operators_that_are_not_there_are_named_with_their_nodes() {
    let graph = relu().op("a", "Cumsum", &["y"]).op("b", "Einsum", &["y"]).write();
    let (code, message) = refused(&graph);
    assert_eq!(code, "engine-refused");
    assert!(message.contains("Cumsum, which node `a` is; no Einsum, which node `b` is"), "{message}");
    assert!(message.contains("ONNX"), "{message}");
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    let channels_first = relu().floats("bias", &[2], &[1.0, 2.0]).node(
        "z",
        "BiasAdd",
        &["y", "bias"],
        &[("T", Attribute::Type(FLOAT)), ("data_format", Attribute::Text("NCHW"))],
    );
    let training = Graph::default().placeholder("x", FLOAT, Some(&[-1, 2, 2, 1])).floats("one", &[1], &[1.0]).node(
        "z",
        "FusedBatchNormV3",
        &["x", "one", "one", "one", "one"],
        &[("T", Attribute::Type(FLOAT)), ("epsilon", Attribute::Float(0.001)), ("is_training", Attribute::Bool(true))],
    );
    let ellipsis = relu().raw_int32s("i", &[1], &[0]).raw_int32s("j", &[1], &[1]).node(
        "z",
        "StridedSlice",
        &["y", "i", "j", "j"],
        &[("ellipsis_mask", Attribute::Int(1))],
    );
    for (graph, word) in [(channels_first, "NCHW"), (training, "normalises by its batch"), (ellipsis, "an ellipsis")] {
        let (code, message) = refused(&graph.write());
        assert_eq!(code, "engine-refused");
        assert!(message.contains("node `z`") && message.contains(word), "{message}");
    }
}

#[test]
fn inputs_that_cannot_be_given_are_refused_by_name() {
    let unranked = Graph::default().placeholder("x", FLOAT, None).op("y", "Relu", &["x"]).write();
    let (code, message) = refused(&unranked);
    assert_eq!(code, "unsupported-signature");
    assert!(message.contains("`x` has no rank"), "{message}");
    let text = Graph::default().placeholder("x", STRING, Some(&[-1])).node("y", "Identity", &["x"], &[]).write();
    assert!(refused(&text).1.contains("BYTES"), "{}", refused(&text).1);
}

#[test]
fn edges_to_nothing_and_names_used_twice_are_refused() {
    assert!(refused(&relu().op("z", "Neg", &["w:1"]).write()).1.contains("node `z` takes `w:1`"));
    assert!(refused(&relu().op("y", "Neg", &["x"]).write()).1.contains("named `y`"));
    let nothing = Graph::default().placeholder("x", FLOAT, Some(&[1])).write();
    assert!(refused(&nothing).1.contains("computes nothing"));
}

#[test]
fn graphs_are_examined_without_the_engine_and_not_run_without_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), relu().write()).unwrap();
    examine(Format::Tensorflow, file.path()).unwrap();
    let error = load(Format::Tensorflow, file.path(), &EngineOptions::default()).err().unwrap();
    assert_eq!(error.code(), "unsupported-format");
}
