//! Bodies of `:predict`, `:classify` and `:regress`, as the inputs of a model whose signature is known.

use std::borrow::Cow;
use std::collections::BTreeMap;

use modelyard_core::{Signature, TensorSpec};
use serde_json::value::RawValue;

use super::{Reply, SIGNATURE, Verb};
use crate::nested::{self, Members, NestedError, form};
use crate::tensor::{Tensor, elements};

/// What a request comes to.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub inputs: Vec<Tensor>,
    pub reply: Reply,
}

/// Reads a request. Members that the protocol does not know are passed over, as TF Serving does.
///
/// # Errors
/// If it is not of the protocol's form, names what the model does not have, or its values do not fit their datatypes.
/// That shapes fit is left to the engine.
pub fn read(verb: Verb, body: &[u8], signature: &Signature) -> Result<Asked, NestedError> {
    let text = nested::strict(body)?;
    let members: Members<'_> = serde_json::from_str(&text)?;
    if let Some(asked) = members.get("signature_name") {
        let asked: Cow<'_, str> = serde_json::from_str(asked.get())?;
        if !asked.is_empty() && asked != SIGNATURE {
            return form(format!("there is no signature `{asked}`: the model has `{SIGNATURE}`"));
        }
    }
    if verb == Verb::Predict {
        return predict(&members, &signature.inputs);
    }
    // First of all: whether the model can be asked so at all.
    let reply = if verb == Verb::Classify { Reply::classes(signature)? } else { Reply::values(signature)? };
    Ok(Asked { inputs: examples(&members, &signature.inputs)?, reply })
}

fn predict(members: &Members<'_>, specs: &[TensorSpec]) -> Result<Asked, NestedError> {
    match (members.get("instances"), members.get("inputs")) {
        (Some(rows), None) => {
            Ok(Asked { inputs: nested::rows(rows.get(), specs, "instances")?, reply: Reply::Predictions })
        }
        (None, Some(columns)) => Ok(Asked { inputs: nested::columns(columns.get(), specs)?, reply: Reply::Outputs }),
        (Some(_), Some(_)) => form("the body has both `instances` (rows) and `inputs` (columns): use one of them"),
        (None, None) => {
            form("the body needs `instances` (a list of rows) or `inputs` (a tensor, or an object of tensors)")
        }
    }
}

/// Each feature is a value or a flat list, and has the shape of a row of the input of its name.
fn examples(members: &Members<'_>, specs: &[TensorSpec]) -> Result<Vec<Tensor>, NestedError> {
    let Some(examples) = members.get("examples") else { return form("the body needs `examples`, a list of objects") };
    let rows: Vec<&RawValue> = serde_json::from_str(examples.get())?;
    if rows.is_empty() {
        return form("examples is empty");
    }
    let mut features = nested::by_name(&rows, "examples")?;
    if let Some(context) = members.get("context") {
        let context: Members<'_> = serde_json::from_str(context.get())?;
        for (name, value) in context {
            let list = format!("[{}]", vec![value.get(); rows.len()].join(","));
            if features.insert(name.to_string(), list).is_some() {
                return form(format!("`{name}` is in `context` and in `examples`: leave one of them out"));
            }
        }
    }
    read_features(&features, specs, rows.len())
}

fn read_features(
    features: &BTreeMap<String, String>,
    specs: &[TensorSpec],
    rows: usize,
) -> Result<Vec<Tensor>, NestedError> {
    let read = |(name, list): (&String, &String)| {
        let spec = nested::find(name, specs)?;
        let values: Vec<&RawValue> = serde_json::from_str(list)?;
        let flat: Vec<_> = values.iter().map(|value| nested::flat(value.get())).collect();
        let width = flat.first().map_or(0, |(width, _)| *width);
        if let Some((place, (other, _))) = flat.iter().enumerate().find(|(_, (other, _))| *other != width) {
            return form(format!("`{name}` has {other} values in examples[{place}], and {width} in the first one"));
        }
        let row = spec.shape.get(1..).unwrap_or_default();
        let shape: Vec<usize> = std::iter::once(rows).chain(shaped(row, width)).collect();
        if elements(&shape) != Ok(rows * width) {
            return form(format!("`{name}` has {width} values an example, and the model takes {spec}"));
        }
        let texts: Vec<_> = flat.into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()).collect();
        nested::of_shape(&format!("[{}]", texts.join(",")), spec, shape)
    };
    features.iter().map(read).collect()
}

/// The shape of a row that has so many values: its one free dimension is what is left.
fn shaped(row: &[i64], width: usize) -> Vec<usize> {
    let known: Vec<usize> = row.iter().filter_map(|d| usize::try_from(*d).ok()).collect();
    let mut left = elements(&known).ok().and_then(|known| width.checked_div(known));
    row.iter().map(|d| usize::try_from(*d).unwrap_or_else(|_| left.take().unwrap_or(1))).collect()
}
