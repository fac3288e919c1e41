//! Reads the outline of a frozen TensorFlow graph, a GraphDef: is it one, is it whole, what goes in and out.
//!
//! Reads no weights and runs nothing. Field numbers are those of graph.proto, node_def.proto, attr_value.proto and
//! types.proto (github.com/tensorflow/tensorflow, tensorflow/core/framework).
//!
//! A GraphDef has no signature. Its outputs are the nodes with a result that none takes, its inputs the placeholders
//! that those need.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use modelyard_core::{Datatype, TensorSpec};

use crate::error::LoadError;
use crate::protobuf::{Reader, Wire};

/// Operators that stand for state or functions, which a frozen graph has none of.
const UNFROZEN: [&str; 14] = [
    "Variable",
    "VariableV2",
    "AutoReloadVariable",
    "TemporaryVariable",
    "VarHandleOp",
    "VarIsInitializedOp",
    "ReadVariableOp",
    "AssignVariableOp",
    "Assign",
    "RestoreV2",
    "PartitionedCall",
    "StatefulPartitionedCall",
    "HashTableV2",
    "IteratorV2",
];
/// Operators without a result, or with one that is of no interest.
const SILENT: [&str; 6] = ["NoOp", "Assert", "Const", "Placeholder", "Print", "PrintV2"];

/// What a GraphDef declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphDefOutline {
    /// With an empty shape for those of [`GraphDefOutline::unranked`].
    pub inputs: Vec<TensorSpec>,
    /// Inputs for which not even a rank is declared.
    pub unranked: Vec<String>,
    /// The names of the nodes whose first result is an output.
    pub outputs: Vec<String>,
    /// The names of the nodes that the outputs need.
    pub nodes: HashSet<String>,
    /// The operators of those, each with the name of the first node that is one.
    pub operators: BTreeMap<String, String>,
}

#[derive(Default)]
struct Node {
    name: String,
    op: String,
    inputs: Vec<String>,
    datatype: Option<u64>,
    shape: Option<Vec<i64>>,
}

/// # Errors
/// If it is no whole frozen graph, or takes what is no tensor of the Open Inference Protocol.
pub fn read_graph_def(path: &Path) -> Result<GraphDefOutline, LoadError> {
    let mut reader = Reader::new(crate::open(path)?, LoadError::NotGraphDef)?;
    let end = reader.length();
    let mut nodes = Vec::new();
    let explain = |error, nodes: &[Node]| match error {
        // Of what is no graph, lengths say nothing.
        LoadError::Truncated(_) | LoadError::NotGraphDef(_) if nodes.is_empty() => structure(),
        error => error,
    };
    while let Some(field) = reader.field(end).map_err(|e| explain(e, &nodes))? {
        let read = match (field.number, field.wire) {
            (1, Wire::Bytes) => node(&mut reader).map(|node| nodes.push(node)),
            // saved_model_schema_version, with which a SavedModel begins.
            (1, Wire::Varint) if nodes.is_empty() => return Err(saved_model_or_else(&mut reader)),
            (2 | 4 | 5, Wire::Bytes) | (3, Wire::Varint) => reader.skip(field.wire),
            (6.., wire) if !nodes.is_empty() => reader.skip(wire),
            _ => Err(structure()),
        };
        read.map_err(|e| explain(e, &nodes))?;
    }
    outline(nodes)
}

fn structure() -> LoadError {
    LoadError::NotGraphDef("it does not have the structure of one".into())
}

/// Begins after the tag of `saved_model_schema_version`.
fn saved_model_or_else(reader: &mut Reader) -> LoadError {
    let end = reader.length();
    let schema = reader.varint();
    match (schema, reader.field(end)) {
        (Ok(1), Ok(Some(field))) if (field.number, field.wire) == (2, Wire::Bytes) => LoadError::SavedModel,
        _ => structure(),
    }
}

fn outline(nodes: Vec<Node>) -> Result<GraphDefOutline, LoadError> {
    let mut places = HashMap::new();
    for (place, node) in nodes.iter().enumerate() {
        if places.insert(node.name.as_str(), place).is_some() {
            return Err(LoadError::NotGraphDef(format!("two of its nodes are named `{}`", node.name)));
        }
    }
    let mut is_taken = vec![false; nodes.len()];
    let mut sources: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let mut own = Vec::new();
        for input in &node.inputs {
            let place = places.get(source(input)).copied().ok_or_else(|| {
                LoadError::NotGraphDef(format!("node `{}` takes `{input}`, which there is not", node.name))
            })?;
            // `^name` is an order in time, not a tensor.
            if !input.starts_with('^') {
                is_taken[place] = true;
                own.push(place);
            }
        }
        sources.push(own);
    }
    let gives = |place: &usize| !is_taken[*place] && !SILENT.contains(&nodes[*place].op.as_str());
    let outputs: Vec<usize> = (0..nodes.len()).filter(gives).collect();
    if outputs.is_empty() {
        return Err(LoadError::NotGraphDef("it computes nothing: it has no node whose result none takes".into()));
    }
    let mut is_needed = vec![false; nodes.len()];
    let mut ahead = outputs.clone();
    while let Some(place) = ahead.pop() {
        if !std::mem::replace(&mut is_needed[place], true) {
            ahead.extend(&sources[place]);
        }
    }
    let mut outline = GraphDefOutline {
        outputs: outputs.into_iter().map(|place| nodes[place].name.clone()).collect(),
        ..GraphDefOutline::default()
    };
    for (node, _) in nodes.into_iter().zip(is_needed).filter(|(_, is_needed)| *is_needed) {
        if UNFROZEN.contains(&node.op.as_str()) {
            return Err(LoadError::NotFrozen { node: node.name, op: node.op });
        }
        if node.op == "Placeholder" {
            if node.shape.is_none() {
                outline.unranked.push(node.name.clone());
            }
            outline.inputs.push(input(&node)?);
        }
        outline.nodes.insert(node.name.clone());
        outline.operators.entry(node.op).or_insert(node.name);
    }
    Ok(outline)
}

/// The node that an input comes from: of `name`, `name:1` and `^name`, the name.
fn source(input: &str) -> &str {
    let name = input.strip_prefix('^').unwrap_or(input);
    name.split_once(':').map_or(name, |(name, _)| name)
}

fn input(node: &Node) -> Result<TensorSpec, LoadError> {
    let datatype = match node.datatype {
        Some(1) => Datatype::Fp32,
        Some(2) => Datatype::Fp64,
        Some(3) => Datatype::Int32,
        Some(4) => Datatype::Uint8,
        Some(5) => Datatype::Int16,
        Some(6) => Datatype::Int8,
        Some(7) => Datatype::Bytes,
        Some(9) => Datatype::Int64,
        Some(10) => Datatype::Bool,
        Some(14) => Datatype::Bf16,
        Some(17) => Datatype::Uint16,
        Some(19) => Datatype::Fp16,
        Some(22) => Datatype::Uint32,
        Some(23) => Datatype::Uint64,
        other => {
            let told = other.map_or_else(|| "no datatype".to_owned(), |n| format!("TensorFlow's datatype {n}"));
            return Err(LoadError::UnsupportedSignature(format!(
                "input `{}` has {told}, which the Open Inference Protocol has not",
                node.name
            )));
        }
    };
    Ok(TensorSpec { name: node.name.clone(), datatype, shape: node.shape.clone().unwrap_or_default() })
}

/// NodeDef
fn node(reader: &mut Reader) -> Result<Node, LoadError> {
    let end = reader.message()?;
    let mut node = Node::default();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => node.name = reader.string()?,
            (2, Wire::Bytes) => node.op = reader.string()?,
            (3, Wire::Bytes) => node.inputs.push(reader.string()?),
            (5, Wire::Bytes) => attribute(reader, &mut node)?,
            (4 | 6.., wire) => reader.skip(wire)?,
            _ => return Err(structure()),
        }
    }
    if node.name.is_empty() || node.op.is_empty() {
        return Err(structure());
    }
    Ok(node)
}

/// An entry of NodeDef.attr.
fn attribute(reader: &mut Reader, node: &mut Node) -> Result<(), LoadError> {
    let end = reader.message()?;
    let mut key = String::new();
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Bytes) => key = reader.string()?,
            (2, Wire::Bytes) if key == "dtype" || key == "shape" => value(reader, node)?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// AttrValue, of type `type` or `shape`.
fn value(reader: &mut Reader, node: &mut Node) -> Result<(), LoadError> {
    let end = reader.message()?;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (6, Wire::Varint) => node.datatype = Some(reader.varint()?),
            (7, Wire::Bytes) => node.shape = shape(reader)?,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(())
}

/// TensorShapeProto: `None` if not even the rank is known.
fn shape(reader: &mut Reader) -> Result<Option<Vec<i64>>, LoadError> {
    let end = reader.message()?;
    let mut shape = Vec::new();
    let mut unknown = false;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (2, Wire::Bytes) => shape.push(dimension(reader)?),
            (3, Wire::Varint) => unknown = reader.varint()? != 0,
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok((!unknown).then_some(shape))
}

/// TensorShapeProto.Dim: -1 is free.
fn dimension(reader: &mut Reader) -> Result<i64, LoadError> {
    let end = reader.message()?;
    let mut size = 0;
    while let Some(field) = reader.field(end)? {
        match (field.number, field.wire) {
            (1, Wire::Varint) => size = reader.varint()?.cast_signed().max(-1),
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(size)
}
