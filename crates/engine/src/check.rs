//! Checks what a caller sends against the signature, before an engine sees it.

use modelyard_core::{Signature, TensorSpec};
use modelyard_protocol::Tensor;

use crate::error::InferError;

/// The inputs in the order of the signature.
///
/// `unranked` names inputs whose shape the model leaves open altogether: theirs is not checked.
///
/// # Errors
/// If one is missing, unknown, given twice, or of another datatype or shape than the model's.
pub fn inputs(signature: &Signature, unranked: &[String], mut given: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
    let mut ordered = Vec::with_capacity(signature.inputs.len());
    for spec in &signature.inputs {
        let at = given.iter().position(|t| t.name == spec.name);
        let at = at.ok_or_else(|| {
            bad(format!("input `{}` is missing: the model takes {}", spec.name, names(&signature.inputs)))
        })?;
        let tensor = given.swap_remove(at);
        matches(spec, &tensor, unranked.contains(&spec.name))?;
        ordered.push(tensor);
    }
    match given.first() {
        None => Ok(ordered),
        Some(tensor) if signature.inputs.iter().any(|s| s.name == tensor.name) => {
            Err(bad(format!("input `{}` is given twice", tensor.name)))
        }
        Some(tensor) => {
            Err(bad(format!("there is no input `{}`: the model takes {}", tensor.name, names(&signature.inputs))))
        }
    }
}

/// The places, in the signature, of the outputs wanted; all if `wanted` is empty.
///
/// # Errors
/// If the model has no such output, or one is wanted twice: engines differ in what they make of that.
pub fn outputs(signature: &Signature, wanted: &[String]) -> Result<Vec<usize>, InferError> {
    if wanted.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut places = Vec::new();
    for name in wanted {
        let place = signature.outputs.iter().position(|s| s.name == *name).ok_or_else(|| {
            bad(format!("there is no output `{name}`: the model gives {}", names(&signature.outputs)))
        })?;
        if places.contains(&place) {
            return Err(bad(format!("output `{name}` is wanted twice")));
        }
        places.push(place);
    }
    Ok(places)
}

fn matches(spec: &TensorSpec, tensor: &Tensor, unranked: bool) -> Result<(), InferError> {
    if tensor.datatype() != spec.datatype {
        return Err(bad(format!("input `{}` must be {}, not {}", spec.name, spec.datatype, tensor.datatype())));
    }
    let fits = |(want, have): (&i64, &usize)| *want < 0 || usize::try_from(*want) == Ok(*have);
    let same = spec.shape.len() == tensor.shape.len() && spec.shape.iter().zip(&tensor.shape).all(fits);
    if !unranked && !same {
        return Err(bad(format!(
            "input `{}` must have shape {:?} (-1 is any), not {:?}",
            spec.name, spec.shape, tensor.shape
        )));
    }
    let elements = tensor.shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    if elements != Some(tensor.data.len()) {
        return Err(bad(format!(
            "input `{}` of shape {:?} has {} elements",
            spec.name,
            tensor.shape,
            tensor.data.len()
        )));
    }
    Ok(())
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn bad(message: String) -> InferError {
    InferError::BadInput(message)
}

#[cfg(test)]
mod tests {
    use modelyard_core::Datatype;
    use modelyard_protocol::TensorData;

    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("sr", Datatype::Int64, &[])],
            outputs: vec![spec("y", Datatype::Fp32, &[-1]), spec("z", Datatype::Fp32, &[-1])],
        }
    }

    fn x(shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        Tensor { name: "x".into(), shape: shape.to_vec(), data: TensorData::Fp32(vec![0.0; count]) }
    }

    fn sr() -> Tensor {
        Tensor { name: "sr".into(), shape: vec![], data: TensorData::Int64(vec![16000]) }
    }

    #[test]
    fn inputs_come_out_in_the_order_of_the_signature() {
        assert_eq!(inputs(&signature(), &[], vec![sr(), x(&[3, 2])]), Ok(vec![x(&[3, 2]), sr()]));
        assert_eq!(inputs(&signature(), &["x".into()], vec![sr(), x(&[3])]), Ok(vec![x(&[3]), sr()]));
    }

    #[test]
    fn inputs_that_are_not_the_models_are_refused_by_name() {
        let refused = |given| inputs(&signature(), &[], given).unwrap_err().to_string();
        let takes = "the model takes x FP32 [-1, 2], sr INT64 []";
        assert_eq!(refused(vec![x(&[1, 2])]), format!("input `sr` is missing: {takes}"));
        assert_eq!(refused(vec![x(&[1, 2]), sr(), sr()]), "input `sr` is given twice");
        let other = Tensor { name: "q".into(), ..sr() };
        assert_eq!(refused(vec![x(&[1, 2]), sr(), other]), format!("there is no input `q`: {takes}"));
        assert_eq!(refused(vec![x(&[2]), sr()]), "input `x` must have shape [-1, 2] (-1 is any), not [2]");
        assert_eq!(refused(vec![x(&[1, 3]), sr()]), "input `x` must have shape [-1, 2] (-1 is any), not [1, 3]");
        let wrong = Tensor { data: TensorData::Int32(vec![0, 0]), ..x(&[1, 2]) };
        assert_eq!(refused(vec![wrong, sr()]), "input `x` must be FP32, not INT32");
        let short = Tensor { data: TensorData::Fp32(vec![0.0]), ..x(&[1, 2]) };
        assert_eq!(refused(vec![short, sr()]), "input `x` of shape [1, 2] has 1 elements");
    }

    #[test]
    fn outputs_are_found_by_name() {
        assert_eq!(outputs(&signature(), &[]), Ok(vec![0, 1]));
        assert_eq!(outputs(&signature(), &["z".into()]), Ok(vec![1]));
        assert_eq!(
            outputs(&signature(), &["q".into()]).unwrap_err().to_string(),
            "there is no output `q`: the model gives y FP32 [-1], z FP32 [-1]"
        );
        assert_eq!(
            outputs(&signature(), &["z".into(), "y".into(), "z".into()]).unwrap_err().to_string(),
            "output `z` is wanted twice"
        );
    }
}
