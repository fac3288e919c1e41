//! Reads all of an ONNX file: nodes, attributes and initializers. Field numbers are those of onnx.proto3
//! (github.com/onnx/onnx).
//!
//! What is allocated is in proportion to what the file holds, and what takes more memory there than here is counted while
//! it is read. Nested graphs are not followed: an operator that has one is not among those evaluated here.

use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use modelyard_protocol::TensorData;

use super::attributes::{Attribute, Attributes, Strings};
use super::limits::{MOST_NODES, MOST_PARTS};
use super::value::{MOST_DIMENSIONS, Value};
use crate::error::LoadError;
use crate::protobuf::{Reader, Wire};

/// The largest file that is read, in bytes. All of it is kept in memory for a while, several times over.
const LARGEST: u64 = 1 << 30;

/// NodeProto
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) op: String,
    /// Empty for ONNX's own.
    pub(super) domain: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: Attributes,
}

/// GraphProto, with the version of ONNX's own operator set.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: HashMap<String, Value>,
    pub(super) opset: u64,
}

/// What may yet be read of what takes more memory than bytes of the file.
struct Room(usize);

impl Room {
    /// # Errors
    /// If there is none left.
    fn take(&mut self, parts: usize) -> Result<(), LoadError> {
        let full = || super::refuse(format!("it has more than {MOST_PARTS} names, attributes and strings"));
        self.0 = self.0.checked_sub(parts).ok_or_else(full)?;
        Ok(())
    }
}

/// What a node or an attribute takes, in units of a string.
const RECORD: usize = 8;

pub(super) fn read(path: &Path) -> Result<Graph, LoadError> {
    let mut reader = Reader::new(crate::open(path)?, LoadError::NotOnnx)?;
    let end = reader.length();
    if end > LARGEST {
        return Err(super::refuse(format!("it has {end} bytes, and at most {LARGEST} are read")));
    }
    let mut graph = Graph::default();
    let mut opset = 0;
    let mut room = Room(MOST_PARTS);
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (7, Wire::Bytes) => graph = read_graph(&mut reader, &mut room)?,
            (8, Wire::Bytes) => opset = opset.max(own_opset(&mut reader)?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    graph.opset = opset;
    Ok(graph)
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

fn read_graph(reader: &mut Reader, room: &mut Room) -> Result<Graph, LoadError> {
    let end = reader.message()?;
    let mut graph = Graph::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) if graph.nodes.len() >= MOST_NODES => {
                return Err(super::refuse(format!(
                    "it has more than {MOST_NODES} nodes, which is the most that are run"
                )));
            }
            (1, Wire::Bytes) => graph.nodes.push(node(reader, room)?),
            (5, Wire::Bytes) => {
                room.take(RECORD)?;
                let (name, value) = tensor(reader, room)?;
                graph.initializers.insert(name, value);
            }
            (15, Wire::Bytes) => return Err(super::refuse("it has sparse initializers".into())),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(graph)
}

fn node(reader: &mut Reader, room: &mut Room) -> Result<Node, LoadError> {
    let end = reader.message()?;
    room.take(RECORD)?;
    let mut node = Node::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => {
                room.take(1)?;
                node.inputs.push(reader.string()?);
            }
            (2, Wire::Bytes) => {
                room.take(1)?;
                node.outputs.push(reader.string()?);
            }
            (3, Wire::Bytes) => node.name = reader.string()?,
            (4, Wire::Bytes) => node.op = reader.string()?,
            (5, Wire::Bytes) => {
                room.take(RECORD)?;
                let (name, attribute) = attribute(reader, room)?;
                node.attributes.insert(name, attribute);
            }
            (7, Wire::Bytes) => node.domain = reader.string()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    if node.domain == "ai.onnx" {
        node.domain.clear();
    }
    Ok(node)
}

/// AttributeProto. Repeated numbers come packed (proto3) or one by one (proto2, which Python's package writes).
fn attribute(reader: &mut Reader, room: &mut Room) -> Result<(String, Attribute), LoadError> {
    let end = reader.message()?;
    let (mut name, mut attribute) = (String::new(), Attribute::default());
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => name = reader.string()?,
            (2, Wire::Fixed32) => attribute.float = Some(f32::from_le_bytes(reader.fixed32()?)),
            (3, Wire::Varint) => attribute.int = Some(reader.varint()?.cast_signed()),
            (4, Wire::Bytes) => attribute.string = Some(reader.bytes()?),
            (5, Wire::Bytes) => attribute.tensor = Some(tensor(reader, room)?.1),
            (7, Wire::Fixed32) => attribute.floats.push(f32::from_le_bytes(reader.fixed32()?)),
            (7, Wire::Bytes) => attribute.floats.extend(numbers(reader, f32::from_le_bytes)?),
            (8, Wire::Varint) => attribute.ints.push(reader.varint()?.cast_signed()),
            (8, Wire::Bytes) => varints(reader, |v| attribute.ints.push(v.cast_signed()))?,
            (9, Wire::Bytes) => attribute.strings.get_or_insert_with(Strings::default).push(&reader.bytes()?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok((name, attribute))
}

/// Packed numbers of a fixed width.
fn numbers<const W: usize, T>(reader: &mut Reader, one: fn([u8; W]) -> T) -> Result<Vec<T>, LoadError> {
    let bytes = reader.bytes()?;
    let (numbers, []) = bytes.as_chunks::<W>() else {
        return Err(reader.malformed("packed numbers that end within one"));
    };
    Ok(numbers.iter().map(|n| one(*n)).collect())
}

fn varints(reader: &mut Reader, mut take: impl FnMut(u64)) -> Result<(), LoadError> {
    let end = reader.message()?;
    while reader.at() < end {
        take(reader.varint()?);
    }
    if reader.at() == end { Ok(()) } else { Err(reader.malformed("packed numbers that overrun their field")) }
}

/// The data of a TensorProto, as it is found in the fields that it may be in.
#[derive(Default)]
struct Parts {
    dims: Vec<u64>,
    datatype: u64,
    raw: Option<Vec<u8>>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
    /// int32_data, int64_data and uint64_data.
    integers: Vec<u64>,
    strings: Vec<Vec<u8>>,
}

fn tensor(reader: &mut Reader, room: &mut Room) -> Result<(String, Value), LoadError> {
    let end = reader.message()?;
    let (mut name, mut parts) = (String::new(), Parts::default());
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Varint) => parts.dims.push(reader.varint()?),
            (1, Wire::Bytes) => varints(reader, |v| parts.dims.push(v))?,
            (2, Wire::Varint) => parts.datatype = reader.varint()?,
            (4, Wire::Fixed32) => parts.floats.push(f32::from_le_bytes(reader.fixed32()?)),
            (4, Wire::Bytes) => parts.floats.extend(numbers(reader, f32::from_le_bytes)?),
            (5 | 7 | 11, Wire::Varint) => parts.integers.push(reader.varint()?),
            (5 | 7 | 11, Wire::Bytes) => varints(reader, |v| parts.integers.push(v))?,
            (6, Wire::Bytes) => {
                room.take(1)?;
                parts.strings.push(reader.bytes()?);
            }
            (8, Wire::Bytes) => name = reader.string()?,
            (9, Wire::Bytes) => parts.raw = Some(reader.bytes()?),
            (10, Wire::Fixed64) => parts.doubles.push(f64::from_le_bytes(reader.fixed64()?)),
            (10, Wire::Bytes) => parts.doubles.extend(numbers(reader, f64::from_le_bytes)?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    match parts.value() {
        Ok(value) => Ok((name, value)),
        Err(problem) => Err(super::refuse(format!("tensor `{name}`: {problem}"))),
    }
}

impl Parts {
    fn value(self) -> Result<Value, String> {
        if self.dims.len() > MOST_DIMENSIONS {
            return Err(format!("it has {} dimensions", self.dims.len()));
        }
        let shape = self.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| "a dimension of it is absurd".to_owned())?;
        #[expect(clippy::cast_possible_truncation, reason = "narrow integers are stored sign-extended in wide ones")]
        let data = match (self.datatype, self.raw) {
            (1, None) => TensorData::Fp32(self.floats),
            (1, Some(raw)) => TensorData::Fp32(raw_numbers(&raw, f32::from_le_bytes)?),
            (2, None) => TensorData::Uint8(self.integers.iter().map(|v| *v as u8).collect()),
            (2, Some(raw)) => TensorData::Uint8(raw),
            (3, None) => TensorData::Int8(self.integers.iter().map(|v| *v as i8).collect()),
            (3, Some(raw)) => TensorData::Int8(raw_numbers(&raw, i8::from_le_bytes)?),
            (4, None) => TensorData::Uint16(self.integers.iter().map(|v| *v as u16).collect()),
            (4, Some(raw)) => TensorData::Uint16(raw_numbers(&raw, u16::from_le_bytes)?),
            (5, None) => TensorData::Int16(self.integers.iter().map(|v| *v as i16).collect()),
            (5, Some(raw)) => TensorData::Int16(raw_numbers(&raw, i16::from_le_bytes)?),
            (6, None) => TensorData::Int32(self.integers.iter().map(|v| *v as i32).collect()),
            (6, Some(raw)) => TensorData::Int32(raw_numbers(&raw, i32::from_le_bytes)?),
            (7, None) => TensorData::Int64(self.integers.iter().map(|v| v.cast_signed()).collect()),
            (7, Some(raw)) => TensorData::Int64(raw_numbers(&raw, i64::from_le_bytes)?),
            (8, None) => TensorData::Bytes(self.strings),
            (9, None) => TensorData::Bool(self.integers.iter().map(|v| *v != 0).collect()),
            (9, Some(raw)) => TensorData::Bool(raw.iter().map(|v| *v != 0).collect()),
            (10, None) => TensorData::Fp16(self.integers.iter().map(|v| f16::from_bits(*v as u16)).collect()),
            (10, Some(raw)) => TensorData::Fp16(raw_numbers(&raw, f16::from_le_bytes)?),
            (11, None) => TensorData::Fp64(self.doubles),
            (11, Some(raw)) => TensorData::Fp64(raw_numbers(&raw, f64::from_le_bytes)?),
            (12, None) => TensorData::Uint32(self.integers.iter().map(|v| *v as u32).collect()),
            (12, Some(raw)) => TensorData::Uint32(raw_numbers(&raw, u32::from_le_bytes)?),
            (13, None) => TensorData::Uint64(self.integers),
            (13, Some(raw)) => TensorData::Uint64(raw_numbers(&raw, u64::from_le_bytes)?),
            (16, None) => TensorData::Bf16(self.integers.iter().map(|v| bf16::from_bits(*v as u16)).collect()),
            (16, Some(raw)) => TensorData::Bf16(raw_numbers(&raw, bf16::from_le_bytes)?),
            (other, _) => return Err(format!("it has ONNX datatype {other}, which is not known here")),
        };
        Value::new(shape, data)
    }
}

fn raw_numbers<const W: usize, T>(raw: &[u8], one: fn([u8; W]) -> T) -> Result<Vec<T>, String> {
    let (numbers, []) = raw.as_chunks::<W>() else { return Err("its data ends within a number".into()) };
    Ok(numbers.iter().map(|n| one(*n)).collect())
}
