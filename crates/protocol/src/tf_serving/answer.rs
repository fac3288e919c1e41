//! Answers of `:predict`, `:classify` and `:regress`.

use modelyard_core::{Datatype, Signature, TensorSpec};
use serde_json::value::RawValue;

use crate::nested::{self, Members, NestedError, form};
use crate::tensor::{Tensor, TensorData, signed};

/// What an answer is made of, by how it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `instances` become `predictions`: a list of rows.
    Predictions,
    /// `inputs` become `outputs`: whole tensors.
    Outputs,
    /// Labels with their scores, by row. Without an output of labels, those are the numbers of the scores.
    Classes { labels: Option<String>, scores: String },
    /// A value by row, of this output.
    Values(String),
}

/// What [`Reply::Classes`] is described as.
const CLASSES: &str = "classes";
const SCORES: &str = "scores";

fn is_float(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64)
}

fn gives(signature: &Signature) -> String {
    let outputs: Vec<_> = signature.outputs.iter().map(ToString::to_string).collect();
    outputs.join(", ")
}

impl Reply {
    /// Of a model with one output of scores `[n, classes]`, and perhaps one of labels.
    pub(super) fn classes(signature: &Signature) -> Result<Self, NestedError> {
        let (floats, others): (Vec<_>, Vec<_>) = signature.outputs.iter().partition(|o| is_float(o.datatype));
        match (&*floats, &*others) {
            ([scores], [] | [_]) if scores.shape.len() == 2 => {
                Ok(Self::Classes { labels: others.first().map(|o| o.name.clone()), scores: scores.name.clone() })
            }
            _ => form(format!(
                "the model is no classifier: it gives {}; :classify is for one output of scores [n, classes] and at most one of labels. Use :predict",
                gives(signature)
            )),
        }
    }

    /// Of a model with one output of floats, `[n]` or `[n, 1]`.
    pub(super) fn values(signature: &Signature) -> Result<Self, NestedError> {
        let mut floats = signature.outputs.iter().filter(|o| is_float(o.datatype));
        match (floats.next(), floats.next()) {
            (Some(only), None) if matches!(*only.shape, [_] | [_, 1]) => Ok(Self::Values(only.name.clone())),
            _ => form(format!(
                "the model is no regressor: it gives {}; :regress is for one output of floats, one value a row. Use :predict",
                gives(signature)
            )),
        }
    }

    /// The outputs that it takes; all if there are none.
    pub fn outputs(&self) -> Vec<String> {
        match self {
            Self::Predictions | Self::Outputs => Vec::new(),
            Self::Classes { labels, scores } => labels.iter().chain([scores]).cloned().collect(),
            Self::Values(name) => vec![name.clone()],
        }
    }

    /// The answer, and what is in it, for those who read it without knowing the model ([`read_answer`]).
    ///
    /// # Errors
    /// If rows were asked for, and the outputs are not by row; if labels and scores do not belong together.
    pub fn write(&self, outputs: &[Tensor]) -> Result<(Vec<u8>, Vec<TensorSpec>), NestedError> {
        let find = |name: &str| match outputs.iter().find(|o| o.name == name) {
            Some(output) => Ok(output),
            None => form(format!("the model gave no output `{name}`")),
        };
        let mut body = Vec::new();
        let described = match self {
            Self::Predictions => {
                body.extend_from_slice(b"{\"predictions\":");
                nested::write_rows(&mut body, outputs)?;
                nested::describe(outputs)
            }
            Self::Outputs => {
                body.extend_from_slice(b"{\"outputs\":");
                nested::write_columns(&mut body, outputs);
                nested::describe(outputs)
            }
            Self::Values(name) => {
                let output = find(name)?;
                body.extend_from_slice(b"{\"results\":");
                let flat = Tensor { name: name.clone(), shape: vec![output.data.len()], data: output.data.clone() };
                nested::write_rows(&mut body, std::slice::from_ref(&flat))?;
                nested::describe([&flat])
            }
            Self::Classes { labels, scores } => {
                let labels = labels.as_deref().map(find).transpose()?;
                body.extend_from_slice(b"{\"results\":");
                write_classes(&mut body, labels, find(scores)?)?
            }
        };
        body.push(b'}');
        Ok((body, described))
    }
}

fn write_classes(body: &mut Vec<u8>, labels: Option<&Tensor>, scores: &Tensor) -> Result<Vec<TensorSpec>, NestedError> {
    let [rows, classes] = *scores.shape else { return form("the scores are not by row and class") };
    let (values, names) = (floats(&scores.data), labels.map(|labels| words(&labels.data)));
    let of_row = |row: usize| values.get(row * classes..(row + 1) * classes).unwrap_or_default();
    // As many labels as scores: each has its own. One a row: it is that of the highest score.
    let each = match &names {
        None => true,
        Some(names) if names.len() == values.len() => true,
        Some(names) if names.len() == rows => false,
        Some(names) => return form(format!("{} labels do not belong to scores {:?}", names.len(), scores.shape)),
    };
    body.push(b'[');
    for row in 0..rows {
        body.extend_from_slice(if row == 0 { b"[" } else { b",[" });
        let highest = || of_row(row).iter().copied().fold(f64::NAN, f64::max);
        let pairs = if each { of_row(row).to_vec() } else { vec![highest()] };
        for (class, score) in pairs.into_iter().enumerate() {
            body.extend_from_slice(if class == 0 { b"[" } else { b",[" });
            let place = if each { row * classes + class } else { row };
            match &names {
                Some(names) => nested::text(body, names.get(place).map_or("", String::as_str)),
                None => nested::text(body, &class.to_string()),
            }
            body.push(b',');
            match scores.datatype() {
                Datatype::Fp64 => nested::double(body, score),
                #[expect(clippy::cast_possible_truncation, reason = "it was one before")]
                _ => nested::single(body, score as f32),
            }
            body.push(b']');
        }
        body.push(b']');
    }
    body.push(b']');
    let shape = signed(&[rows, if each { classes } else { 1 }]);
    let spec = |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: shape.clone() };
    Ok(vec![spec(CLASSES, Datatype::Bytes), spec(SCORES, Datatype::Fp64)])
}

fn floats(data: &TensorData) -> Vec<f64> {
    match data {
        TensorData::Fp16(values) => values.iter().map(|v| v.to_f64()).collect(),
        TensorData::Bf16(values) => values.iter().map(|v| v.to_f64()).collect(),
        TensorData::Fp32(values) => values.iter().copied().map(f64::from).collect(),
        TensorData::Fp64(values) => values.clone(),
        _ => Vec::new(),
    }
}

fn words(data: &TensorData) -> Vec<String> {
    macro_rules! displayed {
        ($($kind:ident),*) => {
            match data {
                $(TensorData::$kind(values) => values.iter().map(ToString::to_string).collect(),)*
                TensorData::Bytes(values) => values.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect(),
            }
        };
    }
    displayed!(Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64)
}

/// The tensors of an answer that [`Reply::write`] wrote and described.
///
/// # Errors
/// If it is another one.
pub fn read_answer(body: &[u8], described: &[TensorSpec]) -> Result<Vec<Tensor>, NestedError> {
    let text = nested::strict(body)?;
    let members: Members<'_> = serde_json::from_str(&text)?;
    let value = ["predictions", "outputs", "results"].into_iter().find_map(|key| Some((key, members.get(key)?)));
    match (value, described) {
        (Some(("results", results)), [classes, scores]) => read_classes(results.get(), classes, scores),
        (Some((_, value)), _) => nested::described(value.get(), described),
        (None, _) => form("it is no answer of the protocol"),
    }
}

fn read_classes(text: &str, classes: &TensorSpec, scores: &TensorSpec) -> Result<Vec<Tensor>, NestedError> {
    let rows: Vec<Vec<(&RawValue, &RawValue)>> = serde_json::from_str(text)?;
    let list = |of: fn(&(&RawValue, &RawValue)) -> String| {
        format!("[{}]", rows.iter().flatten().map(of).collect::<Vec<_>>().join(","))
    };
    let (labels, values) = (list(|pair| pair.0.get().to_owned()), list(|pair| pair.1.get().to_owned()));
    let read = |text: &str, spec: &TensorSpec| nested::described(text, std::slice::from_ref(spec));
    Ok([read(&labels, classes)?, read(&values, scores)?].concat())
}
