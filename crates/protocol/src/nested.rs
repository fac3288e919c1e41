//! Tensors as nested arrays that say neither datatype nor shape, as clients of TF Serving and TorchServe write them: the
//! datatype is the model's, the shape that of the arrays. Knows neither protocol.
//!
//! JSON has no numbers for what is not finite; these clients write `NaN`, `Infinity` and `-Infinity` all the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use modelyard_core::{Datatype, TensorSpec};
use serde_json::value::RawValue;

use crate::json;
use crate::tensor::{MAX_RANK, Tensor, TensorData, TensorError, elements, signed};

/// Why a body is no request (or answer) of one of these protocols.
#[derive(Debug, thiserror::Error)]
pub enum NestedError {
    #[error("the body is not UTF-8")]
    Utf8,
    #[error("the body is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Form(String),
    #[error("`{name}`: {problem}")]
    Tensor { name: String, problem: TensorError },
    #[error("`{name}`: its rows must be alike, as the first one is: {problem}")]
    Ragged { name: String, problem: String },
}

/// The members of an object, as text.
pub(crate) type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

pub(crate) fn form<T>(problem: impl Into<String>) -> Result<T, NestedError> {
    Err(NestedError::Form(problem.into()))
}

/// The body as JSON that any parser reads: numbers that JSON has no form for become strings.
pub(crate) fn strict(body: &[u8]) -> Result<Cow<'_, str>, NestedError> {
    let text = std::str::from_utf8(body).map_err(|_| NestedError::Utf8)?;
    if !body.iter().any(|byte| matches!(byte, b'N' | b'I')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut quoted = String::with_capacity(text.len() + 16);
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(byte) = body.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' if !in_string => {
                // What is before and behind a token is ASCII, or the text is no JSON, which the parser tells.
                let (begin, length, name) = not_finite(text, at).unwrap_or((at, 0, ""));
                if length > 0 {
                    quoted.push_str(&text[copied..begin]);
                    quoted.push_str(name);
                    copied = begin + length;
                    at = copied - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    quoted.push_str(&text[copied..]);
    Ok(Cow::Owned(quoted))
}

/// The token at `at`, with its sign: where it begins, how long it is, and its name as a string of JSON.
fn not_finite(text: &str, at: usize) -> Option<(usize, usize, &'static str)> {
    let rest = text.get(at..)?;
    let minus = at > 0 && text.as_bytes().get(at - 1) == Some(&b'-');
    for (token, name, negative) in [
        ("NaN", "\"NaN\"", "\"NaN\""),
        ("Infinity", "\"Infinity\"", "\"-Infinity\""),
        ("Inf", "\"Infinity\"", "\"-Infinity\""),
    ] {
        if rest.starts_with(token) {
            return Some(if minus { (at - 1, token.len() + 1, negative) } else { (at, token.len(), name) });
        }
    }
    None
}

/// What `{"b64": "…"}` holds; `None` if `text` is something else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let members: BTreeMap<Cow<'_, str>, Cow<'_, str>> = serde_json::from_str(text).ok()?;
    let encoded = members.get("b64").filter(|_| members.len() == 1)?;
    STANDARD.decode(encoded.as_bytes()).ok()
}

fn string(token: &str) -> Option<Vec<u8>> {
    match token.as_bytes().first() {
        Some(b'{') => base64(token),
        _ => serde_json::from_str::<String>(token).ok().map(String::into_bytes),
    }
}

/// Whether `text` is an object that stands for names, not for bytes.
pub(crate) fn has_names(text: &str) -> bool {
    let is_bytes =
        |text| serde_json::from_str::<Members<'_>>(text).is_ok_and(|m| m.len() == 1 && m.contains_key("b64"));
    text.trim_start().starts_with('{') && !is_bytes(text)
}

/// Whether the first item of a list, of which `rest` is what follows the bracket, is such an object.
pub(crate) fn has_names_next(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.starts_with('{') && has_names(&rest[..json::token_length(rest.as_bytes())])
}

/// The shape of nested arrays, going by the first of each. Of text that is valid JSON.
fn shape_of(text: &str) -> Result<Vec<usize>, TensorError> {
    let bytes = text.as_bytes();
    let begin = |at: usize| bytes.iter().skip(at).position(|b| !b.is_ascii_whitespace()).map(|n| at + n);
    let (mut shape, mut at) = (Vec::new(), begin(0));
    while let Some(open) = at.filter(|at| bytes.get(*at) == Some(&b'[')) {
        if shape.len() == MAX_RANK {
            return Err(TensorError::Rank(MAX_RANK + 1));
        }
        let count = items(&bytes[open..]);
        shape.push(count);
        at = if count == 0 { None } else { begin(open + 1) };
    }
    Ok(shape)
}

/// A value, or the values of a list: how many, and their text.
pub(crate) fn flat(text: &str) -> (usize, &str) {
    let text = text.trim();
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    list.map_or((1, text), |list| (items(text.as_bytes()), list.trim()))
}

/// How many items the array has that `bytes` begins with.
fn items(bytes: &[u8]) -> usize {
    let (mut commas, mut depth, mut in_string, mut is_empty, mut escaped) = (0, 0_usize, false, true, false);
    for byte in bytes {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => (in_string, is_empty) = (true, false),
            b'[' | b'{' => {
                is_empty &= depth == 0;
                depth += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            b',' if depth == 1 => commas += 1,
            byte => is_empty &= byte.is_ascii_whitespace(),
        }
    }
    if is_empty { 0 } else { commas + 1 }
}

/// Reads elements of a known shape, nested or flat, of any datatype.
fn decode(text: &str, datatype: Datatype, shape: &[usize]) -> Result<TensorData, TensorError> {
    let halves = || match json::decode(text, Datatype::Fp32, shape)? {
        TensorData::Fp32(values) => Ok(values),
        _ => Ok(Vec::new()),
    };
    let fits = |(index, (wide, narrow)): (usize, (&f32, f32))| match wide.is_finite() && narrow.is_infinite() {
        true => {
            Err(TensorError::Element { index, expected: "a number that fits the datatype", found: wide.to_string() })
        }
        false => Ok(()),
    };
    Ok(match datatype {
        Datatype::Bytes => TensorData::Bytes(json::read(text, shape, "a string, or {\"b64\": \"…\"}", string)?),
        Datatype::Fp16 => {
            let wide = halves()?;
            let narrow: Vec<_> = wide.iter().map(|v| f16::from_f32(*v)).collect();
            wide.iter().zip(narrow.iter().map(|v| v.to_f32())).enumerate().try_for_each(fits)?;
            TensorData::Fp16(narrow)
        }
        Datatype::Bf16 => {
            let wide = halves()?;
            let narrow: Vec<_> = wide.iter().map(|v| bf16::from_f32(*v)).collect();
            wide.iter().zip(narrow.iter().map(|v| v.to_f32())).enumerate().try_for_each(fits)?;
            TensorData::Bf16(narrow)
        }
        _ => json::decode(text, datatype, shape)?,
    })
}

fn named(spec: &TensorSpec, problem: TensorError) -> NestedError {
    let name = spec.name.clone();
    match problem {
        TensorError::Nesting { problem, .. } => NestedError::Ragged { name, problem },
        problem => NestedError::Tensor { name, problem },
    }
}

/// A whole tensor, which has the shape that it is written in.
pub(crate) fn tensor(text: &str, spec: &TensorSpec) -> Result<Tensor, NestedError> {
    let mut shape = shape_of(text).map_err(|problem| named(spec, problem))?;
    if shape.last() == Some(&0) {
        // Nothing to tell the further dimensions from.
        let further = spec.shape.iter().skip(shape.len());
        shape.extend(further.map(|d| usize::try_from(*d).unwrap_or_default()));
    }
    of_shape(text, spec, shape)
}

/// A tensor whose elements are nested as `shape` says, or flat.
pub(crate) fn of_shape(text: &str, spec: &TensorSpec, shape: Vec<usize>) -> Result<Tensor, NestedError> {
    let data = decode(text, spec.datatype, &shape).map_err(|problem| named(spec, problem))?;
    Ok(Tensor { name: spec.name.clone(), shape, data })
}

pub(crate) fn unknown(name: &str, specs: &[TensorSpec]) -> NestedError {
    let name: String = name.chars().take(80).collect();
    let takes: Vec<_> = specs.iter().map(ToString::to_string).collect();
    NestedError::Form(format!("there is no input `{name}`: the model takes {}", takes.join(", ")))
}

pub(crate) fn find<'s>(name: &str, specs: &'s [TensorSpec]) -> Result<&'s TensorSpec, NestedError> {
    specs.iter().find(|spec| spec.name == name).ok_or_else(|| unknown(name, specs))
}

/// The one input of a model that is asked without a name.
pub(crate) fn only<'s>(specs: &'s [TensorSpec], what: &str) -> Result<&'s TensorSpec, NestedError> {
    match specs {
        [only] => Ok(only),
        _ => {
            let takes: Vec<_> = specs.iter().map(ToString::to_string).collect();
            form(format!("the model takes {}: {what} must be an object that names them", takes.join(", ")))
        }
    }
}

/// Tensors by name: an object, or the value of the one that there is.
pub(crate) fn columns(text: &str, specs: &[TensorSpec]) -> Result<Vec<Tensor>, NestedError> {
    if !has_names(text) {
        return Ok(vec![tensor(text, only(specs, "what it is asked")?)?]);
    }
    let members: Members<'_> = serde_json::from_str(text)?;
    members.iter().map(|(name, value)| tensor(value.get(), find(name, specs)?)).collect()
}

/// Tensors row by row: a list of values, or of objects that name them.
pub(crate) fn rows(text: &str, specs: &[TensorSpec], what: &str) -> Result<Vec<Tensor>, NestedError> {
    if !text.trim_start().starts_with('[') {
        return form(format!("{what} must be a list"));
    }
    let rows: Vec<&RawValue> = serde_json::from_str(text)?;
    let Some(first) = rows.first() else { return form(format!("{what} is empty")) };
    if !has_names(first.get()) {
        return Ok(vec![tensor(text, only(specs, &format!("each of {what}"))?)?]);
    }
    by_name(&rows, what)?.into_iter().map(|(name, text)| tensor(&text, find(&name, specs)?)).collect()
}

/// The members of all `rows`, which must have the same ones, each as the text of a list.
pub(crate) fn by_name(rows: &[&RawValue], what: &str) -> Result<BTreeMap<String, String>, NestedError> {
    let mut lists = BTreeMap::<String, String>::new();
    for (place, row) in rows.iter().enumerate() {
        let is_object = row.get().trim_start().starts_with('{');
        if !is_object {
            return form(format!("{what}[{place}] must be an object that names inputs, as the first one is"));
        }
        let members: Members<'_> = serde_json::from_str(row.get())?;
        if place > 0
            && let Some(missing) = lists.keys().find(|name| !members.contains_key(name.as_str()))
        {
            return form(format!("{what}[{place}] lacks `{missing}`, which the first one has"));
        }
        for (name, value) in members {
            match lists.get_mut(&*name) {
                Some(list) => list.push(','),
                None if place == 0 => {
                    lists.insert(name.to_string(), "[".into());
                }
                None => return form(format!("{what}[{place}] has `{name}`, which the first one lacks")),
            }
            if let Some(list) = lists.get_mut(&*name) {
                list.push_str(value.get());
            }
        }
    }
    lists.values_mut().for_each(|list| list.push(']'));
    Ok(lists)
}

/// Values whose shape is known, whether they are nested, flat, or one alone. A leading dimension of 1 may be left out.
fn known(text: &str, spec: &TensorSpec) -> Result<Tensor, NestedError> {
    let shape: Vec<usize> = spec.shape.iter().map(|d| usize::try_from(*d).unwrap_or_default()).collect();
    let is_alone = !shape.is_empty() && !text.trim_start().starts_with('[');
    let text = if is_alone { Cow::Owned(format!("[{text}]")) } else { Cow::Borrowed(text) };
    let read = |shape: &[usize]| decode(&text, spec.datatype, shape);
    let data = match (read(&shape), shape.split_first()) {
        (Ok(data), _) => Ok(data),
        (Err(_), Some((1, row))) => read(row),
        (Err(problem), _) => Err(problem),
    };
    let data = data.map_err(|problem| named(spec, problem))?;
    Ok(Tensor { name: spec.name.clone(), shape, data })
}

/// Reads what [`write_columns`], [`write_rows`] or [`write_row`] wrote, given what it was made of.
pub(crate) fn described(text: &str, specs: &[TensorSpec]) -> Result<Vec<Tensor>, NestedError> {
    if let [only] = specs {
        return Ok(vec![known(text, only)?]);
    }
    let lists = match text.trim_start().starts_with('[') {
        true => by_name(&serde_json::from_str::<Vec<&RawValue>>(text)?, "the answer")?,
        false => {
            let members: Members<'_> = serde_json::from_str(text)?;
            members.into_iter().map(|(name, value)| (name.into_owned(), value.get().to_owned())).collect()
        }
    };
    let of = |spec: &TensorSpec| match lists.get(&spec.name) {
        Some(text) => known(text, spec),
        None => form(format!("there is no `{}`", spec.name)),
    };
    specs.iter().map(of).collect()
}

/// What tensors are, for those who read an answer that does not say it.
pub(crate) fn describe<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> Vec<TensorSpec> {
    let describe = |t: &Tensor| TensorSpec { name: t.name.clone(), datatype: t.datatype(), shape: signed(&t.shape) };
    tensors.into_iter().map(describe).collect()
}

/// All of `tensors`: bare if there is one, else by name.
pub(crate) fn write_columns(out: &mut Vec<u8>, tensors: &[Tensor]) {
    members(out, tensors, |out, tensor| value(out, &tensor.name, &tensor.shape, &tensor.data, 0));
}

/// A list of rows, each bare or by name.
///
/// # Errors
/// If a tensor has no rows, or not as many as the others.
pub(crate) fn write_rows(out: &mut Vec<u8>, tensors: &[Tensor]) -> Result<(), NestedError> {
    let count = tensors.first().and_then(Tensor::rows);
    let uneven = tensors.iter().find(|tensor| tensor.rows().is_none() || tensor.rows() != count);
    if let Some(Tensor { name, shape, .. }) = uneven {
        return form(format!("output `{name}` of shape {shape:?} is not by row as the others are"));
    }
    out.push(b'[');
    for place in 0..count.unwrap_or_default() {
        if place > 0 {
            out.push(b',');
        }
        write_row(out, tensors, place);
    }
    out.push(b']');
    Ok(())
}

/// One row of tensors that have as many.
pub(crate) fn write_row(out: &mut Vec<u8>, tensors: &[Tensor], place: usize) {
    members(out, tensors, |out, tensor| {
        let row = tensor.shape.get(1..).unwrap_or_default();
        let width = elements(row).unwrap_or_default();
        value(out, &tensor.name, row, &tensor.data, place * width);
    });
}

fn members(out: &mut Vec<u8>, tensors: &[Tensor], write: impl Fn(&mut Vec<u8>, &Tensor)) {
    if let [only] = tensors {
        return write(out, only);
    }
    out.push(b'{');
    for (place, tensor) in tensors.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text(out, &tensor.name);
        out.push(b':');
        write(out, tensor);
    }
    out.push(b'}');
}

fn value(out: &mut Vec<u8>, name: &str, shape: &[usize], data: &TensorData, start: usize) {
    match shape.split_first() {
        None => list(out, name, data, start, 1),
        Some((count, [])) => {
            out.push(b'[');
            list(out, name, data, start, *count);
            out.push(b']');
        }
        Some((count, rest)) => {
            let step = elements(rest).unwrap_or_default();
            out.push(b'[');
            for place in 0..*count {
                if place > 0 {
                    out.push(b',');
                }
                value(out, name, rest, data, start + place * step);
            }
            out.push(b']');
        }
    }
}

/// Some elements, separated by commas.
fn list(out: &mut Vec<u8>, name: &str, data: &TensorData, start: usize, count: usize) {
    macro_rules! each {
        ($values:expr, $write:expr) => {
            for (place, element) in $values.iter().skip(start).take(count).enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                $write(out, element);
            }
        };
    }
    macro_rules! display {
        ($values:expr) => {
            // Writing to memory does not fail.
            each!($values, |out: &mut Vec<u8>, element| drop(write!(out, "{element}")))
        };
    }
    match data {
        TensorData::Bool(v) => display!(v),
        TensorData::Uint8(v) => display!(v),
        TensorData::Uint16(v) => display!(v),
        TensorData::Uint32(v) => display!(v),
        TensorData::Uint64(v) => display!(v),
        TensorData::Int8(v) => display!(v),
        TensorData::Int16(v) => display!(v),
        TensorData::Int32(v) => display!(v),
        TensorData::Int64(v) => display!(v),
        TensorData::Fp16(v) => each!(v, |out: &mut Vec<u8>, v: &f16| single(out, v.to_f32())),
        TensorData::Bf16(v) => each!(v, |out: &mut Vec<u8>, v: &bf16| single(out, v.to_f32())),
        TensorData::Fp32(v) => each!(v, |out: &mut Vec<u8>, v: &f32| single(out, *v)),
        TensorData::Fp64(v) => each!(v, |out: &mut Vec<u8>, v: &f64| double(out, *v)),
        TensorData::Bytes(v) => each!(v, |out: &mut Vec<u8>, v: &Vec<u8>| bytes(out, name, v)),
    }
}

pub(crate) fn single(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        serde_json::to_writer(out, &value).unwrap_or_default();
    } else {
        double(out, f64::from(value));
    }
}

pub(crate) fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        serde_json::to_writer(out, &value).unwrap_or_default();
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

/// A string, or its Base64 form: by the tensor's name, or where it has no other.
fn bytes(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(string) if !name.ends_with("_bytes") => text(out, string),
        _ => drop(write!(out, "{{\"b64\":\"{}\"}}", STANDARD.encode(value))),
    }
}

pub(crate) fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).unwrap_or_default();
}
