//! Models that ask for more memory than their files take: each is refused before there is any of it.

use modelyard_core::Format;
use modelyard_engine::{Engine, InferError, LoadError, examine, fuzzing, load};
use modelyard_protocol::{Tensor, TensorData};

use crate::onnx_writer::Attribute::{Ints, Texts};
use crate::onnx_writer::{FLOAT, INT64, OnnxModel, STRING};
use crate::rten;

fn file(model: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model).unwrap();
    file
}

fn open(model: &[u8]) -> Result<Box<dyn Engine>, LoadError> {
    load(Format::Onnx, file(model).path(), &rten())
}

fn refused(model: &[u8]) -> String {
    open(model).err().unwrap().to_string()
}

fn ints(count: usize) -> Vec<Tensor> {
    vec![Tensor { name: "x".into(), shape: vec![count], data: TensorData::Int64(vec![0; count]) }]
}

#[test]
fn long_labels_are_not_written_for_each_of_many_rows() {
    let long: &'static str = "x".repeat(1 << 20).leak();
    let encoder = [("keys_int64s", Ints(vec![0])), ("values_strings", Texts(vec![long]))];
    let model = OnnxModel::default()
        .ml_node("LabelEncoder", &["x"], &["y"], &encoder)
        .input("x", INT64, &[-1])
        .output("y", STRING, &[-1])
        .write("long labels");
    let model = open(&model).unwrap();
    assert!(model.infer(ints(3), &[]).is_ok());
    let InferError::Failed(reason) = model.infer(ints(1000), &[]).unwrap_err() else { panic!("not the model's fault") };
    assert!(reason.contains("strings of 1048600000 bytes are beyond the 536870912 allowed"), "{reason}");
}

#[test]
fn strings_put_together_count_all_together() {
    let long: &'static str = "x".repeat(1 << 20).leak();
    let encoder = [("keys_int64s", Ints(vec![0])), ("values_strings", Texts(vec![long]))];
    let model = OnnxModel::default()
        .ml_node("LabelEncoder", &["x"], &["s"], &encoder)
        .node_with("Concat", &["s"; 600], &["y"], ("axis", 0))
        .input("x", INT64, &[-1])
        .output("y", STRING, &[-1])
        .write("together");
    let error = open(&model).unwrap().infer(ints(1), &[]).unwrap_err().to_string();
    assert!(error.contains("strings of 629160000 bytes are beyond"), "{error}");
}

#[test]
fn products_that_take_forever_are_not_begun() {
    let wide = OnnxModel::default()
        .node("ConstantOfShape", &["tall"], &["a"])
        .node("ConstantOfShape", &["wide"], &["b"])
        .node("MatMul", &["a", "b"], &["y"])
        .ml_node("Binarizer", &["y"], &["z"], &[])
        .input("tall", INT64, &[2])
        .input("wide", INT64, &[2])
        .output("z", FLOAT, &[-1, -1])
        .write("products");
    let shape = |name: &str, shape: [i64; 2]| Tensor {
        name: name.into(),
        shape: vec![2],
        data: TensorData::Int64(shape.into()),
    };
    let model = open(&wide).unwrap();
    assert!(model.infer(vec![shape("tall", [2, 3]), shape("wide", [3, 2])], &[]).is_ok());
    let forever = model.infer(vec![shape("tall", [5_000, 5_000]), shape("wide", [5_000, 5_000])], &[]);
    assert!(forever.unwrap_err().to_string().contains("are beyond the 68719476736 products allowed"));
}

#[test]
fn nodes_are_counted_while_they_are_read() {
    let nodes = |count| {
        let chain = (0..count).fold(OnnxModel::default(), |model, _| model.ml_node("Binarizer", &[], &[], &[]));
        chain.input("x", FLOAT, &[1]).output("x", FLOAT, &[1]).write("nodes")
    };
    assert!(open(&nodes(1 << 10)).is_ok());
    assert!(refused(&nodes((1 << 16) + 1)).ends_with("it has more than 65536 nodes, which is the most that are run"));
}

#[test]
fn names_that_take_more_memory_than_bytes_are_counted_while_they_are_read() {
    let names = vec![""; 1 << 22];
    let model = OnnxModel::default()
        .ml_node("Binarizer", &names, &["y"], &[])
        .input("x", FLOAT, &[1])
        .output("y", FLOAT, &[1])
        .write("names");
    assert!(refused(&model).ends_with("it has more than 4194304 names, attributes and strings"));
}

#[test]
fn an_outline_is_as_small_as_what_it_says() {
    let outlined = |model: OnnxModel| examine(Format::Onnx, file(&model.write("outline")).path());
    let inputs = (0..=1 << 16).fold(OnnxModel::default(), |model, _| model.input("", FLOAT, &[]));
    let error = outlined(inputs.node("Identity", &["x"], &["y"]).output("y", FLOAT, &[])).unwrap_err();
    assert_eq!(error.to_string(), "it has more than 65536 inputs");
    let outputs = OnnxModel::default().node("Identity", &["x"], &vec![""; (1 << 16) + 1]).output("y", FLOAT, &[]);
    assert_eq!(outlined(outputs).unwrap_err().to_string(), "it has more than 65536 outputs of one node");
    let dimensions = OnnxModel::default().node("Identity", &["x"], &["y"]).output("y", FLOAT, &[1; 1025]);
    assert_eq!(outlined(dimensions).unwrap_err().to_string(), "it has more than 1024 dimensions of one tensor");
}

#[test]
fn zip_maps_are_taken_off_by_the_dozen_and_not_by_the_thousand() {
    let zipped = |count: usize| {
        let zip = |model: OnnxModel, place: usize| {
            let name = format!("p{place}");
            model.ml_node("ZipMap", &["x"], &[&name], &[("classlabels_int64s", Ints(vec![0]))]).sequence_output(&name)
        };
        let model = (0..count).fold(OnnxModel::default(), zip).input("x", FLOAT, &[-1, 1]);
        fuzzing::without_zip_maps(file(&model.write("zipped")).path())
    };
    let outline = fuzzing::outline(file(&zipped(24).unwrap()).path()).unwrap();
    assert!(!outline.has_zip_map && outline.signature.outputs.len() == 24);
    assert!(zipped(1025).unwrap_err().to_string().contains("more than 1024 ZipMaps"));
}
