//! onnx-ml's trees: the rules by which votes become classes, and models that are no good, each refused at load.

use modelyard_core::Format;
use modelyard_engine::{Engine, EngineOptions, LoadError, load};
use modelyard_protocol::{Tensor, TensorData};
use proptest::prelude::*;

use crate::onnx_writer::Attribute::{self, Floats, Int, Ints, Text, Texts};
use crate::onnx_writer::{FLOAT, INT64, OnnxModel};
use crate::{engines, rten};

fn open(model: &[u8], options: &EngineOptions) -> Result<Box<dyn Engine>, LoadError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model).unwrap();
    load(Format::Onnx, file.path(), options)
}

fn rows(data: &[f32], columns: usize) -> Tensor {
    Tensor { name: "x".into(), shape: vec![data.len() / columns, columns], data: TensorData::Fp32(data.to_vec()) }
}

type Attributes = Vec<(&'static str, Attribute)>;

/// Two trees of one branch each: x₀ ≤ 0, and x₁ ≤ 1, each with two leaves.
fn stumps(votes: &[(i64, i64, i64, f32)]) -> Attributes {
    let votes_of = |f: fn(&(i64, i64, i64, f32)) -> i64| Ints(votes.iter().map(f).collect());
    vec![
        ("nodes_treeids", Ints(vec![0, 0, 0, 1, 1, 1])),
        ("nodes_nodeids", Ints(vec![0, 1, 2, 0, 1, 2])),
        ("nodes_featureids", Ints(vec![0, 0, 0, 1, 0, 0])),
        ("nodes_modes", Texts(vec!["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"])),
        ("nodes_values", Floats(vec![0.0, 0.0, 0.0, 1.0, 0.0, 0.0])),
        ("nodes_truenodeids", Ints(vec![1, 0, 0, 1, 0, 0])),
        ("nodes_falsenodeids", Ints(vec![2, 0, 0, 2, 0, 0])),
        ("target_treeids", votes_of(|v| v.0)),
        ("target_nodeids", votes_of(|v| v.1)),
        ("target_ids", votes_of(|v| v.2)),
        ("target_weights", Floats(votes.iter().map(|v| v.3).collect())),
    ]
}

const ONE_EACH: [(i64, i64, i64, f32); 4] = [(0, 1, 0, 1.0), (0, 2, 0, 2.0), (1, 1, 0, 10.0), (1, 2, 0, 20.0)];

fn set(mut attributes: Attributes, name: &'static str, value: Attribute) -> Attributes {
    attributes.retain(|(known, _)| *known != name);
    attributes.push((name, value));
    attributes
}

fn regressor(attributes: &Attributes) -> Vec<u8> {
    OnnxModel::default()
        .ml_node("TreeEnsembleRegressor", &["x"], &["y"], attributes)
        .input("x", FLOAT, &[-1, 2])
        .output("y", FLOAT, &[-1, -1])
        .write("regressor")
}

/// The same trees, which vote for classes.
fn classifier(attributes: &Attributes) -> Vec<u8> {
    let renamed = |name: &'static str| match name {
        "target_treeids" => "class_treeids",
        "target_nodeids" => "class_nodeids",
        "target_ids" => "class_ids",
        "target_weights" => "class_weights",
        other => other,
    };
    let attributes: Attributes = attributes.iter().map(|(name, value)| (renamed(name), value.clone())).collect();
    OnnxModel::default()
        .ml_node("TreeEnsembleClassifier", &["x"], &["label", "scores"], &attributes)
        .input("x", FLOAT, &[-1, 2])
        .output("label", INT64, &[-1])
        .output("scores", FLOAT, &[-1, -1])
        .write("classifier")
}

/// All corners of the stumps, thresholds, and missing values.
const CORNERS: [f32; 12] = [-1.0, 0.0, 0.0, 1.0, 0.5, 1.0, -1.0, 1.5, 3.0, 3.0, f32::NAN, f32::NAN];

#[test]
fn every_mode_and_aggregate_is_what_it_says() {
    let y = |attributes: &Attributes| {
        let model = open(&regressor(attributes), &rten()).unwrap();
        assert_eq!(model.name(), "onnx-ml");
        let TensorData::Fp32(y) = model.infer(vec![rows(&CORNERS, 2)], &[]).unwrap().remove(0).data else { panic!() };
        // One row at a time, and many at once, go different ways.
        for (row, one) in CORNERS.chunks(2).zip(&y) {
            let alone = model.infer(vec![rows(row, 2)], &[]).unwrap().remove(0).data;
            assert_eq!(alone, TensorData::Fp32(vec![*one]));
        }
        let many = model.infer(vec![rows(&CORNERS.repeat(100), 2)], &[]).unwrap().remove(0).data;
        assert_eq!(many, TensorData::Fp32(y.repeat(100)));
        y
    };
    let modes = |first, second| Texts(vec![first, "LEAF", "LEAF", second, "LEAF", "LEAF"]);
    let with = |mode| y(&set(stumps(&ONE_EACH), "nodes_modes", modes(mode, mode)));
    assert_eq!(with("BRANCH_LEQ"), [11.0, 11.0, 12.0, 21.0, 22.0, 22.0]);
    assert_eq!(with("BRANCH_LT"), [11.0, 22.0, 22.0, 21.0, 22.0, 22.0]);
    assert_eq!(with("BRANCH_GTE"), [22.0, 11.0, 11.0, 12.0, 11.0, 22.0]);
    assert_eq!(with("BRANCH_GT"), [22.0, 22.0, 21.0, 12.0, 11.0, 22.0]);
    assert_eq!(with("BRANCH_EQ"), [22.0, 11.0, 12.0, 22.0, 22.0, 22.0]);
    assert_eq!(with("BRANCH_NEQ"), [11.0, 22.0, 21.0, 11.0, 11.0, 11.0]);
    let mixed = set(stumps(&ONE_EACH), "nodes_modes", modes("BRANCH_NEQ", "BRANCH_GT"));
    assert_eq!(y(&mixed), [21.0, 22.0, 21.0, 11.0, 11.0, 21.0]);
    let missing = set(stumps(&ONE_EACH), "nodes_missing_value_tracks_true", Ints(vec![1, 0, 0, 0, 0, 0]));
    assert_eq!(y(&missing), [11.0, 11.0, 12.0, 21.0, 22.0, 21.0]);

    let base = set(stumps(&ONE_EACH), "base_values", Floats(vec![0.5]));
    let with = |aggregate| y(&set(base.clone(), "aggregate_function", Text(aggregate)));
    assert_eq!(with("SUM"), [11.5, 11.5, 12.5, 21.5, 22.5, 22.5]);
    assert_eq!(with("AVERAGE"), [6.0, 6.0, 6.5, 11.0, 11.5, 11.5]);
    assert_eq!(with("MIN"), [1.5, 1.5, 2.5, 1.5, 2.5, 2.5]);
    assert_eq!(with("MAX"), [10.5, 10.5, 10.5, 20.5, 20.5, 20.5]);
}

#[test]
fn rules_for_classes_are_those_of_onnx_runtime() {
    let probabilities = [(0, 1, 0, 0.1), (0, 2, 0, 0.4), (1, 1, 0, 0.0), (1, 2, 0, 0.5)];
    let signed = [(0, 1, 0, -0.3), (0, 2, 0, 0.4), (1, 1, 0, -0.5), (1, 2, 0, 0.7)];
    let second = signed.map(|(tree, node, _, weight)| (tree, node, 1, weight));
    let each = |classes: &[f32]| {
        let mut votes = Vec::new();
        for (tree, node) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
            for (class, weight) in (0..).zip(classes) {
                votes.push((tree, node, class, weight * if class + 1 == node { 2.0 } else { 1.0 }));
            }
        }
        votes
    };
    let (both, dense) = (each(&[0.25, 0.125]), each(&[0.25, 0.125, 0.3125]));
    let sparse = [(0, 1, 0, 0.3), (0, 2, 2, 0.4), (1, 1, 1, 0.5), (1, 2, 2, -0.7)];
    let cases: [(&[_], usize); 6] =
        [(&probabilities, 2), (&signed, 2), (&second, 2), (&both, 2), (&dense, 3), (&sparse, 3)];
    let mut compared = 0;
    for (votes, classes) in cases {
        for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"] {
            // ONNX Runtime refuses others.
            for bases in [0, classes].into_iter().chain((classes == 2).then_some(1)) {
                let labels = Ints([7, 3, 5][..classes].to_vec());
                let base = Floats([0.25, -0.125, 0.5][..bases].to_vec());
                let attributes = set(stumps(votes), "classlabels_int64s", labels);
                let attributes = set(set(attributes, "post_transform", Text(transform)), "base_values", base);
                let model = classifier(&attributes);
                let answers: Vec<Vec<Tensor>> = engines()
                    .iter()
                    .map(|options| open(&model, options).unwrap().infer(vec![rows(&CORNERS, 2)], &[]).unwrap())
                    .collect();
                let case = format!("{votes:?} {transform} {bases}");
                assert_eq!(answers[0][1].shape, [6, classes], "{case}");
                for runtime in &answers[1..] {
                    compared += 1;
                    // Of votes for both of two classes it makes labels 0 and 1, which may be none of the model's:
                    // ours is the top class, as the specification says.
                    if votes != both {
                        assert_eq!(answers[0][0], runtime[0], "{case}");
                    }
                    let (TensorData::Fp32(a), TensorData::Fp32(b)) = (&answers[0][1].data, &runtime[1].data) else {
                        panic!("not FP32")
                    };
                    let close = a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6 || (a.is_nan() && b.is_nan()));
                    assert!(close, "{case}: {a:?} is not {b:?}");
                }
            }
        }
    }
    eprintln!("{compared} classifiers compared with ONNX Runtime");
}

#[test]
fn forests_that_are_none_are_refused_by_node() {
    let refused = |attributes: &Attributes| {
        let error = open(&regressor(attributes), &rten()).err().expect("it must be refused");
        (error.code(), error.to_string())
    };
    let good = || stumps(&ONE_EACH);
    let cases: Vec<(Attributes, &str)> = vec![
        (set(good(), "nodes_truenodeids", Ints(vec![0, 0, 0, 1, 0, 0])), "circle lead to node 0 of tree 0"),
        (set(good(), "nodes_truenodeids", Ints(vec![2, 0, 0, 1, 0, 0])), "two ways or a circle lead to node 2"),
        (set(good(), "nodes_truenodeids", Ints(vec![9, 0, 0, 1, 0, 0])), "leads to node 9, which is not"),
        (set(good(), "nodes_falsenodeids", Ints(vec![-1, 0, 0, 1, 0, 0])), "leads to node -1, which is not"),
        (set(good(), "nodes_falsenodeids", Ints(vec![2, 0])), "differ in length"),
        (set(good(), "nodes_nodeids", Ints(vec![0, 1, 1, 0, 1, 2])), "tree 0 has node 1 twice"),
        (set(good(), "nodes_treeids", Ints(vec![0, 0, 1, 1, 1, 0])), "node"),
        (set(good(), "nodes_featureids", Ints(vec![-1, 0, 0, 1, 0, 0])), "feature -1 is out of range"),
        (set(good(), "nodes_featureids", Ints(vec![i64::MAX, 0, 0, 1, 0, 0])), "is out of range"),
        (set(good(), "nodes_modes", Texts(vec!["BRANCH_MEMBER"; 6])), "there is no node mode BRANCH_MEMBER"),
        (set(good(), "target_ids", Ints(vec![0, 0, 1, 0])), "for target or class 1, but there are 1"),
        (set(good(), "target_ids", Ints(vec![0, 0, -1, 0])), "for target or class -1"),
        (set(good(), "target_nodeids", Ints(vec![1, 2, 1, 7])), "for node 7 of tree 1, which is not"),
        (set(good(), "target_weights", Floats(vec![1.0])), "differ in length"),
        (set(good(), "n_targets", Int(i64::MAX)), "n_targets must be"),
        (set(good(), "n_targets", Int(0)), "n_targets must be"),
        (set(good(), "post_transform", Text("TANH")), "there is no post_transform TANH"),
        (stumps(&ONE_EACH[..3]), "leaf 2 of tree 1 has no weight"),
        (vec![], "empty or differ in length"),
    ];
    for (attributes, reason) in cases {
        let (code, message) = refused(&attributes);
        assert_eq!(code, "engine-refused", "{message}");
        let node = "onnx-ml refuses it: node `the TreeEnsembleRegressor` (ai.onnx.ml.TreeEnsembleRegressor): ";
        assert!(message.starts_with(node) && message.contains(reason), "{message} / {reason}");
    }
}

#[test]
fn rows_too_narrow_are_refused_when_they_come() {
    let wide = set(stumps(&ONE_EACH), "nodes_featureids", Ints(vec![5, 0, 0, 1, 0, 0]));
    let error = open(&regressor(&wide), &rten()).unwrap().infer(vec![rows(&CORNERS, 2)], &[]).unwrap_err();
    assert!(error.to_string().ends_with("it looks at 6 features, but there are 2"), "{error}");
}

#[test]
fn graphs_that_are_not_in_order_are_refused() {
    let model = |nodes: [(&str, &str); 2]| {
        let binarize = |m: OnnxModel, (from, to): (&str, &str)| m.ml_node("Binarizer", &[from], &[to], &[]);
        let model = nodes.into_iter().fold(OnnxModel::default(), binarize);
        open(&model.input("x", FLOAT, &[-1, 2]).output("y", FLOAT, &[-1, 2]).write("order"), &rten())
    };
    assert!(model([("x", "a"), ("a", "y")]).is_ok());
    for (nodes, reason) in [
        ([("b", "y"), ("x", "b")], "takes `b`, which nothing before it gives"),
        ([("x", "y"), ("x", "y")], "two values are named `y`"),
        ([("x", "a"), ("x", "b")], "the list of outputs takes `y`, which nothing before it gives"),
    ] {
        let error = model(nodes).err().unwrap();
        assert!(error.code() == "engine-refused" && error.to_string().contains(reason), "{error}");
    }
}

/// A classifier with all that a converter writes, ZipMap too.
fn whole() -> Vec<u8> {
    let votes = [(0, 1, 0, 0.1), (0, 2, 0, 0.4), (1, 1, 0, 0.0), (1, 2, 0, 0.5)];
    let trees: Attributes = stumps(&votes)
        .into_iter()
        .map(|(name, value)| {
            (if name.starts_with("target_") { name.replace("target", "class").leak() } else { name }, value)
        })
        .collect();
    let trees = set(trees, "classlabels_int64s", Ints(vec![0, 1]));
    OnnxModel::default()
        .ml_node("Scaler", &["x"], &["s"], &[("offset", Floats(vec![0.5])), ("scale", Floats(vec![2.0]))])
        .ml_node("TreeEnsembleClassifier", &["s"], &["label", "p"], &trees)
        .ml_node("Normalizer", &["p"], &["q"], &[("norm", Text("L1"))])
        .ml_node("ZipMap", &["q"], &["probabilities"], &[("classlabels_int64s", Ints(vec![0, 1]))])
        .input("x", FLOAT, &[-1, 2])
        .output("label", INT64, &[-1])
        .sequence_output("probabilities")
        .write("whole")
}

#[test]
fn a_zip_map_becomes_the_tensor_of_its_probabilities() {
    for options in engines() {
        let model = open(&whole(), &options).unwrap();
        assert_eq!(model.signature().outputs[1].to_string(), "probabilities FP32 [-1, 2]");
        let found = model.infer(vec![rows(&[0.0, 0.0, 1.0, 2.0], 2)], &["probabilities".into()]).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].shape.as_slice()), ("probabilities", [2, 2].as_slice()));
        let TensorData::Fp32(p) = &found[0].data else { panic!("not FP32") };
        let expected = [0.9, 0.1, 0.1, 0.9];
        assert!(p.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{}: {p:?}", model.name());
    }
}

/// Whether it was refused in an orderly way, or answers in one.
fn is_orderly(model: &[u8]) -> Result<(), String> {
    match open(model, &rten()) {
        Err(error) if error.code() == "engine-crashed" => Err(error.to_string()),
        Err(_) => Ok(()),
        Ok(model) => match model.infer(vec![rows(&CORNERS, 2)], &[]) {
            Err(error) if error.to_string().contains("crashed") => Err(error.to_string()),
            _ => Ok(()),
        },
    }
}

#[test]
fn a_model_cut_off_anywhere_is_refused_in_order() {
    let whole = whole();
    for length in 0..whole.len() {
        // The last of the operator sets that it names may be missed unnoticed.
        assert!(open(&whole[..length], &rten()).is_err() || length > whole.len() - 20, "cut off at {length}");
        is_orderly(&whole[..length]).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_model_never_crashes(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut model = whole();
        for (place, byte) in edits {
            let place = place.index(model.len());
            model[place] = byte;
        }
        if let Some(cut) = cut {
            model.remove(cut.index(model.len()));
        }
        prop_assert_eq!(is_orderly(&model), Ok(()));
    }
}
