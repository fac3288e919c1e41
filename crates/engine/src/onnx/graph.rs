//! Reads the outline of an ONNX file: is it one, is it whole, what goes in and out.
//!
//! Parsers of Protocol Buffers take random bytes for an empty message, and engines narrow datatypes; this reader does
//! neither. It checks the structure to the end, reads no weights, and runs nothing. Field numbers are those of
//! onnx.proto3 (github.com/onnx/onnx).

use std::path::Path;

use modelyard_core::{Datatype, Signature, TensorSpec};

use crate::error::LoadError;
use crate::protobuf::{Reader, Wire};

/// Graphs nest in `If` and `Loop`; nobody's nest deeper.
const DEEPEST: usize = 32;

/// The most inputs and outputs of a graph, and of a node; large networks list all their weights as inputs.
const MOST_VALUES: usize = 1 << 16;
/// The most weights, whose names are kept.
const MOST_INITIALIZERS: usize = 1 << 20;
/// The most dimensions of an input or output, far beyond the 64 that the protocol has.
const MOST_DIMENSIONS: usize = 1 << 10;

/// What an ONNX file declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) signature: Signature,
    /// Inputs for which no shape is declared, not even a rank.
    pub(crate) unranked: Vec<String>,
    /// Whether an operator of `ai.onnx.ml` is among its nodes.
    pub(crate) has_ml: bool,
    /// Whether an output comes from a ZipMap: a sequence of maps, of which the signature says that it is a tensor of
    /// the probabilities in them.
    pub(crate) has_zip_map: bool,
}

/// # Errors
/// If it is no whole ONNX model, or takes or gives what is no tensor of the Open Inference Protocol.
pub(crate) fn read(path: &Path) -> Result<Outline, LoadError> {
    let mut reader = Reader::new(crate::open(path)?, LoadError::NotOnnx)?;
    let end = reader.length();
    let mut parts = Parts::default();
    while let Some(field) = reader.field(end).map_err(|e| parts.explain(e))? {
        let read = match (field.number, field.wire) {
            (1, Wire::Varint) => reader.varint().map(|version| parts.ir_version = version),
            (7, Wire::Bytes) => graph(&mut reader, 0).map(|g| parts.graph = Some(g)),
            (8, Wire::Bytes) => opset(&mut reader).map(|()| parts.has_opset = true),
            (25, Wire::Bytes) => function(&mut reader).map(|has_ml| parts.has_ml |= has_ml),
            (2..=4 | 6 | 14 | 20 | 26, Wire::Bytes) | (5, Wire::Varint) => reader.skip(field.wire),
            // Later versions may add fields, once it is clear that this is ONNX.
            (27.., wire) if parts.seen() => reader.skip(wire),
            _ => Err(LoadError::NotOnnx("it does not have the structure of one".into())),
        };
        read.map_err(|e| parts.explain(e))?;
    }
    parts.finish()
}

/// What was found so far.
#[derive(Default)]
struct Parts {
    ir_version: u64,
    graph: Option<Graph>,
    has_opset: bool,
    has_ml: bool,
}

impl Parts {
    /// Whether enough was read to say that it is an ONNX model at all.
    fn seen(&self) -> bool {
        (1..=1000).contains(&self.ir_version)
    }

    /// A length that points beyond the end says "cut off" only of what was surely ONNX up to there.
    fn explain(&self, error: LoadError) -> LoadError {
        match error {
            LoadError::Truncated(_) | LoadError::NotOnnx(_) if !self.seen() => {
                LoadError::NotOnnx("it does not have the structure of one".into())
            }
            error => error,
        }
    }

    fn finish(self) -> Result<Outline, LoadError> {
        if !self.seen() {
            return Err(LoadError::NotOnnx("it does not have the structure of one".into()));
        }
        let graph = self.graph.ok_or_else(|| LoadError::Truncated("it has a header, but no graph".into()))?;
        if graph.nodes == 0 || graph.outputs.is_empty() {
            return Err(LoadError::NotOnnx("its graph has no node or no output".into()));
        }
        // Operator sets are written after the graph.
        if !self.has_opset && self.ir_version >= 3 {
            return Err(LoadError::Truncated("it does not say which operator set it uses".into()));
        }
        let mut outline = Outline { has_ml: self.has_ml || graph.has_ml, ..Outline::default() };
        // Up to IR version 3 every initializer was listed as an input too.
        for value in graph.inputs.into_iter().filter(|v| !graph.initializers.contains(&v.name)) {
            if value.shape.is_none() {
                outline.unranked.push(value.name.clone());
            }
            outline.signature.inputs.push(value.spec("input")?);
        }
        for mut value in graph.outputs {
            if let Some(classes) = graph.zip_maps.get(&value.name).filter(|_| value.datatype.is_none()) {
                value.datatype = Some(1);
                value.shape = Some(vec![-1, i64::try_from(*classes).unwrap_or(-1)]);
                outline.has_zip_map = true;
            }
            outline.signature.outputs.push(value.spec("output")?);
        }
        Ok(outline)
    }
}

#[derive(Default)]
struct Graph {
    nodes: usize,
    has_ml: bool,
    /// The outputs of ZipMap nodes, and the number of classes that each has.
    zip_maps: std::collections::HashMap<String, usize>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    initializers: std::collections::HashSet<String>,
}

/// GraphProto
fn graph(reader: &mut Reader, depth: usize) -> Result<Graph, LoadError> {
    if depth > DEEPEST {
        return Err(reader.malformed("graphs nested too deep"));
    }
    let end = reader.message()?;
    let mut graph = Graph::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => {
                let node = node(reader, depth)?;
                graph.nodes += 1;
                graph.has_ml |= node.has_ml;
                if node.op == "ZipMap" && node.has_ml {
                    at_most(MOST_VALUES, graph.zip_maps.len(), "ZipMaps")?;
                    graph.zip_maps.extend(node.outputs.into_iter().map(|output| (output, node.classes)));
                }
            }
            (5, Wire::Bytes) => {
                at_most(MOST_INITIALIZERS, graph.initializers.len(), "weights")?;
                graph.initializers.insert(tensor(reader)?);
            }
            (11, Wire::Bytes) => {
                at_most(MOST_VALUES, graph.inputs.len(), "inputs")?;
                graph.inputs.push(value(reader)?);
            }
            (12, Wire::Bytes) => {
                at_most(MOST_VALUES, graph.outputs.len(), "outputs")?;
                graph.outputs.push(value(reader)?);
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(graph)
}

/// What is kept takes more memory than it takes bytes in the file, so there must be an end to it.
fn at_most(most: usize, found: usize, what: &str) -> Result<(), LoadError> {
    if found < most { Ok(()) } else { Err(LoadError::UnsupportedSignature(format!("it has more than {most} {what}"))) }
}

/// FunctionProto: nodes that the graph's may call. Whether there is one of `ai.onnx.ml` among them.
fn function(reader: &mut Reader) -> Result<bool, LoadError> {
    let end = reader.message()?;
    let mut has_ml = false;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (7, Wire::Bytes) => has_ml |= node(reader, 0)?.has_ml,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(has_ml)
}

#[derive(Default)]
struct Node {
    op: String,
    outputs: Vec<String>,
    /// Whether it, or one in its graphs, is of `ai.onnx.ml`.
    has_ml: bool,
    /// How many class labels it has.
    classes: usize,
}

/// NodeProto: followed into its attributes, which may hold tensors and graphs.
fn node(reader: &mut Reader, depth: usize) -> Result<Node, LoadError> {
    let end = reader.message()?;
    let mut node = Node::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (2, Wire::Bytes) => {
                at_most(MOST_VALUES, node.outputs.len(), "outputs of one node")?;
                node.outputs.push(reader.string()?);
            }
            (4, Wire::Bytes) => node.op = reader.string()?,
            (5, Wire::Bytes) => attribute(reader, depth, &mut node)?,
            (7, Wire::Bytes) => node.has_ml |= reader.string()? == "ai.onnx.ml",
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(node)
}

/// AttributeProto
fn attribute(reader: &mut Reader, depth: usize, node: &mut Node) -> Result<(), LoadError> {
    let end = reader.message()?;
    let mut is_labels = false;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => is_labels = reader.string()?.starts_with("classlabels_"),
            (5 | 10, Wire::Bytes) => tensor(reader).map(drop)?,
            (6 | 11, Wire::Bytes) => node.has_ml |= graph(reader, depth + 1)?.has_ml,
            (8, Wire::Bytes) if is_labels => {
                let end = reader.message()?;
                while reader.at() < end {
                    reader.varint()?;
                    node.classes += 1;
                }
            }
            (8, wire @ Wire::Varint) | (9, wire @ Wire::Bytes) if is_labels => {
                reader.skip(wire)?;
                node.classes += 1;
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// The name of a TensorProto, which must hold its data itself.
fn tensor(reader: &mut Reader) -> Result<String, LoadError> {
    let end = reader.message()?;
    let mut name = String::new();
    let mut external = false;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (8, Wire::Bytes) => name = reader.string()?,
            (14, Wire::Varint) => external = reader.varint()? == 1,
            (_, wire) => reader.skip(wire)?,
        }
    }
    if external { Err(LoadError::ExternalData(name)) } else { Ok(name) }
}

/// OperatorSetIdProto
fn opset(reader: &mut Reader) -> Result<(), LoadError> {
    let end = reader.message()?;
    while let Some(field) = reader.field(end)? {
        reader.skip(field.wire)?;
    }
    Ok(())
}

/// An input or output, as declared.
#[derive(Default)]
struct Value {
    name: String,
    /// TensorProto.DataType; `None` if it is no tensor.
    datatype: Option<u64>,
    shape: Option<Vec<i64>>,
}

impl Value {
    fn spec(self, what: &str) -> Result<TensorSpec, LoadError> {
        let refuse =
            |problem: String| Err(LoadError::UnsupportedSignature(format!("{what} `{}` {problem}", self.name)));
        let datatype = match self.datatype {
            Some(1) => Datatype::Fp32,
            Some(2) => Datatype::Uint8,
            Some(3) => Datatype::Int8,
            Some(4) => Datatype::Uint16,
            Some(5) => Datatype::Int16,
            Some(6) => Datatype::Int32,
            Some(7) => Datatype::Int64,
            Some(8) => Datatype::Bytes,
            Some(9) => Datatype::Bool,
            Some(10) => Datatype::Fp16,
            Some(11) => Datatype::Fp64,
            Some(12) => Datatype::Uint32,
            Some(13) => Datatype::Uint64,
            Some(16) => Datatype::Bf16,
            Some(other) => {
                return refuse(format!("has ONNX datatype {other}, which the Open Inference Protocol has not"));
            }
            None => {
                return refuse(
                    "is a sequence, a map or untyped, not a tensor (of a classifier from scikit-learn: convert it \
                     with options={'zipmap': False})"
                        .into(),
                );
            }
        };
        Ok(TensorSpec { name: self.name, datatype, shape: self.shape.unwrap_or_default() })
    }
}

/// ValueInfoProto
fn value(reader: &mut Reader) -> Result<Value, LoadError> {
    let end = reader.message()?;
    let mut value = Value::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => value.name = reader.string()?,
            (2, Wire::Bytes) => value_type(reader, &mut value)?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(value)
}

/// TypeProto
fn value_type(reader: &mut Reader, value: &mut Value) -> Result<(), LoadError> {
    let end = reader.message()?;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => tensor_type(reader, value)?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// TypeProto.Tensor
fn tensor_type(reader: &mut Reader, value: &mut Value) -> Result<(), LoadError> {
    let end = reader.message()?;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Varint) => value.datatype = Some(reader.varint()?),
            (2, Wire::Bytes) => value.shape = Some(shape(reader)?),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// TensorShapeProto
fn shape(reader: &mut Reader) -> Result<Vec<i64>, LoadError> {
    let end = reader.message()?;
    let mut shape = Vec::new();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => {
                at_most(MOST_DIMENSIONS, shape.len(), "dimensions of one tensor")?;
                shape.push(dimension(reader)?);
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(shape)
}

/// TensorShapeProto.Dimension: a number, or else free.
fn dimension(reader: &mut Reader) -> Result<i64, LoadError> {
    let end = reader.message()?;
    let mut dimension = -1;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Varint) => dimension = reader.varint()?.cast_signed().max(-1),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(dimension)
}
