//! The operators: tract's, those that it lacks and that are little work, and checks of what it would pass over.

use std::collections::HashMap;

use tract_tensorflow::Tensorflow;
use tract_tensorflow::model::ParsingContext;
use tract_tensorflow::ops::nn::fused_batch_norm::fused_batch_norm;
use tract_tensorflow::tfpb::tensorflow::{GraphDef, NodeDef, TensorProto};
use tract_tensorflow::tract_hir::internal::*;
use tract_tensorflow::tract_hir::ops;
use tract_tensorflow::tract_hir::ops::activations::{Elu, LeakyRelu, Selu};
use tract_tensorflow::tract_hir::ops::cnn::{Conv, PaddingSpec};
use tract_tensorflow::tract_hir::ops::identity::Identity;
use tract_tensorflow::tract_hir::ops::nn::{Reducer, Softmax};
use tract_tensorflow::tract_hir::tract_core::ops::nn as core_nn;

use crate::constants;

/// What was the value of a constant input: [`fold_constants`].
const AXIS: &str = "_modelyard_axis";
const PADS: &str = "_modelyard_pads";
/// The scale and alpha of SELU (Klambauer et al. 2017), as TensorFlow has them.
const SELU: (f32, f32) = (1.050_701, 1.673_263_2);

/// The most that a dimension is padded by, at each end.
const MOST_PADDING: usize = 1 << 16;

type Built = TractResult<Box<dyn InferenceOp>>;

pub(crate) fn tensorflow() -> Tensorflow {
    let mut tensorflow = tract_tensorflow::tensorflow();
    let register = &mut tensorflow.op_register;
    // Its remainder has the sign of the dividend; TensorFlow's, that of the divisor.
    register.0.remove("FloorMod");
    for op in ["StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "EnsureShape", "PlaceholderWithDefault"]
    {
        register.insert(op, |_, _| Ok(Box::new(Identity)));
    }
    register.insert("Const", konst);
    register.insert("Conv2D", conv2d);
    register.insert("FusedBatchNormV2", fused_batch_norm);
    register.insert("FusedBatchNormV3", fused_batch_norm);
    // tract flattens what follows the first axis; TensorFlow goes by the last.
    register.insert("Softmax", |_, _| Ok(expand(Softmax::new(-1))));
    register.insert("LogSoftmax", |_, _| Ok(expand(LogSoftmax)));
    register.insert("Elu", |_, _| Ok(expand(Elu(1.0))));
    register.insert("Selu", |_, _| Ok(expand(Selu(SELU.1, SELU.0))));
    register.insert("LeakyRelu", |_, node| Ok(expand(LeakyRelu(node.get_attr_opt_float("alpha")?.unwrap_or(0.2)))));
    register.insert("Exp", |_, _| Ok(ops::math::exp().into_hir()));
    register.insert("Sqrt", |_, _| Ok(ops::math::sqrt().into_hir()));
    register.insert("Square", |_, _| Ok(ops::math::square().into_hir()));
    register.insert("Reciprocal", |_, _| Ok(ops::math::recip().into_hir()));
    register.insert("Floor", |_, _| Ok(ops::math::floor().into_hir()));
    register.insert("Round", |_, _| Ok(ops::math::round_half_to_even().into_hir()));
    register.insert("Rint", |_, _| Ok(ops::math::round_half_to_even().into_hir()));
    register.insert("Sign", |_, _| Ok(ops::math::sign().into_hir()));
    register.insert("Sin", |_, _| Ok(ops::math::sin().into_hir()));
    register.insert("Cos", |_, _| Ok(ops::math::cos().into_hir()));
    register.insert("Erf", |_, _| Ok(ops::math::erf().into_hir()));
    register.insert("Erfc", |_, _| Ok(expand(Erfc)));
    register.insert("LogicalNot", |_, _| Ok(ops::logic::not().into_hir()));
    register.insert("NotEqual", |_, _| Ok(ops::logic::CompNE.into_hir()));
    register.insert("SelectV2", |_, _| Ok(expand(ops::logic::Iff)));
    register.insert("SquaredDifference", |_, _| Ok(expand(SquaredDifference)));
    register.insert("BatchMatMul", batch_mat_mul);
    register.insert("BatchMatMulV2", batch_mat_mul);
    register.insert("ArgMax", |_, node| arg(node, Reducer::ArgMax(false)));
    register.insert("ArgMin", |_, node| arg(node, Reducer::ArgMin(false)));
    register.insert("Split", split);
    // tract's own wants the paddings as TDim, which constants are not.
    register.insert("Pad", pad);
    tensorflow
}

pub(crate) fn known(tensorflow: &Tensorflow, op: &str) -> bool {
    tensorflow.op_register.0.contains_key(op)
}

/// What of a node is not computed as TensorFlow would.
pub(crate) fn check(node: &NodeDef) -> Result<(), String> {
    let told = |error: TractError| format!("has an attribute that is broken: {error:#}");
    let text = |name: &str| node.get_attr_opt_raw_str(name).map_err(told);
    let number = |name: &str| node.get_attr_opt_int::<i64>(name).map_err(told).map(Option::unwrap_or_default);
    match node.op.as_str() {
        "StridedSlice" if number("ellipsis_mask")? != 0 || number("new_axis_mask")? != 0 => {
            Err("has an ellipsis or a new axis, which is not computed here".into())
        }
        "BiasAdd" | "FusedBatchNorm" | "FusedBatchNormV2" | "FusedBatchNormV3"
            if text("data_format")?.is_some_and(|format| format != b"NHWC") =>
        {
            Err("has the data format NCHW, which is not computed here: freeze the graph with NHWC".into())
        }
        "FusedBatchNorm" | "FusedBatchNormV2" | "FusedBatchNormV3"
            if node.get_attr_opt_bool("is_training").map_err(told)?.unwrap_or(true) =>
        {
            Err("normalises by its batch: freeze the graph for inference, not for training".into())
        }
        "GatherV2" if number("batch_dims")? != 0 => Err("has batch dimensions, which are not computed here".into()),
        _ => Ok(()),
    }
}

/// Puts what must be known of ArgMax, Split and Pad, a constant input of theirs, into an attribute.
pub(crate) fn fold_constants(graph: &mut GraphDef) -> Result<(), String> {
    let constants: HashMap<String, TensorProto> = graph
        .node
        .iter()
        .filter(|node| node.op == "Const")
        .filter_map(|node| Some((node.name.clone(), node.get_attr_tensor_proto()?)))
        .collect();
    for node in &mut graph.node {
        let (place, key, what) = match node.op.as_str() {
            "ArgMax" | "ArgMin" => (1, AXIS, "an axis"),
            "Split" => (0, AXIS, "an axis"),
            "Pad" => (1, PADS, "paddings"),
            _ => continue,
        };
        let proto = node.input.get(place).and_then(|name| constants.get(name.trim_end_matches(":0")));
        let values = proto.and_then(|proto| integers(proto).ok());
        let values =
            values.ok_or_else(|| format!("node `{}` ({}) has {what} that is no constant", node.name, node.op))?;
        node.input.remove(place);
        node.attr.insert(key.to_owned(), values.into());
    }
    Ok(())
}

fn integers(proto: &TensorProto) -> TractResult<Vec<i64>> {
    let tensor = constants::tensor(proto)?;
    Ok(tensor.cast_to::<i64>()?.try_as_plain_ram()?.as_slice::<i64>()?.to_vec())
}

trait Constant {
    /// The value of a Const.
    fn get_attr_tensor_proto(&self) -> Option<TensorProto>;
}

impl Constant for NodeDef {
    fn get_attr_tensor_proto(&self) -> Option<TensorProto> {
        use tract_tensorflow::tfpb::tensorflow::attr_value::Value;
        match self.attr.get("value")?.value.as_ref()? {
            Value::Tensor(proto) => Some(proto.clone()),
            _ => None,
        }
    }
}

fn konst(_: &ParsingContext, node: &NodeDef) -> Built {
    let proto = node.get_attr_tensor_proto().with_context(|| format!("node `{}` has no value", node.name))?;
    let value = constants::tensor(&proto).with_context(|| format!("node `{}`", node.name))?;
    Ok(Box::new(ops::konst::Const::new(value.into())?))
}

/// With dilations, which tract's own leaves out.
fn conv2d(_: &ParsingContext, node: &NodeDef) -> Built {
    let spatial = |name: &str| -> TractResult<TVec<usize>> {
        let all: Vec<usize> = if node.attr.contains_key(name) { node.get_attr_list_int(name)? } else { vec![1; 4] };
        match all.as_slice() {
            [1, height, width, 1] => Ok(tvec!(*height, *width)),
            other => bail!("node `{}` has {name} {other:?}, not [1, height, width, 1]", node.name),
        }
    };
    let format = node.get_attr_opt_raw_str("data_format")?.unwrap_or(b"NHWC");
    ensure!(format == b"NHWC", "node `{}` has the data format NCHW: freeze the graph with NHWC", node.name);
    let padding = match node.get_attr_raw_str("padding")? {
        b"VALID" => PaddingSpec::Valid,
        b"SAME" => PaddingSpec::SameUpper,
        other => bail!("node `{}` has padding {}", node.name, String::from_utf8_lossy(other)),
    };
    let conv = Conv::default().nhwc().hwio().padding(padding).strides(spatial("strides")?);
    Ok(expand(conv.dilations(spatial("dilations")?)))
}

fn batch_mat_mul(_: &ParsingContext, node: &NodeDef) -> Built {
    let (a, b) = (node.get_attr_opt_bool("adj_x")?, node.get_attr_opt_bool("adj_y")?);
    let op = ops::matmul::MatMulInference::default();
    Ok(expand(op.with_a_trans(a.unwrap_or(false)).with_b_trans(b.unwrap_or(false))))
}

fn axis(node: &NodeDef) -> TractResult<i64> {
    match node.get_attr_list_int::<i64>(AXIS)?.as_slice() {
        [axis] => Ok(*axis),
        other => bail!("node `{}` has {} axes, not one", node.name, other.len()),
    }
}

fn pad(_: &ParsingContext, node: &NodeDef) -> Built {
    let sizes = node.get_attr_list_int::<i64>(PADS)?;
    let sizes =
        sizes.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n <= MOST_PADDING)).collect::<Option<Vec<_>>>();
    let sizes = sizes.with_context(|| format!("node `{}` has absurd paddings", node.name))?;
    let pads = sizes.as_chunks::<2>().0.iter().map(|[before, after]| (*before, *after)).collect();
    let zero = Tensor::zero_scalar_dt(node.get_attr_datum_type("T")?)?;
    Ok(Box::new(ops::array::Pad { pads, mode: ops::array::PadMode::Constant(zero.into()) }))
}

fn arg(node: &NodeDef, reducer: Reducer) -> Built {
    let axis = axis(node)?;
    let datatype = node.get_attr_opt_datum_type("output_type")?.unwrap_or(DatumType::I64);
    ensure!(datatype == DatumType::I64, "node `{}` gives {datatype:?}, not INT64", node.name);
    Ok(expand(ops::nn::Reduce { axes: Some(vec![axis]), keep_dims: false, reducer }))
}

fn split(_: &ParsingContext, node: &NodeDef) -> Built {
    let (axis, parts) = (axis(node)?, node.get_attr_int::<i64>("num_split")?);
    let parts = usize::try_from(parts).ok().filter(|n| (1..=4096).contains(n));
    let parts = parts.with_context(|| format!("node `{}` has an absurd number of parts", node.name))?;
    Ok(expand(ops::array::Split::new(isize::try_from(axis)?, parts, None)))
}

/// (a - b)²
#[derive(Debug, Clone)]
struct SquaredDifference;

impl Expansion for SquaredDifference {
    fn name(&self) -> StaticName {
        "SquaredDifference".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &inputs[1].datum_type)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.given_2(&inputs[0].shape, &inputs[1].shape, move |solver, a, b| {
            let shape = tract_tensorflow::tract_core::broadcast::multi_broadcast(&[a, b])?;
            solver.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let inputs = ops::binary::wire_rank_broadcast(prefix, model, inputs)?;
        let difference = model.wire_node(format!("{prefix}.difference"), ops::math::sub(), &inputs)?;
        model.wire_node(prefix, ops::math::mul(), &[difference[0], difference[0]])
    }
}

/// 1 - erf x
#[derive(Debug, Clone)]
struct Erfc;

impl Expansion for Erfc {
    fn name(&self) -> StaticName {
        "Erfc".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        same(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        let one = tensor0(1_f32).cast_to_dt(fact.datum_type)?.into_owned().broadcast_into_rank(fact.rank())?;
        let one = model.add_const(format!("{prefix}.one"), one)?;
        let erf = model.wire_node(format!("{prefix}.erf"), ops::math::erf(), inputs)?;
        model.wire_node(prefix, ops::math::sub(), &[one, erf[0]])
    }
}

/// Of an operator whose output is as its input.
fn same<'r, 'p: 'r>(solver: &mut Solver<'r>, inputs: &'p [TensorProxy], outputs: &'p [TensorProxy]) -> InferenceResult {
    check_input_arity(inputs, 1)?;
    check_output_arity(outputs, 1)?;
    solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
    solver.equals(&inputs[0].shape, &outputs[0].shape)
}

/// x - log Σ exp x, over the last axis.
#[derive(Debug, Clone)]
struct LogSoftmax;

impl Expansion for LogSoftmax {
    fn name(&self) -> StaticName {
        "LogSoftmax".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        same(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let rank = model.outlet_fact(inputs[0])?.rank();
        ensure!(rank > 0, "`{prefix}` has no axis");
        let kind = core_nn::SoftmaxKind::LogSoftmax;
        model.wire_node(prefix, core_nn::Softmax { axes: tvec!(rank - 1), quant_output_dt: None, kind }, inputs)
    }
}
