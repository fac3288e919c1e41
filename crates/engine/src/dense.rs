//! Dense networks: layers z = W·a + b, each followed by an activation, written as JSON.
//!
//! ```json
//! {
//!   "input": "x", "output": "y",
//!   "layers": [
//!     {"weights": [[1.0, -0.5]], "bias": [2.0], "activation": "linear"}
//!   ]
//! }
//! ```
//! `weights` has a row per neuron of the layer and a column per input of it; `bias` has an element per neuron, or is
//! left out for zeros. Activations: `linear` (or `identity`, or none), `relu`, `sigmoid`, `tanh`, `softmax` (over the
//! neurons of the layer). `input` and `output` are `x` and `y` if left out. The model takes FP32 [-1, columns of the
//! first layer] and gives FP32 [-1, rows of the last]; it computes in FP32.

use std::path::Path;

use modelyard_core::{Datatype, Signature, TensorSpec};
use modelyard_protocol::{Tensor, TensorData};
use serde::Deserialize;

use crate::Engine;
use crate::check;
use crate::error::{InferError, LoadError};

/// The largest file that is read, in bytes: numbers as text are no format for large networks.
const LARGEST: u64 = 256 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default = "x")]
    input: String,
    #[serde(default = "y")]
    output: String,
    layers: Vec<LayerDocument>,
}

fn x() -> String {
    "x".into()
}

fn y() -> String {
    "y".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerDocument {
    weights: Vec<Vec<f32>>,
    #[serde(default)]
    bias: Option<Vec<f32>>,
    #[serde(default)]
    activation: Activation,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Activation {
    #[default]
    #[serde(alias = "identity")]
    Linear,
    Relu,
    Sigmoid,
    Tanh,
    Softmax,
}

#[derive(Debug)]
struct Layer {
    inputs: usize,
    /// Row by row.
    weights: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

#[derive(Debug)]
pub(crate) struct Dense {
    signature: Signature,
    layers: Vec<Layer>,
}

impl Dense {
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let length = std::fs::metadata(path).map_err(LoadError::Io)?.len();
        if length > LARGEST {
            let problem = format!("it has {length} bytes, and at most {LARGEST} are read: export it to ONNX");
            return Err(LoadError::Dense(problem));
        }
        Self::parse(&std::fs::read(path).map_err(LoadError::Io)?)
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let document: Document = serde_json::from_slice(json).map_err(|error| {
            if error.is_eof() { LoadError::Truncated(error.to_string()) } else { LoadError::Dense(error.to_string()) }
        })?;
        let mut layers: Vec<Layer> = Vec::with_capacity(document.layers.len());
        for (index, layer) in document.layers.into_iter().enumerate() {
            let before = layers.last().map(|l| l.bias.len());
            let checked = Layer::new(layer, before);
            layers.push(checked.map_err(|problem| LoadError::Dense(format!("layer {index}: {problem}")))?);
        }
        let (Some(first), Some(last)) = (layers.first(), layers.last()) else {
            return Err(LoadError::Dense("it has no layers".into()));
        };
        let spec = |name, width: usize| TensorSpec {
            name,
            datatype: Datatype::Fp32,
            shape: vec![-1, i64::try_from(width).unwrap_or(i64::MAX)],
        };
        let signature = Signature {
            inputs: vec![spec(document.input, first.inputs)],
            outputs: vec![spec(document.output, last.bias.len())],
        };
        Ok(Self { signature, layers })
    }
}

impl Layer {
    /// `before`: the number of neurons of the layer before.
    fn new(document: LayerDocument, before: Option<usize>) -> Result<Self, String> {
        let rows = document.weights.len();
        let inputs = document.weights.first().map_or(0, Vec::len);
        if inputs == 0 {
            return Err("its weights are empty".into());
        }
        if let Some((row, weights)) = document.weights.iter().enumerate().find(|(_, w)| w.len() != inputs) {
            return Err(format!("row {row} of its weights has {} columns, but row 0 has {inputs}", weights.len()));
        }
        if let Some(before) = before.filter(|before| *before != inputs) {
            return Err(format!("its weights have {inputs} columns, but the layer before has {before} neurons"));
        }
        let bias = document.bias.unwrap_or_else(|| vec![0.0; rows]);
        if bias.len() != rows {
            return Err(format!("its bias has {} elements, but its weights have {rows} rows", bias.len()));
        }
        let weights = document.weights.concat();
        if weights.iter().chain(&bias).any(|w| !w.is_finite()) {
            return Err("a weight or bias does not fit FP32".into());
        }
        Ok(Self { inputs, weights, bias, activation: document.activation })
    }

    fn apply(&self, a: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(a.len() / self.inputs * self.bias.len());
        for example in a.chunks_exact(self.inputs) {
            let start = out.len();
            for (weights, bias) in self.weights.chunks_exact(self.inputs).zip(&self.bias) {
                out.push(weights.iter().zip(example).map(|(w, a)| w * a).sum::<f32>() + bias);
            }
            self.activation.apply(&mut out[start..]);
        }
        out
    }
}

impl Activation {
    fn apply(self, z: &mut [f32]) {
        match self {
            Self::Linear => {}
            // Not `max`, which makes 0 of NaN and so hides it.
            Self::Relu => z.iter_mut().filter(|z| **z < 0.0).for_each(|z| *z = 0.0),
            Self::Sigmoid => z.iter_mut().for_each(|z| *z = 1.0 / (1.0 + (-*z).exp())),
            Self::Tanh => z.iter_mut().for_each(|z| *z = z.tanh()),
            Self::Softmax => {
                // Less the largest, so that no exponential overflows.
                let largest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                z.iter_mut().for_each(|z| *z = (*z - largest).exp());
                let sum: f32 = z.iter().sum();
                z.iter_mut().for_each(|z| *z /= sum);
            }
        }
    }
}

impl Engine for Dense {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn name(&self) -> &'static str {
        "dense"
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        let places = check::outputs(&self.signature, outputs)?;
        let mut inputs = check::inputs(&self.signature, &[], inputs)?;
        let Some(Tensor { shape, data: TensorData::Fp32(x), .. }) = inputs.pop() else {
            return Err(InferError::Failed("its one input was not FP32".into()));
        };
        let y = self.layers.iter().fold(x, |a, layer| layer.apply(&a));
        let shape = vec![shape[0], self.layers.last().map_or(0, |l| l.bias.len())];
        let name = self.signature.outputs[0].name.clone();
        let tensor = Tensor { name, shape, data: TensorData::Fp32(y) };
        Ok(places.iter().map(|_| tensor.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(json: &str, shape: &[usize], x: &[f32]) -> Tensor {
        let input = Tensor { name: "x".into(), shape: shape.to_vec(), data: TensorData::Fp32(x.to_vec()) };
        Dense::parse(json.as_bytes()).unwrap().infer(vec![input], &[]).unwrap().remove(0)
    }

    #[test]
    fn a_linear_model_is_one_layer() {
        let json = r#"{"layers": [{"weights": [[1.0, -0.5]], "bias": [2.0]}]}"#;
        let y = run(json, &[2, 2], &[3.0, 4.0, 0.0, 0.0]);
        assert_eq!(y, Tensor { name: "y".into(), shape: vec![2, 1], data: TensorData::Fp32(vec![3.0, 2.0]) });
    }

    #[test]
    fn layers_follow_each_other_with_their_activations() {
        let json = r#"{"layers": [
            {"weights": [[1, 0], [0, 1], [-1, -1]], "bias": [0, 0, 1], "activation": "relu"},
            {"weights": [[1, 1, 1], [0, 0, 0]], "activation": "softmax"}]}"#;
        // relu(1, 2, -2) = (1, 2, 0); softmax(3, 0) = 1/(1+e^-3), and the rest
        let p = 1.0 / (1.0 + (-3.0_f32).exp());
        let TensorData::Fp32(y) = run(json, &[1, 2], &[1.0, 2.0]).data else { panic!("not FP32") };
        assert!((y[0] - p).abs() < 1e-6 && (y[1] - (1.0 - p)).abs() < 1e-6, "{y:?}");

        for (activation, expected) in
            [("identity", 0.5_f32), ("sigmoid", 1.0 / (1.0 + (-0.5_f32).exp())), ("tanh", 0.5_f32.tanh())]
        {
            let json = format!(r#"{{"layers": [{{"weights": [[0.5]], "activation": "{activation}"}}]}}"#);
            assert_eq!(run(&json, &[1, 1], &[1.0]).data, TensorData::Fp32(vec![expected]), "{activation}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for activation in ["linear", "relu", "sigmoid", "tanh", "softmax"] {
            let json = format!(r#"{{"layers": [{{"weights": [[1]], "activation": "{activation}"}}]}}"#);
            let TensorData::Fp32(y) = run(&json, &[1, 1], &[f32::NAN]).data else { panic!("not FP32") };
            assert!(y[0].is_nan(), "{activation} gave {y:?}");
        }
    }

    #[test]
    fn softmax_of_large_values_is_finite() {
        let json = r#"{"layers": [{"weights": [[1000], [1000]], "activation": "softmax"}]}"#;
        assert_eq!(run(json, &[1, 1], &[1.0]).data, TensorData::Fp32(vec![0.5, 0.5]));
    }

    #[test]
    fn layers_that_do_not_fit_are_named() {
        let refused = |json: &str| {
            let error = Dense::parse(json.as_bytes()).unwrap_err();
            (error.code(), error.to_string())
        };
        let (code, message) =
            refused(r#"{"layers": [{"weights": [[1, 2]]}, {"weights": [[1, 2]], "activation": "relu"}]}"#);
        assert_eq!(code, "dense-invalid");
        assert_eq!(
            message,
            "it is no valid dense model: layer 1: its weights have 2 columns, but the layer before has 1 neurons"
        );
        assert!(
            refused(r#"{"layers": [{"weights": [[1, 2], [3]]}]}"#)
                .1
                .ends_with("layer 0: row 1 of its weights has 1 columns, but row 0 has 2")
        );
        assert!(
            refused(r#"{"layers": [{"weights": [[1]], "bias": [1, 2]}]}"#)
                .1
                .ends_with("layer 0: its bias has 2 elements, but its weights have 1 rows")
        );
        assert!(refused(r#"{"layers": [{"weights": []}]}"#).1.ends_with("layer 0: its weights are empty"));
        assert!(refused(r#"{"layers": [{"weights": [[1e39]]}]}"#).1.contains("number out of range"));
        assert!(refused(r#"{"layers": []}"#).1.ends_with("it has no layers"));
        assert!(refused(r#"{"layers": [{"weights": [[1]], "kernel": 1}]}"#).1.contains("unknown field `kernel`"));
        assert!(
            refused(r#"{"layers": [{"weights": [[1]], "activation": "gelu"}]}"#).1.contains("unknown variant `gelu`")
        );
        assert_eq!(refused(r#"{"layers": [{"weights": [[1, "#).0, "truncated");
    }
}
