//! Inference requests and responses as messages. Their tensors are all raw, in a list of their own, or all typed.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::contents;
use super::messages::infer_parameter::ParameterChoice;
use super::messages::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::messages::model_infer_response::InferOutputTensor;
use super::messages::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::tensor::{Tensor, TensorData, TensorError, checked, signed};
use crate::{InferRequest, InferResponse, Parameter, Parameters, RequestedOutput, binary};

/// Why a message is no request (or response) of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("tensor `{name}`: {problem}")]
    Tensor { name: String, problem: TensorError },
    #[error("tensor `{0}` is given twice")]
    Twice(String),
    #[error("there are {tensors} tensors, and {raw} raw contents: there must be one for each, or none")]
    RawCount { tensors: usize, raw: usize },
    #[error("parameter `{0}` has no value")]
    NoValue(String),
    #[error("parameter `{0}` is not a finite number")]
    NotFinite(String),
}

/// Whether a request has raw tensors, and so wants them back.
pub fn is_raw(message: &ModelInferRequest) -> bool {
    !message.raw_input_contents.is_empty()
}

/// Parameters of inputs are not kept: none has a meaning yet.
///
/// # Errors
/// If a tensor's elements do not match its shape and datatype, or are given in two ways.
pub fn read_request(message: ModelInferRequest) -> Result<InferRequest, MessageError> {
    let inputs = message.inputs.into_iter().map(|input| Unread {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        contents: input.contents,
    });
    let output = |output: InferRequestedOutputTensor| {
        Ok(RequestedOutput { name: output.name, parameters: read_parameters(output.parameters)? })
    };
    Ok(InferRequest {
        id: said(message.id),
        parameters: read_parameters(message.parameters)?,
        inputs: read_tensors(inputs.collect(), &message.raw_input_contents)?,
        outputs: message.outputs.into_iter().map(output).collect::<Result<_, _>>()?,
    })
}

/// # Errors
/// As [`read_request`].
pub fn read_response(message: ModelInferResponse) -> Result<InferResponse, MessageError> {
    let outputs = message.outputs.into_iter().map(|output| Unread {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        contents: output.contents,
    });
    Ok(InferResponse {
        model_name: message.model_name,
        model_version: said(message.model_version),
        id: said(message.id),
        parameters: read_parameters(message.parameters)?,
        outputs: read_tensors(outputs.collect(), &message.raw_output_contents)?,
    })
}

/// With raw tensors if `raw` says so, or one of them has no other form.
pub fn write_request(request: InferRequest, name: &str, version: Option<&str>, raw: bool) -> ModelInferRequest {
    let output = |output: RequestedOutput| InferRequestedOutputTensor {
        name: output.name,
        parameters: write_parameters(output.parameters),
    };
    let (tensors, raw_input_contents) = write_tensors(request.inputs, raw);
    let inputs = tensors.into_iter().map(|Unread { name, datatype, shape, contents }| InferInputTensor {
        name,
        datatype,
        shape,
        parameters: BTreeMap::new(),
        contents,
    });
    ModelInferRequest {
        model_name: name.into(),
        model_version: version.unwrap_or_default().into(),
        id: request.id.unwrap_or_default(),
        parameters: write_parameters(request.parameters),
        inputs: inputs.collect(),
        outputs: request.outputs.into_iter().map(output).collect(),
        raw_input_contents,
    }
}

/// With raw tensors if `raw` says so, or one of them has no other form.
pub fn write_response(response: InferResponse, raw: bool) -> ModelInferResponse {
    let (tensors, raw_output_contents) = write_tensors(response.outputs, raw);
    let outputs = tensors.into_iter().map(|Unread { name, datatype, shape, contents }| InferOutputTensor {
        name,
        datatype,
        shape,
        parameters: BTreeMap::new(),
        contents,
    });
    ModelInferResponse {
        model_name: response.model_name,
        model_version: response.model_version.unwrap_or_default(),
        id: response.id.unwrap_or_default(),
        parameters: write_parameters(response.parameters),
        outputs: outputs.collect(),
        raw_output_contents,
    }
}

/// What messages leave out they say as the empty text.
fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// What the tensors of requests and of responses have in common.
struct Unread {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    contents: Option<InferTensorContents>,
}

fn read_tensors(unread: Vec<Unread>, raw: &[Bytes]) -> Result<Vec<Tensor>, MessageError> {
    if !raw.is_empty() && raw.len() != unread.len() {
        return Err(MessageError::RawCount { tensors: unread.len(), raw: raw.len() });
    }
    let mut names = HashSet::with_capacity(unread.len());
    if let Some(tensor) = unread.iter().find(|tensor| !names.insert(&*tensor.name)) {
        return Err(MessageError::Twice(tensor.name.clone()));
    }
    let tensor = |(index, unread): (usize, Unread)| {
        let Unread { name, datatype, shape, contents } = unread;
        match read_tensor(&datatype, &shape, contents, raw.get(index)) {
            Ok((shape, data)) => Ok(Tensor { name, shape, data }),
            Err(problem) => Err(MessageError::Tensor { name, problem }),
        }
    };
    unread.into_iter().enumerate().map(tensor).collect()
}

fn read_tensor(
    datatype: &str,
    shape: &[i64],
    typed: Option<InferTensorContents>,
    raw: Option<&Bytes>,
) -> Result<(Vec<usize>, TensorData), TensorError> {
    let (datatype, shape) = checked(datatype, shape)?;
    let data = match (typed, raw) {
        (None, Some(raw)) => binary::from_bytes(raw, datatype, &shape)?,
        // Some clients set an empty message where they mean none.
        (Some(typed), Some(raw)) if typed == InferTensorContents::default() => {
            binary::from_bytes(raw, datatype, &shape)?
        }
        (Some(_), Some(_)) => return Err(TensorError::TypedAndRaw),
        (typed, None) => contents::read(typed.unwrap_or_default(), datatype, &shape)?,
    };
    Ok((shape, data))
}

fn write_tensors(tensors: Vec<Tensor>, raw: bool) -> (Vec<Unread>, Vec<Bytes>) {
    let has_no_type = |tensor: &Tensor| matches!(tensor.data, TensorData::Fp16(_) | TensorData::Bf16(_));
    let raw = raw || tensors.iter().any(has_no_type);
    let mut behind = Vec::new();
    let write = |Tensor { name, shape, data }: Tensor| {
        let datatype = data.datatype().as_str().to_owned();
        let mut write_raw = |data: &TensorData| {
            let mut bytes = Vec::new();
            binary::write(data, &mut bytes);
            behind.push(Bytes::from(bytes));
        };
        let contents = if raw {
            write_raw(&data);
            None
        } else {
            contents::write(data).map_err(|data| write_raw(&data)).ok()
        };
        Unread { name, datatype, shape: signed(&shape), contents }
    };
    let tensors = tensors.into_iter().map(write).collect();
    (tensors, behind)
}

fn read_parameters(parameters: BTreeMap<String, InferParameter>) -> Result<Parameters, MessageError> {
    let read = |(name, parameter): (String, InferParameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
            Some(ParameterChoice::Uint64Param(value)) => Parameter::Uint(value),
            // JSON, in which it may go on, has no other numbers.
            Some(ParameterChoice::DoubleParam(value)) if !value.is_finite() => {
                return Err(MessageError::NotFinite(name));
            }
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Float(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::String(value),
            None => return Err(MessageError::NoValue(name)),
        };
        Ok((name, value))
    };
    parameters.into_iter().map(read).collect()
}

fn write_parameters(parameters: Parameters) -> BTreeMap<String, InferParameter> {
    let write = |(name, parameter)| {
        let choice = match parameter {
            Parameter::Bool(value) => ParameterChoice::BoolParam(value),
            Parameter::Int(value) => ParameterChoice::Int64Param(value),
            Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
            Parameter::Float(value) => ParameterChoice::DoubleParam(value),
            Parameter::String(value) => ParameterChoice::StringParam(value),
        };
        (name, InferParameter { parameter_choice: Some(choice) })
    };
    parameters.into_iter().map(write).collect()
}
