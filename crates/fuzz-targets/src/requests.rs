//! Requests of the Open Inference Protocol: as JSON, with tensors as bytes behind it, and as nothing but bytes.

use modelyard_core::{Datatype, TensorSpec};
use modelyard_protocol::{InferRequest, InferResponse, Tensor, TensorData, binary};
use serde_json::Value;

use crate::assert_same;

/// Elements match the shape, which is nothing that any reader may leave to the next.
pub(crate) fn assert_whole(tensors: &[Tensor]) {
    for tensor in tensors {
        let empty = tensor.shape.contains(&0);
        let count = tensor.shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        assert_eq!(if empty { Some(0) } else { count }, Some(tensor.data.len()), "{:?}", tensor.shape);
        assert!(tensor.shape.len() <= 64, "{:?}", tensor.shape);
    }
}

/// Whether all tensors have a form in JSON.
fn has_json(tensors: &[Tensor]) -> bool {
    tensors.iter().all(|tensor| match &tensor.data {
        TensorData::Fp16(_) | TensorData::Bf16(_) => false,
        TensorData::Bytes(strings) => strings.iter().all(|string| std::str::from_utf8(string).is_ok()),
        _ => true,
    })
}

fn request(request: &InferRequest) {
    assert_whole(&request.inputs);
    let encoded = request.to_binary().expect("parameters of a request have a form in JSON");
    let again = InferRequest::decode(&encoded.body, encoded.json_length).expect("what was written is read");
    assert_same(&again, request);
    match request.to_json() {
        Ok(text) => assert_same(&InferRequest::from_json(&text).expect("what was written is read"), request),
        Err(_) => assert!(!has_json(&request.inputs)),
    }
    for tensor in &request.inputs {
        let _ = request.wants_binary(&tensor.name);
        if let Some(rows) = tensor.rows() {
            let joined = Tensor::join([tensor, tensor]).expect("a tensor joins itself");
            assert_whole(std::slice::from_ref(&joined));
            let parts = joined.split(&[rows, rows]).expect("what was joined is split");
            assert_same(&parts, &vec![tensor.clone(), tensor.clone()]);
        }
    }
}

fn response(response: &InferResponse) {
    assert_whole(&response.outputs);
    let encoded = response.encode(|_| true).expect("parameters of a response have a form in JSON");
    let again = InferResponse::decode(&encoded.body, encoded.json_length).expect("what was written is read");
    assert_same(&again, response);
}

/// A body of JSON.
pub(crate) fn json(body: &[u8]) {
    if let Ok(read) = InferRequest::from_json(body) {
        request(&read);
    }
    if let Ok(read) = InferResponse::from_json(body) {
        response(&read);
    }
}

/// Two bytes that say how much of the body is JSON, and the body.
pub(crate) fn binary(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    if let Ok(read) = InferRequest::decode(body, Some(length)) {
        request(&read);
    }
    if let Ok(read) = InferResponse::decode(body, Some(length)) {
        response(&read);
    }
}

pub(crate) const DATATYPES: [Datatype; 14] = [
    Datatype::Bool,
    Datatype::Uint8,
    Datatype::Uint16,
    Datatype::Uint32,
    Datatype::Uint64,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::Fp16,
    Datatype::Fp32,
    Datatype::Fp64,
    Datatype::Bf16,
    Datatype::Bytes,
];

/// A datatype and up to 15 dimensions, by one byte each, and what is left.
fn head(bytes: &[u8]) -> Option<(Datatype, Vec<i64>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let datatype = DATATYPES[usize::from(first & 0x0f) % DATATYPES.len()];
    let (dimensions, rest) = rest.split_at_checked(usize::from(first >> 4))?;
    // -1 and 0 are worth as much trying as are sizes.
    let shape = dimensions.iter().map(|d| i64::from(d.cast_signed()).max(-1)).collect();
    Some((datatype, shape, rest))
}

/// Data of one tensor as JSON, after its datatype and shape.
pub(crate) fn json_tensor(bytes: &[u8]) {
    let Some((datatype, shape, data)) = head(bytes) else { return };
    let Ok(data) = std::str::from_utf8(data) else { return };
    let shape_text: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let body = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[{}],"data":{data}}}]}}"#,
        shape_text.join(",")
    );
    let Ok(read) = InferRequest::from_json(body.as_bytes()) else { return };
    request(&read);
    // Data may close the tensor and open another; what is one tensor is read a second time, by way of a tree.
    let Ok(tree) = serde_json::from_str::<Value>(data) else { return };
    let [tensor] = read.inputs.as_slice() else { panic!("one tensor was given") };
    let mut leaves = Vec::new();
    flatten(&tree, &mut leaves);
    assert_eq!(leaves.len(), tensor.data.len());
    for (place, leaf) in leaves.into_iter().enumerate() {
        assert!(is_same(leaf, &tensor.data, place), "element {place} is {leaf}, and was read otherwise");
    }
}

fn flatten<'v>(value: &'v Value, leaves: &mut Vec<&'v Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, leaves)),
        leaf => leaves.push(leaf),
    }
}

/// Whether an element is what it was as JSON. Rounding of floats is not looked at.
fn is_same(leaf: &Value, data: &TensorData, place: usize) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "written with a point, integers are exact below 2^53 only")]
    let signed = |value: i64| leaf.as_i64() == Some(value) || leaf.as_f64() == Some(value as f64);
    match data {
        TensorData::Bool(v) => leaf.as_bool() == Some(v[place]),
        TensorData::Uint8(v) => signed(v[place].into()),
        TensorData::Uint16(v) => signed(v[place].into()),
        TensorData::Uint32(v) => signed(v[place].into()),
        TensorData::Uint64(v) => leaf.as_u64() == Some(v[place]) || i64::try_from(v[place]).is_ok_and(signed),
        TensorData::Int8(v) => signed(v[place].into()),
        TensorData::Int16(v) => signed(v[place].into()),
        TensorData::Int32(v) => signed(v[place].into()),
        TensorData::Int64(v) => signed(v[place]),
        TensorData::Fp32(_) | TensorData::Fp64(_) => {
            leaf.is_number() || matches!(leaf.as_str(), Some("NaN" | "Infinity" | "-Infinity"))
        }
        TensorData::Bytes(v) => leaf.as_str().map(str::as_bytes) == Some(&v[place]),
        TensorData::Fp16(_) | TensorData::Bf16(_) => false,
    }
}

/// A body that is one tensor, after the datatype and shape that the model's input has.
pub(crate) fn raw(bytes: &[u8]) {
    let Some((datatype, shape, body)) = head(bytes) else { return };
    let spec = TensorSpec { name: "x".into(), datatype, shape: shape.clone() };
    let Ok(tensor) = binary::raw_input(body, std::slice::from_ref(&spec)) else { return };
    assert_whole(std::slice::from_ref(&tensor));
    assert_eq!(tensor.datatype(), datatype);
    if datatype != Datatype::Bytes {
        let fits = |(want, have): (&i64, &usize)| *want < 0 || usize::try_from(*want) == Ok(*have);
        assert!(shape.len() == tensor.shape.len() && shape.iter().zip(&tensor.shape).all(fits), "{:?}", tensor.shape);
    }
    let mut written = Vec::new();
    binary::write(&tensor.data, &mut written);
    assert_eq!(written.len(), binary::byte_len(&tensor.data));
    let again = binary::from_bytes(&written, datatype, &tensor.shape).expect("what was written is read");
    assert_same(&again, &tensor.data);
}
