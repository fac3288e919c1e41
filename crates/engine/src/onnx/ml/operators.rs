//! Which operators there are.

use super::attributes::Attributes;
use super::proto::Node;
use super::value::{Answer, Value};
use super::{elementwise, encoders, features, linear, matrix, reduce, scalers, shapes, svm, trees};

/// An operator with its attributes, ready to be run: from inputs to outputs, both in their order.
pub(super) type Kernel = Box<dyn Fn(&Inputs<'_>) -> Answer<Vec<Value>> + Send + Sync>;

/// Why there is no kernel for a node.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no such operator.
    Unknown,
    /// There is, but it has not all that the node asks of it.
    Lacks(String),
    /// The node's attributes are no good.
    Invalid(String),
}

impl From<String> for Refusal {
    fn from(problem: String) -> Self {
        Self::Invalid(problem)
    }
}

impl From<&str> for Refusal {
    fn from(problem: &str) -> Self {
        Self::Invalid(problem.into())
    }
}

pub(super) struct Inputs<'a>(pub(super) &'a [Option<&'a Value>]);

impl<'a> Inputs<'a> {
    /// # Errors
    /// If it is left out.
    pub(super) fn get(&self, place: usize) -> Answer<&'a Value> {
        self.optional(place).ok_or_else(|| format!("its input {place} is missing"))
    }

    pub(super) fn optional(&self, place: usize) -> Option<&'a Value> {
        self.0.get(place).copied().flatten()
    }

    /// All of them, of which there is one at least.
    pub(super) fn all(&self) -> Answer<Vec<&'a Value>> {
        let all: Option<Vec<_>> = self.0.iter().copied().collect();
        all.filter(|all| !all.is_empty()).ok_or_else(|| "an input is missing".into())
    }
}

/// A kernel with one output.
pub(super) fn single(kernel: impl Fn(&Inputs<'_>) -> Answer<Value> + Send + Sync + 'static) -> Kernel {
    Box::new(move |inputs| kernel(inputs).map(|value| vec![value]))
}

/// `opset` is the version of ONNX's own operators.
pub(super) fn kernel(node: &Node, opset: u64) -> Result<Kernel, Refusal> {
    let a = &node.attributes;
    match node.domain.as_str() {
        "" => own(&node.op, a, opset),
        "ai.onnx.ml" => ml(&node.op, a),
        _ => Err(Refusal::Unknown),
    }
}

fn ml(op: &str, a: &Attributes) -> Result<Kernel, Refusal> {
    match op {
        "ArrayFeatureExtractor" => Ok(single(features::extract)),
        "Binarizer" => Ok(scalers::binarizer(a)),
        "FeatureVectorizer" => features::vectorizer(a),
        "Imputer" => scalers::imputer(a),
        "LabelEncoder" => encoders::label_encoder(a),
        "LinearClassifier" => linear::classifier(a),
        "LinearRegressor" => linear::regressor(a),
        "Normalizer" => scalers::normalizer(a),
        "OneHotEncoder" => encoders::one_hot(a),
        "SVMClassifier" => svm::classifier(a),
        "SVMRegressor" => svm::regressor(a),
        "Scaler" => scalers::scaler(a),
        "TreeEnsembleClassifier" => trees::classifier(a),
        "TreeEnsembleRegressor" => trees::regressor(a),
        "ZipMap" => features::zip_map(a),
        _ => Err(Refusal::Unknown),
    }
}

fn own(op: &str, a: &Attributes, opset: u64) -> Result<Kernel, Refusal> {
    match op {
        "ArgMax" | "ArgMin" => reduce::arg(op == "ArgMax", a),
        "Cast" => shapes::cast(a),
        "Clip" => Ok(elementwise::clip(a)),
        "Concat" => shapes::concat(a),
        "Constant" => shapes::constant(a),
        "ConstantOfShape" => shapes::constant_of_shape(a),
        "Flatten" => Ok(shapes::flatten(a)),
        "Gather" => Ok(shapes::gather(a)),
        "Gemm" => Ok(matrix::gemm(a)),
        "Identity" => Ok(single(|inputs| inputs.get(0).cloned())),
        "MatMul" => Ok(single(matrix::mat_mul)),
        "Reshape" => Ok(shapes::reshape(a)),
        "Shape" => shapes::shape(a),
        "Softmax" => Ok(reduce::softmax(a, opset)),
        "Squeeze" => Ok(shapes::squeeze(a)),
        "Transpose" => Ok(shapes::transpose(a)),
        "Unsqueeze" => Ok(shapes::unsqueeze(a)),
        "Where" => Ok(single(elementwise::select)),
        _ => elementwise::kernel(op).or_else(|| reduce::kernel(op, a)).ok_or(Refusal::Unknown),
    }
}
