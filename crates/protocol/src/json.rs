//! Tensor data as JSON: nested or flat arrays in, flat arrays out.
//!
//! Reads text that is known to be valid JSON, element by element, straight into typed vectors: building a tree of
//! values first would cost several times as much as most small models do. Floats that JSON has no number for are the
//! strings "NaN", "Infinity" and "-Infinity", as in the JSON form of protocol buffers.

use std::str::FromStr;

use modelyard_core::Datatype;
use serde::ser::{Error as _, Serialize, SerializeSeq as _, Serializer};

use crate::tensor::{TensorData, TensorError, elements};

/// Reads `data` as elements of `datatype`.
///
/// # Errors
/// If they do not match `shape` × `datatype`, or the datatype has no JSON form.
pub(crate) fn decode(data: &str, datatype: Datatype, shape: &[usize]) -> Result<TensorData, TensorError> {
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(read(data, shape, "true or false", boolean)?),
        Datatype::Uint8 => TensorData::Uint8(read(data, shape, "an integer from 0 to 255", integer)?),
        Datatype::Uint16 => TensorData::Uint16(read(data, shape, "an integer from 0 to 65535", integer)?),
        Datatype::Uint32 => TensorData::Uint32(read(data, shape, "an integer that fits UINT32", integer)?),
        Datatype::Uint64 => TensorData::Uint64(read(data, shape, "an integer that fits UINT64", integer)?),
        Datatype::Int8 => TensorData::Int8(read(data, shape, "an integer from -128 to 127", integer)?),
        Datatype::Int16 => TensorData::Int16(read(data, shape, "an integer from -32768 to 32767", integer)?),
        Datatype::Int32 => TensorData::Int32(read(data, shape, "an integer that fits INT32", integer)?),
        Datatype::Int64 => TensorData::Int64(read(data, shape, "an integer that fits INT64", integer)?),
        Datatype::Fp32 => TensorData::Fp32(read(data, shape, "a number that fits FP32", float::<f32>)?),
        Datatype::Fp64 => TensorData::Fp64(read(data, shape, "a number that fits FP64", float::<f64>)?),
        Datatype::Bytes => TensorData::Bytes(read(data, shape, "a string", string)?),
        Datatype::Fp16 | Datatype::Bf16 => return Err(TensorError::NoJsonForm(datatype)),
    })
}

fn boolean(token: &str) -> Option<bool> {
    match token {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Takes `3.0` and `3e2` too: some clients write every number so.
fn integer<T: FromStr + TryFrom<i64>>(token: &str) -> Option<T> {
    if let Ok(value) = token.parse() {
        return Some(value);
    }
    let value: f64 = token.parse().ok()?;
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
    if exact && token.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        T::try_from(value as i64).ok()
    } else {
        None
    }
}

trait Float: FromStr + Copy {
    const NAN: Self;
    const INFINITY: Self;
    const NEG_INFINITY: Self;
    fn is_finite(self) -> bool;
}

macro_rules! float {
    ($t:ident) => {
        impl Float for $t {
            const NAN: Self = $t::NAN;
            const INFINITY: Self = $t::INFINITY;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            fn is_finite(self) -> bool {
                self.is_finite()
            }
        }
    };
}
float!(f32);
float!(f64);

fn float<T: Float>(token: &str) -> Option<T> {
    match token {
        "\"NaN\"" => Some(T::NAN),
        "\"Infinity\"" => Some(T::INFINITY),
        "\"-Infinity\"" => Some(T::NEG_INFINITY),
        _ => token.parse().ok().filter(|value: &T| value.is_finite()),
    }
}

fn string(token: &str) -> Option<Vec<u8>> {
    serde_json::from_str::<String>(token).ok().map(String::into_bytes)
}

/// Walks the arrays of `text`, which is valid JSON.
struct Reader<'a, T> {
    text: &'a str,
    at: usize,
    shape: &'a [usize],
    expected: &'static str,
    element: fn(&str) -> Option<T>,
    values: Vec<T>,
}

pub(crate) fn read<T>(
    text: &str,
    shape: &[usize],
    expected: &'static str,
    element: fn(&str) -> Option<T>,
) -> Result<Vec<T>, TensorError> {
    let count = elements(shape)?;
    // The shape is the sender's word; its data takes at least two bytes an element.
    let values = Vec::with_capacity(count.min(text.len() / 2 + 1));
    let mut reader = Reader { text, at: 0, shape, expected, element, values };
    reader.tensor()?;
    if reader.values.len() == count {
        Ok(reader.values)
    } else {
        Err(TensorError::Count { shape: shape.to_vec(), expected: count, found: reader.values.len() })
    }
}

impl<T> Reader<'_, T> {
    fn tensor(&mut self) -> Result<(), TensorError> {
        if self.peek() != b'[' {
            // The one element of a scalar.
            return if self.shape.is_empty() { self.element() } else { Err(self.nesting("it is no array")) };
        }
        let start = self.at;
        self.at += 1;
        let nested = self.peek() == b'[' && self.shape.len() > 1;
        self.at = start;
        if nested { self.array(0) } else { self.flat() }
    }

    fn flat(&mut self) -> Result<(), TensorError> {
        self.at += 1;
        while self.more() {
            if self.peek() == b'[' {
                return Err(self.nesting(&format!("it is nested deeper, at element {}", self.values.len())));
            }
            self.element()?;
        }
        Ok(())
    }

    /// Reads the array of dimension `depth`; that it recurses is bounded by the rank, which [`MAX_RANK`] bounds.
    ///
    /// [`MAX_RANK`]: crate::tensor::MAX_RANK
    fn array(&mut self, depth: usize) -> Result<(), TensorError> {
        self.at += 1;
        let mut found = 0;
        let inner = depth + 1 < self.shape.len();
        while self.more() {
            match (self.peek() == b'[', inner) {
                (true, true) => self.array(depth + 1)?,
                (false, false) => self.element()?,
                (true, false) => return Err(self.nesting(&format!("an array at depth {depth} holds arrays"))),
                (false, true) => return Err(self.nesting(&format!("an array at depth {depth} holds elements"))),
            }
            found += 1;
        }
        if found == self.shape[depth] {
            Ok(())
        } else {
            Err(self.nesting(&format!("an array at depth {depth} has length {found}, not {}", self.shape[depth])))
        }
    }

    /// Steps over what separates elements. `false` at the end of the array, which is stepped over too.
    fn more(&mut self) -> bool {
        loop {
            match self.peek() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return false;
                }
                _ => return true,
            }
        }
    }

    fn element(&mut self) -> Result<(), TensorError> {
        self.peek();
        let rest = &self.text[self.at..];
        let token = &rest[..token_length(rest.as_bytes())];
        let value = (self.element)(token).ok_or_else(|| TensorError::Element {
            index: self.values.len(),
            expected: self.expected,
            found: token.chars().take(40).collect(),
        })?;
        self.at += token.len();
        self.values.push(value);
        Ok(())
    }

    /// The next byte that is no white space. Valid JSON does not end before this reader does.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(b']')
    }

    fn nesting(&self, problem: &str) -> TensorError {
        TensorError::Nesting { shape: self.shape.to_vec(), problem: problem.to_owned() }
    }
}

/// The length of the string, number, literal or object that `bytes` starts with. Few readers take objects for elements:
/// the others refuse them in words.
pub(crate) fn token_length(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(b'"') => {
            let mut at = 1;
            while let Some(byte) = bytes.get(at) {
                match byte {
                    b'\\' => at += 2,
                    b'"' => return at + 1,
                    _ => at += 1,
                }
            }
            bytes.len()
        }
        Some(b'{') => object_length(bytes),
        _ => bytes
            .iter()
            .position(|b| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
            .unwrap_or(bytes.len()),
    }
}

fn object_length(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += token_length(&bytes[at..]) - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at.min(bytes.len());
        }
    }
    bytes.len()
}

impl Serialize for TensorData {
    /// One flat array.
    ///
    /// # Errors
    /// For FP16 and BF16, which have no JSON form, and BYTES that are not UTF-8.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(v) => v.serialize(serializer),
            Self::Uint8(v) => v.serialize(serializer),
            Self::Uint16(v) => v.serialize(serializer),
            Self::Uint32(v) => v.serialize(serializer),
            Self::Uint64(v) => v.serialize(serializer),
            Self::Int8(v) => v.serialize(serializer),
            Self::Int16(v) => v.serialize(serializer),
            Self::Int32(v) => v.serialize(serializer),
            Self::Int64(v) => v.serialize(serializer),
            Self::Fp32(v) => {
                let mut seq = serializer.serialize_seq(Some(v.len()))?;
                for value in v {
                    if value.is_finite() {
                        seq.serialize_element(value)?;
                    } else {
                        seq.serialize_element(not_finite(f64::from(*value)))?;
                    }
                }
                seq.end()
            }
            Self::Fp64(v) => {
                let mut seq = serializer.serialize_seq(Some(v.len()))?;
                for value in v {
                    if value.is_finite() {
                        seq.serialize_element(value)?;
                    } else {
                        seq.serialize_element(not_finite(*value))?;
                    }
                }
                seq.end()
            }
            Self::Bytes(v) => {
                let mut seq = serializer.serialize_seq(Some(v.len()))?;
                for value in v {
                    seq.serialize_element(std::str::from_utf8(value).map_err(S::Error::custom)?)?;
                }
                seq.end()
            }
            Self::Fp16(_) | Self::Bf16(_) => Err(S::Error::custom(TensorError::NoJsonForm(self.datatype()))),
        }
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_flat_data_mean_the_same() {
        let expected = Ok(TensorData::Fp32(vec![1.0, -2.5, 3.0, 4e2]));
        assert_eq!(decode("[[1, -2.5], [3, 4e2]]", Datatype::Fp32, &[2, 2]), expected);
        assert_eq!(decode("[1,-2.5,3,4e2]", Datatype::Fp32, &[2, 2]), expected);
        assert_eq!(decode(" [ [ [1] , [-2.5]],[[3],[4E2]] ] ", Datatype::Fp32, &[2, 2, 1]), expected);
    }

    #[test]
    fn scalars_and_empty_tensors_are_read() {
        assert_eq!(decode("16000", Datatype::Int64, &[]), Ok(TensorData::Int64(vec![16000])));
        assert_eq!(decode("[16000]", Datatype::Int64, &[]), Ok(TensorData::Int64(vec![16000])));
        assert_eq!(decode("[]", Datatype::Fp32, &[0, 4]), Ok(TensorData::Fp32(vec![])));
        assert_eq!(decode("[[],[]]", Datatype::Fp32, &[2, 0]), Ok(TensorData::Fp32(vec![])));
    }

    #[test]
    fn integers_and_strings_keep_their_exact_values() {
        assert_eq!(decode("[18446744073709551615]", Datatype::Uint64, &[1]), Ok(TensorData::Uint64(vec![u64::MAX])));
        assert_eq!(decode("[3.0, -2e1]", Datatype::Int8, &[2]), Ok(TensorData::Int8(vec![3, -20])));
        assert_eq!(
            decode(r#"["a\"],", "\u00e9"]"#, Datatype::Bytes, &[2]),
            Ok(TensorData::Bytes(vec![b"a\"],".to_vec(), "é".into()]))
        );
    }

    #[test]
    fn what_does_not_match_shape_and_datatype_is_refused_in_words() {
        let message =
            |data, datatype, shape: &[usize]| decode(data, datatype, shape).map_err(|e| e.to_string()).unwrap_err();
        let nesting = "its data must be nested as its shape [2, 2] says, or be one flat array";
        assert_eq!(
            message("[1,2,3]", Datatype::Fp32, &[2, 2]),
            "its shape [2, 2] needs 4 elements, but its data has 3"
        );
        assert_eq!(
            message("[[1,2],[3]]", Datatype::Fp32, &[2, 2]),
            format!("{nesting}: an array at depth 1 has length 1, not 2")
        );
        assert_eq!(
            message("[[1,2],3]", Datatype::Fp32, &[2, 2]),
            format!("{nesting}: an array at depth 0 holds elements")
        );
        assert_eq!(
            message("[[[1],2],[3,4]]", Datatype::Fp32, &[2, 2]),
            format!("{nesting}: an array at depth 1 holds arrays")
        );
        assert_eq!(message("7", Datatype::Fp32, &[2, 2]), format!("{nesting}: it is no array"));
        assert_eq!(
            message(r#"[1,"2"]"#, Datatype::Fp32, &[2]),
            "element 1 of its data must be a number that fits FP32, not \"2\""
        );
        assert_eq!(
            message("[300]", Datatype::Uint8, &[1]),
            "element 0 of its data must be an integer from 0 to 255, not 300"
        );
        assert_eq!(
            message("[2.5]", Datatype::Int32, &[1]),
            "element 0 of its data must be an integer that fits INT32, not 2.5"
        );
        assert_eq!(message("[1]", Datatype::Bool, &[1]), "element 0 of its data must be true or false, not 1");
        assert_eq!(
            message("[1e39]", Datatype::Fp32, &[1]),
            "element 0 of its data must be a number that fits FP32, not 1e39"
        );
        assert_eq!(
            message("[null]", Datatype::Fp32, &[1]),
            "element 0 of its data must be a number that fits FP32, not null"
        );
        assert_eq!(message("[{}]", Datatype::Bytes, &[1]), "element 0 of its data must be a string, not {}");
        assert_eq!(message("[1]", Datatype::Fp16, &[1]), "FP16 has no form in JSON: use FP32, or a binary protocol");
        assert!(message("[1]", Datatype::Fp32, &[usize::MAX, 2]).contains("too large"));
    }
}
