//! LabelEncoder and OneHotEncoder: from categories to numbers.

use std::collections::HashMap;

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::operators::{Kernel, Refusal, single};
use super::value::{Answer, Value, elements, pick, same_kind};

/// Places by key.
enum Places {
    Ints(HashMap<i64, usize>),
    Texts(HashMap<Vec<u8>, usize>),
    /// By the bits of the number, of which zero and NaN have one form each.
    Floats(HashMap<u64, usize>),
}

fn bits(x: f64) -> u64 {
    if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() }
}

impl Places {
    fn new(keys: &TensorData) -> Answer<Self> {
        // Of equal keys the first counts.
        fn map<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
            let mut places = HashMap::new();
            keys.enumerate().for_each(|(place, key)| {
                places.entry(key).or_insert(place);
            });
            places
        }
        match keys {
            TensorData::Int64(v) => Ok(Self::Ints(map(v.iter().copied()))),
            TensorData::Int32(v) => Ok(Self::Ints(map(v.iter().map(|k| i64::from(*k))))),
            TensorData::Bytes(v) => Ok(Self::Texts(map(v.iter().cloned()))),
            TensorData::Fp32(v) => Ok(Self::Floats(map(v.iter().map(|k| bits(f64::from(*k)))))),
            TensorData::Fp64(v) => Ok(Self::Floats(map(v.iter().map(|k| bits(*k))))),
            other => Err(format!("keys cannot be {}", other.datatype())),
        }
    }

    /// The place of each of `data`, or `absent`.
    fn find(&self, data: &TensorData, absent: usize) -> Answer<Vec<usize>> {
        let or = |place: Option<&usize>| place.copied().unwrap_or(absent);
        match (self, data) {
            (Self::Ints(map), TensorData::Int64(v)) => Ok(v.iter().map(|k| or(map.get(k))).collect()),
            (Self::Ints(map), TensorData::Int32(v)) => Ok(v.iter().map(|k| or(map.get(&i64::from(*k)))).collect()),
            (Self::Texts(map), TensorData::Bytes(v)) => Ok(v.iter().map(|k| or(map.get(k))).collect()),
            (Self::Floats(map), TensorData::Fp32(v)) => {
                Ok(v.iter().map(|k| or(map.get(&bits(f64::from(*k))))).collect())
            }
            (Self::Floats(map), TensorData::Fp64(v)) => Ok(v.iter().map(|k| or(map.get(&bits(*k)))).collect()),
            (_, other) => Err(format!("its keys are not {}", other.datatype())),
        }
    }
}

/// The list in whichever of the attributes `{what}_strings`, `_int64s`, `_floats` and `_tensor` is there.
fn list(a: &Attributes, what: &str) -> Answer<Option<TensorData>> {
    let [strings, ints, floats, tensor] =
        ["strings", "int64s", "floats", "tensor"].map(|kind| format!("{what}_{kind}"));
    if let Some(value) = a.tensor(&tensor) {
        return Ok(Some(value.data.clone()));
    }
    let found = [
        TensorData::Bytes(a.strings(&strings)?),
        TensorData::Int64(a.ints(&ints).to_vec()),
        TensorData::Fp32(a.floats(&floats).to_vec()),
    ];
    Ok(found.into_iter().find(|list| !list.is_empty()))
}

/// `values`, and behind them the one for what is no key.
fn with_default(a: &Attributes, values: TensorData) -> TensorData {
    let chosen = a.tensor("default_tensor").map(|value| &value.data);
    match (values, chosen) {
        (TensorData::Bytes(mut v), chosen) => {
            let text = a.string("default_string").unwrap_or(b"_Unused").to_vec();
            let of_tensor = chosen.and_then(|c| if let TensorData::Bytes(c) = c { c.first().cloned() } else { None });
            v.push(of_tensor.unwrap_or(text));
            TensorData::Bytes(v)
        }
        (TensorData::Int64(mut v), chosen) => {
            let of_tensor = chosen.and_then(|c| if let TensorData::Int64(c) = c { c.first().copied() } else { None });
            v.push(of_tensor.or(a.int("default_int64")).unwrap_or(-1));
            TensorData::Int64(v)
        }
        (TensorData::Fp32(mut v), chosen) => {
            let of_tensor = chosen.and_then(|c| if let TensorData::Fp32(c) = c { c.first().copied() } else { None });
            v.push(of_tensor.or(a.float("default_float")).unwrap_or(-0.0));
            TensorData::Fp32(v)
        }
        (TensorData::Fp64(mut v), chosen) => {
            let of_tensor = chosen.and_then(|c| if let TensorData::Fp64(c) = c { c.first().copied() } else { None });
            v.push(of_tensor.unwrap_or(-0.0));
            TensorData::Fp64(v)
        }
        (values, _) => same_kind!(values, v => {
            let mut v = v;
            v.push(Default::default());
            v
        }),
    }
}

pub(super) fn label_encoder(a: &Attributes) -> Result<Kernel, Refusal> {
    if a.has("classes_strings") {
        return Err(Refusal::Lacks("it is of ai.onnx.ml version 1 (classes_strings)".into()));
    }
    let keys = list(a, "keys")?.ok_or("it has no keys")?;
    let values = list(a, "values")?.ok_or("it has no values")?;
    if keys.len() != values.len() {
        return Err(format!("it has {} keys, but {} values", keys.len(), values.len()).into());
    }
    let (absent, places, values) = (values.len(), Places::new(&keys)?, with_default(a, values));
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        Value::new(x.shape.clone(), pick(&values, &places.find(&x.data, absent)?)?)
    }))
}

/// X of shape […] becomes […, categories], with a 1 for the category that it is.
pub(super) fn one_hot(a: &Attributes) -> Result<Kernel, Refusal> {
    let (ints, strings) = (a.ints("cats_int64s").to_vec(), a.strings("cats_strings")?);
    let categories = if ints.is_empty() { TensorData::Bytes(strings) } else { TensorData::Int64(ints) };
    let count = categories.len();
    if count == 0 {
        return Err("it has no categories".into());
    }
    let places = Places::new(&categories)?;
    let zeros = a.int("zeros").unwrap_or(1) != 0;
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let mut shape = x.shape.clone();
        shape.push(count);
        let mut y = vec![0.0; elements(&shape)?];
        #[expect(clippy::cast_possible_truncation, reason = "the specification has numbers cast to integers")]
        let found = match (&places, &x.data) {
            (Places::Ints(_), TensorData::Fp32(v)) => {
                places.find(&TensorData::Int64(v.iter().map(|x| *x as i64).collect()), count)?
            }
            (Places::Ints(_), TensorData::Fp64(v)) => {
                places.find(&TensorData::Int64(v.iter().map(|x| *x as i64).collect()), count)?
            }
            _ => places.find(&x.data, count)?,
        };
        for (row, place) in y.chunks_exact_mut(count).zip(found) {
            match row.get_mut(place) {
                Some(one) => *one = 1.0,
                None if zeros => {}
                None => return Err("a category is unknown".into()),
            }
        }
        Value::new(shape, TensorData::Fp32(y))
    }))
}
