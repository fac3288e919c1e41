//! Graphs for the evaluator of ONNX models, made of what bytes say: flipped bits of a file seldom get past its parser.

use crate::models;
use crate::onnx::{Attribute, Elements, Graph, Node, Tensor};

/// What the bytes have yet to say; zeros when they are at their end.
struct Source<'b>(&'b [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Small, as sizes and places are, and now and then one that is not.
    fn int(&mut self) -> i64 {
        match self.byte() {
            small @ 0..=199 => i64::from(small % 8),
            negative @ 200..=229 => -i64::from(negative % 6),
            _ => self.of(&[i64::MIN, i64::MAX, 1 << 16, 1 << 20, 1 << 32, i64::from(u8::MAX), 100, -100]),
        }
    }

    fn float(&mut self) -> f32 {
        match self.byte() {
            small @ 0..=239 => f32::from(small % 12) / 4.0 - 1.0,
            _ => self.of(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0, 1e10]),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        self.of(&["", "a", "b", "1", "2.5", "nan", "LEAF", "a longer string than most of them are"]).into()
    }
}

/// How many elements a list has, by the size of its node.
type Length = fn(usize) -> usize;
/// What an element of a list is, unless the bytes say otherwise, by its place and the size of its node.
type Pattern = fn(usize, usize) -> i64;

enum Kind {
    Float,
    Int,
    Text(&'static [&'static str]),
    Tensor,
    Floats(Length),
    Ints(Length, Pattern),
    Texts(Length, fn(usize, usize) -> &'static str),
}

type Operator = (&'static str, &'static [(&'static str, Kind)]);

const TRANSFORMS: Kind = Kind::Text(&["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]);
const ALL: Length = |size| size;
const PAIRS: Length = |size| size * size.saturating_sub(1) / 2;
const LEAVES: Length = |size| size.div_ceil(2);
const COUNT: Pattern = |place, _| place.cast_signed() as i64;

macro_rules! tree {
    ($votes:literal, $($more:tt)*) => {
        &[
            ("nodes_treeids", Kind::Ints(ALL, |_, _| 0)),
            ("nodes_nodeids", Kind::Ints(ALL, COUNT)),
            ("nodes_featureids", Kind::Ints(ALL, |place, _| (place % 2) as i64)),
            ("nodes_truenodeids", Kind::Ints(ALL, |place, _| (2 * place + 1) as i64)),
            ("nodes_falsenodeids", Kind::Ints(ALL, |place, _| (2 * place + 2) as i64)),
            ("nodes_modes", Kind::Texts(ALL, |place, size| if 2 * place + 2 < size { "BRANCH_LEQ" } else { "LEAF" })),
            ("nodes_values", Kind::Floats(ALL)),
            (concat!($votes, "_treeids"), Kind::Ints(LEAVES, |_, _| 0)),
            (concat!($votes, "_nodeids"), Kind::Ints(LEAVES, |place, size| (place + size / 2) as i64)),
            (concat!($votes, "_ids"), Kind::Ints(LEAVES, |place, _| (place % 2) as i64)),
            (concat!($votes, "_weights"), Kind::Floats(LEAVES)),
            ("post_transform", TRANSFORMS),
            ("nodes_missing_value_tracks_true", Kind::Ints(ALL, |place, _| (place % 2) as i64)),
            ("nodes_values_as_tensor", Kind::Tensor),
            ("base_values", Kind::Floats(|_| 2)),
            $($more)*
        ]
    };
}

/// Attributes that come first are there more often.
const ML: &[Operator] = &[
    ("ArrayFeatureExtractor", &[]),
    ("Binarizer", &[("threshold", Kind::Float)]),
    ("FeatureVectorizer", &[("inputdimensions", Kind::Ints(ALL, |_, _| 2))]),
    (
        "Imputer",
        &[
            ("imputed_value_floats", Kind::Floats(ALL)),
            ("replaced_value_float", Kind::Float),
            ("imputed_value_int64s", Kind::Ints(ALL, COUNT)),
            ("replaced_value_int64", Kind::Int),
        ],
    ),
    (
        "LabelEncoder",
        &[
            ("keys_int64s", Kind::Ints(ALL, COUNT)),
            ("values_strings", Kind::Texts(ALL, |_, _| "v")),
            ("keys_strings", Kind::Texts(ALL, |_, _| "a")),
            ("values_floats", Kind::Floats(ALL)),
            ("keys_tensor", Kind::Tensor),
            ("values_tensor", Kind::Tensor),
            ("default_tensor", Kind::Tensor),
            ("default_int64", Kind::Int),
        ],
    ),
    (
        "LinearClassifier",
        &[
            ("coefficients", Kind::Floats(|size| size * 2)),
            ("classlabels_ints", Kind::Ints(ALL, COUNT)),
            ("intercepts", Kind::Floats(ALL)),
            ("post_transform", TRANSFORMS),
            ("classlabels_strings", Kind::Texts(ALL, |_, _| "c")),
        ],
    ),
    (
        "LinearRegressor",
        &[
            ("coefficients", Kind::Floats(|size| size * 2)),
            ("targets", Kind::Int),
            ("intercepts", Kind::Floats(ALL)),
            ("post_transform", TRANSFORMS),
        ],
    ),
    ("Normalizer", &[("norm", Kind::Text(&["MAX", "L1", "L2", "L3"]))]),
    (
        "OneHotEncoder",
        &[
            ("cats_int64s", Kind::Ints(ALL, COUNT)),
            ("zeros", Kind::Int),
            ("cats_strings", Kind::Texts(ALL, |_, _| "a")),
        ],
    ),
    (
        "SVMClassifier",
        &[
            ("classlabels_ints", Kind::Ints(ALL, COUNT)),
            ("vectors_per_class", Kind::Ints(ALL, |_, _| 1)),
            ("support_vectors", Kind::Floats(|size| size * 2)),
            ("coefficients", Kind::Floats(|size| size * size.saturating_sub(1))),
            ("rho", Kind::Floats(PAIRS)),
            ("prob_a", Kind::Floats(PAIRS)),
            ("prob_b", Kind::Floats(PAIRS)),
            ("kernel_type", Kind::Text(&["LINEAR", "POLY", "RBF", "SIGMOID"])),
            ("kernel_params", Kind::Floats(|_| 3)),
            ("post_transform", TRANSFORMS),
        ],
    ),
    (
        "SVMRegressor",
        &[
            ("coefficients", Kind::Floats(ALL)),
            ("rho", Kind::Floats(|_| 1)),
            ("support_vectors", Kind::Floats(|size| size * 2)),
            ("n_supports", Kind::Int),
            ("kernel_type", Kind::Text(&["LINEAR", "POLY", "RBF", "SIGMOID"])),
            ("kernel_params", Kind::Floats(|_| 3)),
            ("one_class", Kind::Int),
        ],
    ),
    ("Scaler", &[("offset", Kind::Floats(ALL)), ("scale", Kind::Floats(ALL))]),
    ("TreeEnsembleClassifier", tree!["class", ("classlabels_int64s", Kind::Ints(|_| 2, COUNT))]),
    (
        "TreeEnsembleRegressor",
        tree![
            "target",
            ("n_targets", Kind::Int),
            ("aggregate_function", Kind::Text(&["SUM", "AVERAGE", "MIN", "MAX"])),
        ],
    ),
    ("ZipMap", &[("classlabels_int64s", Kind::Ints(ALL, COUNT))]),
];

const REDUCE: &[(&str, Kind)] =
    &[("axes", Kind::Ints(|size| size % 3, COUNT)), ("keepdims", Kind::Int), ("noop_with_empty_axes", Kind::Int)];
const AXIS: &[(&str, Kind)] = &[("axis", Kind::Int)];
const ARG: &[(&str, Kind)] = &[("axis", Kind::Int), ("keepdims", Kind::Int)];
const AXES: &[(&str, Kind)] = &[("axes", Kind::Ints(|size| size % 3, COUNT))];

const OWN: &[Operator] = &[
    ("ArgMax", ARG),
    ("ArgMin", ARG),
    ("Cast", &[("to", Kind::Int)]),
    ("Clip", &[("min", Kind::Float), ("max", Kind::Float)]),
    ("Concat", AXIS),
    (
        "Constant",
        &[
            ("value", Kind::Tensor),
            ("value_ints", Kind::Ints(ALL, COUNT)),
            ("value_float", Kind::Float),
            ("value_floats", Kind::Floats(ALL)),
        ],
    ),
    ("ConstantOfShape", &[("value", Kind::Tensor)]),
    ("Flatten", AXIS),
    ("Gather", AXIS),
    ("Gemm", &[("transA", Kind::Int), ("transB", Kind::Int), ("alpha", Kind::Float), ("beta", Kind::Float)]),
    ("Identity", &[]),
    ("MatMul", &[]),
    ("Reshape", &[("shape", Kind::Ints(|size| size % 4, |_, _| -1)), ("allowzero", Kind::Int)]),
    ("Shape", &[]),
    ("Softmax", AXIS),
    ("Squeeze", AXES),
    ("Transpose", &[("perm", Kind::Ints(|size| size % 4, COUNT))]),
    ("Unsqueeze", AXES),
    ("Where", &[]),
    ("Add", &[]),
    ("Sub", &[]),
    ("Mul", &[]),
    ("Div", &[]),
    ("Sum", &[]),
    ("Max", &[]),
    ("Min", &[]),
    ("Pow", &[]),
    ("Equal", &[]),
    ("Less", &[]),
    ("GreaterOrEqual", &[]),
    ("And", &[]),
    ("Not", &[]),
    ("Abs", &[]),
    ("Exp", &[]),
    ("Log", &[]),
    ("Sigmoid", &[]),
    ("Sqrt", &[]),
    ("ReduceL2", REDUCE),
    ("ReduceLogSumExp", REDUCE),
    ("ReduceMax", REDUCE),
    ("ReduceMean", REDUCE),
    ("ReduceMin", REDUCE),
    ("ReduceProd", REDUCE),
    ("ReduceSum", REDUCE),
    ("ReduceSumSquare", REDUCE),
];

/// TensorProto.DataType of what operators take.
const DATATYPES: [u64; 6] = [1, 7, 8, 11, 9, 6];

pub(crate) fn evaluator(bytes: &[u8]) {
    models::onnx_ml(&model(&mut Source(bytes)));
}

fn model(source: &mut Source<'_>) -> Vec<u8> {
    let opset = source.of(&[13, 9, 12, 17, 11]);
    let mut graph = Graph::default();
    let mut names = Vec::new();
    for place in 0..1 + source.below(3) {
        let name = format!("in{place}");
        let shape: &[i64] = source.of(&[&[-1, 2], &[-1], &[-1, 3], &[2, 2], &[], &[-1, 0], &[-1, 2, 2], &[1, -1, 1]]);
        graph.input(&name, source.of(&DATATYPES), shape);
        names.push(name);
    }
    for place in 0..source.below(4) {
        let name = format!("const{place}");
        graph.initializer(&name, &tensor(source));
        names.push(name);
    }
    for place in 0..1 + source.below(8) {
        let outputs: Vec<String> = (0..1 + source.below(2)).map(|output| format!("n{place}.{output}")).collect();
        node(source, &mut graph, &names, outputs.clone());
        names.extend(outputs);
    }
    for _ in 0..1 + source.below(2) {
        // The latest, most of the time.
        let back = source.below(4).min(names.len() - 1);
        graph.output(&names[names.len() - 1 - back], source.of(&DATATYPES), &[-1, -1]);
    }
    graph.model(opset)
}

fn node(source: &mut Source<'_>, graph: &mut Graph, names: &[String], outputs: Vec<String>) {
    let (domain, (op, attributes)) = match source.byte() {
        0..=127 => ("ai.onnx.ml", &ML[source.below(ML.len())]),
        _ => ("", &OWN[source.below(OWN.len())]),
    };
    let mut inputs = Vec::new();
    for _ in 0..source.below(4) {
        let back = source.byte();
        let place = usize::from(back) % (names.len() + 1);
        // One more than there are is one that is left out.
        inputs.push(names.len().checked_sub(1 + place).map_or_else(String::new, |place| names[place].clone()));
    }
    let size = source.below(8);
    let given = if source.byte() < 160 { attributes.len() } else { source.below(attributes.len() + 1) };
    let mut said = Vec::new();
    for (place, (name, kind)) in attributes.iter().enumerate() {
        // The later ones of many exclude each other, or are seldom said.
        if place < given && (place < 7 || source.byte() < 160) && !(place > 1 && source.byte() > 200) {
            said.push(((*name).to_owned(), attribute(source, kind, size)));
        }
    }
    graph.node(&Node { op, domain, inputs, outputs, attributes: said });
}

fn attribute(source: &mut Source<'_>, kind: &Kind, size: usize) -> Attribute {
    // A list is of the right length, most of the time.
    let mut length = |length: &Length| match source.byte() {
        250.. => size + 1,
        _ => length(size),
    };
    match kind {
        Kind::Float => Attribute::Float(source.float()),
        Kind::Int => Attribute::Int(source.int()),
        Kind::Text(words) => Attribute::Text(source.of(words).into()),
        Kind::Tensor => Attribute::Tensor(tensor(source)),
        Kind::Floats(count) => Attribute::Floats((0..length(count)).map(|_| source.float()).collect()),
        Kind::Ints(count, pattern) => {
            let ints = 0..length(count);
            Attribute::Ints(ints.map(|i| if source.byte() > 235 { source.int() } else { pattern(i, size) }).collect())
        }
        Kind::Texts(count, pattern) => {
            let texts = 0..length(count);
            let modes = ["BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF"];
            let one = |place| match source.byte() {
                mode @ 216..=235 => modes[usize::from(mode) % modes.len()].into(),
                236.. => source.text(),
                _ => pattern(place, size).into(),
            };
            Attribute::Texts(texts.map(one).collect())
        }
    }
}

fn tensor(source: &mut Source<'_>) -> Tensor {
    let datatype = source.of(&DATATYPES);
    let dims: Vec<u64> = (0..source.below(4)).map(|_| source.below(4) as u64).collect();
    let count = usize::try_from(dims.iter().product::<u64>()).unwrap_or(0);
    let count = if source.byte() > 250 { source.below(8) } else { count };
    let elements = match datatype {
        1 => Elements::Floats((0..count).map(|_| source.float()).collect()),
        11 => Elements::Doubles((0..count).map(|_| source.float().into()).collect()),
        8 => Elements::Strings((0..count).map(|_| source.text()).collect()),
        _ => Elements::Integers((0..count).map(|_| source.int()).collect()),
    };
    Tensor { datatype, dims, elements }
}
