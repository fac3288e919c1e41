//! From the bytes of a GraphDef to a plan with a signature.

use std::sync::Arc;

use modelyard_core::{Signature, TensorSpec};
use modelyard_engine::{GraphDefOutline, LoadError};
use prost::Message as _;
use tract_tensorflow::Tensorflow;
use tract_tensorflow::prelude::*;
use tract_tensorflow::tfpb::tensorflow::GraphDef;
use tract_tensorflow::tract_hir::infer::{DimFact, GenericFactoid, ShapeFactoid};

use crate::{operators, refuse, tensors};

type Loaded = (Signature, Arc<TypedRunnableModel>);

pub(crate) fn open(bytes: &[u8], outline: &GraphDefOutline) -> Result<Loaded, LoadError> {
    if let Some(name) = outline.unranked.first() {
        return Err(LoadError::UnsupportedSignature(format!(
            "input `{name}` has no rank: freeze the graph with a placeholder whose shape is known, but for free \
             dimensions"
        )));
    }
    let tensorflow = operators::tensorflow();
    let lacking = outline.operators.iter().filter(|(op, _)| !operators::known(&tensorflow, op));
    let lacking: Vec<String> = lacking.map(|(op, node)| format!("{op}, which node `{node}` is")).collect();
    if !lacking.is_empty() {
        let remedy = "export the model to ONNX, which has engines with more operators (docs/engines.md)";
        return Err(refuse(format!("it has no operator {}; {remedy}", lacking.join("; no "))));
    }
    let mut graph = GraphDef::decode(bytes).map_err(|error| LoadError::NotGraphDef(error.to_string()))?;
    graph.node.retain(|node| outline.nodes.contains(&node.name));
    for node in &mut graph.node {
        // Orders in time, which mean nothing without variables.
        node.input.retain(|input| !input.starts_with('^'));
        operators::check(node).map_err(|problem| refuse(format!("node `{}` ({}) {problem}", node.name, node.op)))?;
    }
    operators::fold_constants(&mut graph).map_err(refuse)?;
    // Rows that come in together have as many in each input; should a graph not take that, they are not tied.
    let tied = plan(&tensorflow, &graph, outline, true);
    let tied =
        if outline.inputs.len() > 1 { tied.or_else(|_| plan(&tensorflow, &graph, outline, false)) } else { tied };
    tied.map_err(|error| refuse(format!("{error:#}")))
}

/// `tied`: the first dimensions that are free are the same number in all inputs.
fn plan(tensorflow: &Tensorflow, graph: &GraphDef, outline: &GraphDefOutline, tied: bool) -> TractResult<Loaded> {
    let mut model = tensorflow.model_for_proto_model(graph)?;
    model.set_input_names(outline.inputs.iter().map(|spec| &spec.name))?;
    model.select_outputs_by_name(&outline.outputs)?;
    for (at, spec) in outline.inputs.iter().enumerate() {
        let dimension = |(axis, size): (usize, &i64)| -> DimFact {
            GenericFactoid::Only(match u64::try_from(*size) {
                Ok(size) => TDim::from(size.cast_signed()),
                Err(_) if axis == 0 && tied => model.symbols.sym("batch").into(),
                Err(_) => model.symbols.sym(&format!("free_{at}_{axis}")).into(),
            })
        };
        let shape = ShapeFactoid::closed(spec.shape.iter().enumerate().map(dimension).collect());
        let datatype = tensors::datum_type(spec)?;
        model.set_input_fact(at, InferenceFact::dt_shape(datatype, shape))?;
    }
    let model = model.into_optimized()?;
    let output = |(at, name): (usize, &String)| -> TractResult<TensorSpec> {
        let fact = model.output_fact(at)?;
        let size = |dim: &TDim| dim.to_i64().unwrap_or(-1);
        Ok(TensorSpec {
            name: name.clone(),
            datatype: tensors::datatype(name, fact.datum_type)?,
            shape: fact.shape.iter().map(size).collect(),
        })
    };
    let outputs = outline.outputs.iter().enumerate().map(output).collect::<TractResult<_>>()?;
    let signature = Signature { inputs: outline.inputs.clone(), outputs };
    Ok((signature, model.into_runnable()?))
}
