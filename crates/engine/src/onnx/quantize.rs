//! Narrower weights: a copy of a model whose large constants of FP32 are kept as INT8 or FP16, and are widened by a node
//! in front of whoever takes them. What is computed with stays FP32; the file shrinks to about a quarter, or a half.
//!
//! INT8 is symmetric, with a scale per output channel (w ≈ scale · q, q from -127 to 127, scale = max |w| / 127), of the
//! weights of MatMul, Gemm, Conv, ConvTranspose, LSTM and GRU (Jacob et al. 2018, "Quantization and Training of Neural
//! Networks for Efficient Integer-Arithmetic-Only Inference", of which this is the part that needs no data). FP16 takes
//! any constant. Field numbers are those of onnx.proto3.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use half::f16;

use super::splice::{Edit, spliced, write_bytes, write_varint};
use crate::error::LoadError;
use crate::protobuf::{Reader, Wire};

/// The largest file that is rewritten, in bytes: it is kept in memory, twice.
const LARGEST: u64 = 1 << 30;
/// Constants with fewer elements stay as they are: they are not what makes a file large.
const SMALLEST: usize = 256;
/// The first version of ONNX's operators whose DequantizeLinear has a scale per channel, and the first that has one.
const PER_CHANNEL: u64 = 13;
const PER_TENSOR: u64 = 10;
/// TensorProto.DataType
const FLOAT: u64 = 1;
const INT8: u64 = 3;
const FLOAT16: u64 = 10;

/// What weights are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Int8,
    Fp16,
}

/// A model with narrower weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    /// The ONNX model.
    pub bytes: Vec<u8>,
    /// How many of its constants were narrowed.
    pub tensors: usize,
}

/// Narrows the weights of the ONNX model at `path`.
///
/// # Errors
/// If it is no model, or has nothing to narrow.
pub fn quantize(path: &Path, precision: Precision) -> Result<Quantized, LoadError> {
    super::examine(path)?;
    let mut reader = Reader::new(crate::open(path)?, LoadError::NotOnnx)?;
    let end = reader.length();
    if end > LARGEST {
        return Err(refuse(format!("it has {end} bytes, and at most {LARGEST} are rewritten")));
    }
    let (mut graph, mut opset, mut version) = (None, 0, None);
    let mut start = 0;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Varint) => version = Some((reader.varint()?, start..reader.at())),
            (7, Wire::Bytes) => graph = Some((Graph::read(&mut reader)?, start..reader.at())),
            (8, Wire::Bytes) => opset = opset.max(own_opset(&mut reader)?),
            (_, wire) => reader.skip(wire)?,
        }
        start = reader.at();
    }
    let (graph, place) = graph.ok_or_else(|| LoadError::NotOnnx("it has no graph".into()))?;
    let bytes = std::fs::read(path).map_err(LoadError::Io)?;
    let (rewritten, tensors) = graph.rewritten(&bytes, precision, opset)?;
    let mut edits: Vec<Edit> = vec![(place, rewritten)];
    // Up to version 3 every constant was an input too, which those made here are not.
    if let Some((_, place)) = version.filter(|(version, _)| *version < 4) {
        let mut field = Vec::new();
        write_varint(&mut field, 1, 4);
        edits.push((place, field));
    }
    edits.sort_by_key(|(place, _)| place.start);
    Ok(Quantized { bytes: spliced(&bytes, &(0..end), &edits), tensors })
}

fn refuse(reason: String) -> LoadError {
    LoadError::Quantize(reason)
}

/// A TensorProto of FP32.
struct Tensor {
    dims: Vec<usize>,
    values: Vec<f32>,
}

struct Graph {
    content: Range<u64>,
    /// By name, of those that are constants, too.
    inputs: Vec<(Range<u64>, String)>,
    constants: Vec<(Range<u64>, String, Tensor)>,
    /// The axis of the output channels of each weight, by name.
    weights: HashMap<String, Axis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    At(usize),
    Last,
}

impl Graph {
    fn read(reader: &mut Reader) -> Result<Self, LoadError> {
        let end = reader.message()?;
        let mut start = reader.at();
        let mut graph =
            Self { content: start..end, inputs: Vec::new(), constants: Vec::new(), weights: HashMap::new() };
        while let Some(field) = reader.field(end)? {
            match (field.number, field.wire) {
                (1, Wire::Bytes) => graph.weights.extend(weights(reader)?),
                (5, Wire::Bytes) => {
                    if let Some((name, tensor)) = tensor(reader)? {
                        graph.constants.push((start..reader.at(), name, tensor));
                    }
                }
                (11, Wire::Bytes) => {
                    let name = name(reader)?;
                    graph.inputs.push((start..reader.at(), name));
                }
                (_, wire) => reader.skip(wire)?,
            }
            start = reader.at();
        }
        Ok(graph)
    }

    /// The field of the graph, and how many constants in it are narrower.
    fn rewritten(self, bytes: &[u8], precision: Precision, opset: u64) -> Result<(Vec<u8>, usize), LoadError> {
        if precision == Precision::Int8 && opset < PER_TENSOR {
            return Err(refuse(format!(
                "its operators are of version {opset}, and INT8 weights need {PER_TENSOR}: convert it (onnx.version_converter)"
            )));
        }
        let mut edits: Vec<Edit> = Vec::new();
        // Nodes come before those that take what they give.
        let mut nodes = Vec::new();
        let mut tensors = 0;
        for (place, name, tensor) in &self.constants {
            let narrowed = match precision {
                Precision::Fp16 => halved(name, tensor),
                Precision::Int8 => self.weights.get(name).and_then(|axis| {
                    let last = tensor.dims.len().checked_sub(1)?;
                    let axis = if let Axis::At(axis) = axis { *axis } else { last };
                    let axis = Some(axis.min(last)).filter(|_| opset >= PER_CHANNEL);
                    to_int8(name, tensor, axis)
                }),
            };
            let Some(Narrowed { node, constants }) = narrowed else { continue };
            write_bytes(&mut nodes, 1, &node);
            edits.push((place.clone(), constants));
            edits.extend(self.inputs.iter().filter(|(_, n)| n == name).map(|(place, _)| (place.clone(), Vec::new())));
            tensors += 1;
        }
        if tensors == 0 {
            return Err(refuse(format!("it has no weights of FP32 with {SMALLEST} elements or more to narrow")));
        }
        edits.push((self.content.start..self.content.start, nodes));
        edits.sort_by_key(|(place, _)| place.start);
        let mut field = Vec::new();
        write_bytes(&mut field, 7, &spliced(bytes, &self.content, &edits));
        Ok((field, tensors))
    }
}

/// A constant made narrower.
struct Narrowed {
    /// NodeProto, which gives what the constant was.
    node: Vec<u8>,
    /// Fields of the graph.
    constants: Vec<u8>,
}

fn halved(name: &str, tensor: &Tensor) -> Option<Narrowed> {
    let halves: Vec<f16> = tensor.values.iter().map(|value| f16::from_f32(*value)).collect();
    // What is beyond FP16, or is no number, stays.
    if halves.iter().any(|half| !half.is_finite()) {
        return None;
    }
    let narrow = format!("{name}_fp16");
    let raw: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let mut constants = Vec::new();
    write_bytes(&mut constants, 5, &constant(&narrow, &tensor.dims, FLOAT16, &raw));
    Some(Narrowed { node: node("Cast", &[&narrow], name, Some(("to", FLOAT))), constants })
}

/// `axis`: that of the channels; one scale for all without.
fn to_int8(name: &str, tensor: &Tensor, axis: Option<usize>) -> Option<Narrowed> {
    if tensor.values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let channels = axis.map_or(1, |axis| tensor.dims[axis]);
    let inner: usize = axis.map_or(tensor.values.len(), |axis| tensor.dims[axis + 1..].iter().product());
    let channel = |place: usize| place / inner.max(1) % channels;
    let mut largest = vec![0.0_f32; channels];
    for (place, value) in tensor.values.iter().enumerate() {
        let largest = &mut largest[channel(place)];
        *largest = largest.max(value.abs());
    }
    let scales: Vec<f32> =
        largest.iter().map(|l| if *l > f32::MIN_POSITIVE * 127.0 { l / 127.0 } else { 1.0 }).collect();
    #[expect(clippy::cast_possible_truncation, reason = "it is between -127 and 127")]
    let narrow = |(place, value): (usize, &f32)| (value / scales[channel(place)]).round().clamp(-127.0, 127.0) as i8;
    let raw: Vec<u8> = tensor.values.iter().enumerate().map(narrow).map(i8::cast_unsigned).collect();
    let (quantized, scale) = (format!("{name}_int8"), format!("{name}_scale"));
    let scale_dims: &[usize] = if axis.is_some() { &[channels] } else { &[] };
    let raw_scales: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let mut constants = Vec::new();
    write_bytes(&mut constants, 5, &constant(&quantized, &tensor.dims, INT8, &raw));
    write_bytes(&mut constants, 5, &constant(&scale, scale_dims, FLOAT, &raw_scales));
    let attribute = axis.map(|axis| ("axis", axis as u64));
    Some(Narrowed { node: node("DequantizeLinear", &[&quantized, &scale], name, attribute), constants })
}

/// TensorProto
fn constant(name: &str, dims: &[usize], datatype: u64, raw: &[u8]) -> Vec<u8> {
    let mut tensor = Vec::new();
    dims.iter().for_each(|dim| write_varint(&mut tensor, 1, *dim as u64));
    write_varint(&mut tensor, 2, datatype);
    write_bytes(&mut tensor, 8, name.as_bytes());
    write_bytes(&mut tensor, 9, raw);
    tensor
}

/// NodeProto, with an attribute of type INT.
fn node(op: &str, inputs: &[&str], output: &str, attribute: Option<(&str, u64)>) -> Vec<u8> {
    let mut node = Vec::new();
    inputs.iter().for_each(|input| write_bytes(&mut node, 1, input.as_bytes()));
    write_bytes(&mut node, 2, output.as_bytes());
    write_bytes(&mut node, 3, format!("{output}_widened").as_bytes());
    write_bytes(&mut node, 4, op.as_bytes());
    if let Some((name, value)) = attribute {
        let mut proto = Vec::new();
        write_bytes(&mut proto, 1, name.as_bytes());
        write_varint(&mut proto, 3, value);
        write_varint(&mut proto, 20, 2);
        write_bytes(&mut node, 5, &proto);
    }
    node
}

/// The inputs of a node that are weights, if they are constants.
fn weights(reader: &mut Reader) -> Result<Vec<(String, Axis)>, LoadError> {
    let end = reader.message()?;
    let (mut inputs, mut op, mut domain, mut is_transposed) = (Vec::new(), String::new(), String::new(), false);
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => inputs.push(reader.string()?),
            (4, Wire::Bytes) => op = reader.string()?,
            (5, Wire::Bytes) => is_transposed |= is_trans_b(reader)?,
            (7, Wire::Bytes) => domain = reader.string()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    if !domain.is_empty() && domain != "ai.onnx" {
        return Ok(Vec::new());
    }
    let places: &[(usize, Axis)] = match op.as_str() {
        "MatMul" => &[(1, Axis::Last)],
        "Gemm" if is_transposed => &[(1, Axis::At(0))],
        "Gemm" | "ConvTranspose" => &[(1, Axis::At(1))],
        "Conv" => &[(1, Axis::At(0))],
        // [directions, gates · hidden, inputs]
        "LSTM" | "GRU" => &[(1, Axis::At(1)), (2, Axis::At(1))],
        _ => &[],
    };
    Ok(places.iter().filter_map(|(place, axis)| Some((inputs.get(*place)?.clone(), *axis))).collect())
}

/// Whether an AttributeProto is `transB = 1`.
fn is_trans_b(reader: &mut Reader) -> Result<bool, LoadError> {
    let end = reader.message()?;
    let (mut is_named, mut is_set) = (false, false);
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => is_named = reader.string()? == "transB",
            (3, Wire::Varint) => is_set = reader.varint()? != 0,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(is_named && is_set)
}

/// A TensorProto, if it is of FP32, whole, and large.
fn tensor(reader: &mut Reader) -> Result<Option<(String, Tensor)>, LoadError> {
    let end = reader.message()?;
    let (mut name, mut dims, mut datatype) = (String::new(), Vec::new(), 0);
    let (mut values, mut raw) = (Vec::new(), None);
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Varint) => dims.push(reader.varint()?),
            (1, Wire::Bytes) => {
                let end = reader.message()?;
                while reader.at() < end {
                    dims.push(reader.varint()?);
                }
            }
            (2, Wire::Varint) => datatype = reader.varint()?,
            (4, Wire::Fixed32) => values.push(f32::from_le_bytes(reader.fixed32()?)),
            (4, Wire::Bytes) => values.extend(floats(&reader.bytes()?)),
            (8, Wire::Bytes) => name = reader.string()?,
            (9, Wire::Bytes) => raw = Some(reader.bytes()?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    if datatype != FLOAT {
        return Ok(None);
    }
    if let Some(raw) = raw {
        values = floats(&raw).collect();
    }
    let dims = dims.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    let count = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    Ok((values.len() >= SMALLEST && count == Some(values.len())).then_some((name, Tensor { dims, values })))
}

fn floats(raw: &[u8]) -> impl Iterator<Item = f32> {
    raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// The name of a ValueInfoProto.
fn name(reader: &mut Reader) -> Result<String, LoadError> {
    let end = reader.message()?;
    let mut name = String::new();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => name = reader.string()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(name)
}

/// The version in an OperatorSetIdProto, if it is of ONNX's own operators.
fn own_opset(reader: &mut Reader) -> Result<u64, LoadError> {
    let end = reader.message()?;
    let (mut domain, mut version) = (String::new(), 0);
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => domain = reader.string()?,
            (2, Wire::Varint) => version = reader.varint()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(if domain.is_empty() || domain == "ai.onnx" { version } else { 0 })
}
