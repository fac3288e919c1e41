//! Takes the ZipMap off a classifier: skl2onnx puts one behind the probabilities, which makes of a row a map from class
//! to probability, and of the output a sequence of maps, for which ONNX Runtime has no tensor.
//!
//! The node becomes an Identity, and the output's declaration that of a tensor [rows, classes], in a copy in memory.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::splice::{Edit, spliced, write_bytes, write_varint};
use crate::error::LoadError;
use crate::protobuf::{Reader, Wire};

/// The largest file that is rewritten, in bytes: Protocol Buffers have no larger ones in memory.
const LARGEST: u64 = 1 << 31;
/// The most ZipMaps that are taken off: a classifier has one.
const MOST_ZIP_MAPS: usize = 1 << 10;
/// The version of ONNX's own operators that Identity is taken from, if the model uses none of them.
const OPSET: u64 = 13;

/// The bytes of the model without its ZipMap nodes.
pub(crate) fn replaced(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut reader = Reader::new(crate::open(path)?, LoadError::NotOnnx)?;
    let end = reader.length();
    if end > LARGEST {
        return Err(LoadError::UnsupportedSignature(
            "it is too large to take its ZipMap off: convert it with options={'zipmap': False}".into(),
        ));
    }
    let mut edits = Vec::new();
    let mut has_own_opset = false;
    let mut start = 0;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (7, Wire::Bytes) => {
                let graph = Graph::read(&mut reader)?;
                edits.push((start..reader.at(), graph));
            }
            (8, Wire::Bytes) => has_own_opset |= is_own_opset(&mut reader)?,
            (_, wire) => reader.skip(wire)?,
        }
        start = reader.at();
    }
    let bytes = std::fs::read(path).map_err(LoadError::Io)?;
    let edits: Vec<Edit> = edits.into_iter().map(|(place, graph)| (place, graph.rewritten(&bytes))).collect();
    let mut model = spliced(&bytes, &(0..end), &edits);
    if !has_own_opset {
        let mut opset = Vec::new();
        write_bytes(&mut opset, 1, b"");
        write_varint(&mut opset, 2, OPSET);
        write_bytes(&mut model, 8, &opset);
    }
    Ok(model)
}

/// GraphProto
struct Graph {
    content: Range<u64>,
    zip_maps: Vec<(Range<u64>, Node)>,
    outputs: Vec<(Range<u64>, String)>,
}

#[derive(Default)]
struct Node {
    name: Vec<u8>,
    op: String,
    domain: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Graph {
    fn read(reader: &mut Reader) -> Result<Self, LoadError> {
        let end = reader.message()?;
        let mut start = reader.at();
        let mut graph = Self { content: start..end, zip_maps: Vec::new(), outputs: Vec::new() };
        while let Some(field) = reader.field(end)? {
            match (field.number, field.wire) {
                (1, Wire::Bytes) => {
                    let node = node(reader)?;
                    if node.op == "ZipMap" && node.domain == "ai.onnx.ml" {
                        if graph.zip_maps.len() == MOST_ZIP_MAPS {
                            return Err(LoadError::UnsupportedSignature(format!(
                                "it has more than {MOST_ZIP_MAPS} ZipMaps: convert it with options={{'zipmap': False}}"
                            )));
                        }
                        graph.zip_maps.push((start..reader.at(), node));
                    }
                }
                (12, Wire::Bytes) => {
                    let name = name(reader)?;
                    graph.outputs.push((start..reader.at(), name));
                }
                (_, wire) => reader.skip(wire)?,
            }
            start = reader.at();
        }
        Ok(graph)
    }

    /// The field of the graph, as it is to be.
    fn rewritten(self, bytes: &[u8]) -> Vec<u8> {
        let zipped: HashSet<&str> =
            self.zip_maps.iter().flat_map(|(_, node)| &node.outputs).map(String::as_str).collect();
        let outputs = self.outputs.iter().filter(|(_, name)| zipped.contains(name.as_str()));
        let mut edits: Vec<Edit> = outputs.map(|(place, name)| (place.clone(), probabilities(name))).collect();
        edits.extend(self.zip_maps.iter().map(|(place, node)| (place.clone(), identity(node))));
        edits.sort_by_key(|(place, _)| place.start);
        let mut field = Vec::new();
        write_bytes(&mut field, 7, &spliced(bytes, &self.content, &edits));
        field
    }
}

/// NodeProto
fn node(reader: &mut Reader) -> Result<Node, LoadError> {
    let end = reader.message()?;
    let mut node = Node::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => node.inputs.push(reader.string()?),
            (2, Wire::Bytes) => node.outputs.push(reader.string()?),
            (3, Wire::Bytes) => node.name = reader.bytes()?,
            (4, Wire::Bytes) => node.op = reader.string()?,
            (7, Wire::Bytes) => node.domain = reader.string()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(node)
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

fn is_own_opset(reader: &mut Reader) -> Result<bool, LoadError> {
    let end = reader.message()?;
    let mut domain = String::new();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => domain = reader.string()?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(domain.is_empty() || domain == "ai.onnx")
}

/// The field of a node that passes on what ZipMap took.
fn identity(zip_map: &Node) -> Vec<u8> {
    let mut node = Vec::new();
    zip_map.inputs.iter().for_each(|input| write_bytes(&mut node, 1, input.as_bytes()));
    zip_map.outputs.iter().for_each(|output| write_bytes(&mut node, 2, output.as_bytes()));
    write_bytes(&mut node, 3, &zip_map.name);
    write_bytes(&mut node, 4, b"Identity");
    let mut field = Vec::new();
    write_bytes(&mut field, 1, &node);
    field
}

/// The field of an output that is a matrix of FP32, of whichever size.
fn probabilities(name: &str) -> Vec<u8> {
    let (mut shape, mut tensor, mut value_type, mut value, mut field) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    write_bytes(&mut shape, 1, &[]);
    write_bytes(&mut shape, 1, &[]);
    write_varint(&mut tensor, 1, 1);
    write_bytes(&mut tensor, 2, &shape);
    write_bytes(&mut value_type, 1, &tensor);
    write_bytes(&mut value, 1, name.as_bytes());
    write_bytes(&mut value, 2, &value_type);
    write_bytes(&mut field, 12, &value);
    field
}
