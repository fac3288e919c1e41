//! Inference requests and responses as JSON, with tensors in it or, as bytes, behind it. Knows no model: names and
//! shapes are checked by the engine.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::tensor::{Tensor, TensorData, TensorError, checked, signed};
use crate::{binary, json};

/// A parameter of a request, a response or a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    String(String),
}

pub type Parameters = BTreeMap<String, Parameter>;

/// `POST /v2/models/{name}/infer`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferRequest {
    /// Echoed in the response.
    pub id: Option<String>,
    pub parameters: Parameters,
    pub inputs: Vec<Tensor>,
    /// Empty: all outputs are wanted.
    pub outputs: Vec<RequestedOutput>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestedOutput {
    pub name: String,
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

#[derive(Debug, Clone, PartialEq)]
pub struct InferResponse {
    pub model_name: String,
    pub model_version: Option<String>,
    pub id: Option<String>,
    pub parameters: Parameters,
    pub outputs: Vec<Tensor>,
}

/// Why a body is no request (or response) of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the body is not a valid request: {0}")]
    Json(#[from] serde_json::Error),
    #[error("tensor `{name}`: {problem}")]
    Tensor { name: String, problem: TensorError },
    #[error("tensor `{0}` is given twice")]
    Twice(String),
    #[error("Inference-Header-Content-Length is {header}, and the body has {body} bytes")]
    Header { header: usize, body: usize },
    #[error("the body has {0} bytes more than its tensors")]
    Trailing(usize),
    #[error("output `{output}`: the parameter `{parameter}` is not supported; leave it out")]
    Unsupported { output: String, parameter: &'static str },
}

/// A message as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub body: Vec<u8>,
    /// How much of it is JSON, if tensors follow: what `Inference-Header-Content-Length` says.
    pub json_length: Option<usize>,
}

/// Why a tensor has no JSON form.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("tensor `{name}`: {problem}")]
    Tensor { name: String, problem: TensorError },
    #[error("tensor `{0}` holds BYTES that are not UTF-8, which have no form in JSON")]
    NotUtf8(String),
    #[error("it could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct RawRequest<'a> {
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<RawTensor<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<RequestedOutput>,
}

#[derive(Serialize, Deserialize)]
struct RawResponse<'a> {
    #[serde(borrow)]
    model_name: Cow<'a, str>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    model_version: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters,
    #[serde(borrow)]
    outputs: Vec<RawTensor<'a>>,
}

#[derive(Serialize, Deserialize)]
struct RawTensor<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters,
    #[serde(default, borrow, skip_serializing_if = "RawData::is_absent")]
    data: RawData<'a>,
}

/// What says how many bytes a tensor has behind the JSON.
const BINARY_DATA_SIZE: &str = "binary_data_size";
/// What an output, and for all of them a request, is asked to be.
const BINARY_DATA: &str = "binary_data";
const BINARY_DATA_OUTPUT: &str = "binary_data_output";
/// Extensions of Triton that an answer without them would not be told apart from.
const UNSUPPORTED: [&str; 2] = ["classification", "shared_memory_region"];

/// Tensor data: text until the datatype is known when read, elements when written.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] &'a RawValue);

#[derive(Default)]
enum RawData<'a> {
    #[default]
    Absent,
    Text(&'a RawValue),
    Elements(&'a TensorData),
}

impl RawData<'_> {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawData<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|text| Self::Text(text.0))
    }
}

impl Serialize for RawData<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::Text(text) => text.serialize(serializer),
            Self::Elements(data) => data.serialize(serializer),
        }
    }
}

impl RawTensor<'_> {
    /// `rest` is what is left of the bytes behind the JSON, if there are such.
    fn read(self, rest: &mut Option<&[u8]>) -> Result<Tensor, DecodeError> {
        let parsed = self.parse(rest);
        let name = self.name.into_owned();
        match parsed {
            Ok((shape, data)) => Ok(Tensor { name, shape, data }),
            Err(problem) => Err(DecodeError::Tensor { name, problem }),
        }
    }

    fn parse(&self, rest: &mut Option<&[u8]>) -> Result<(Vec<usize>, TensorData), TensorError> {
        let (datatype, shape) = checked(&self.datatype, &self.shape)?;
        let data = match (&self.data, self.parameters.get(BINARY_DATA_SIZE)) {
            (RawData::Text(text), None) => json::decode(text.get(), datatype, &shape)?,
            (RawData::Text(_), Some(_)) => return Err(TensorError::TwoForms),
            (_, Some(size)) => binary::from_bytes(take(rest, size)?, datatype, &shape)?,
            (_, None) => return Err(TensorError::NoData),
        };
        Ok((shape, data))
    }

    fn new(tensor: &Tensor) -> RawTensor<'_> {
        RawTensor {
            name: Cow::Borrowed(&tensor.name),
            datatype: Cow::Borrowed(tensor.datatype().as_str()),
            shape: signed(&tensor.shape),
            parameters: Parameters::new(),
            data: RawData::Absent,
        }
    }

    fn write(tensor: &Tensor) -> Result<RawTensor<'_>, EncodeError> {
        match &tensor.data {
            TensorData::Fp16(_) | TensorData::Bf16(_) => {
                let problem = TensorError::NoJsonForm(tensor.datatype());
                return Err(EncodeError::Tensor { name: tensor.name.clone(), problem });
            }
            TensorData::Bytes(elements) if elements.iter().any(|e| std::str::from_utf8(e).is_err()) => {
                return Err(EncodeError::NotUtf8(tensor.name.clone()));
            }
            _ => {}
        }
        Ok(RawTensor { data: RawData::Elements(&tensor.data), ..RawTensor::new(tensor) })
    }

    /// Its elements are appended to `behind`.
    fn write_binary<'t>(tensor: &'t Tensor, behind: &mut Vec<u8>) -> RawTensor<'t> {
        let before = behind.len();
        binary::write(&tensor.data, behind);
        let size = Parameter::Uint((behind.len() - before) as u64);
        RawTensor { parameters: Parameters::from([(BINARY_DATA_SIZE.into(), size)]), ..RawTensor::new(tensor) }
    }
}

/// The next `size` bytes of what is behind the JSON.
fn take<'b>(rest: &mut Option<&'b [u8]>, size: &Parameter) -> Result<&'b [u8], TensorError> {
    let size = match size {
        Parameter::Int(size) => usize::try_from(*size).ok(),
        Parameter::Uint(size) => usize::try_from(*size).ok(),
        Parameter::Bool(_) | Parameter::Float(_) | Parameter::String(_) => None,
    };
    let (size, bytes) = (size.ok_or(TensorError::BinarySize)?, rest.ok_or(TensorError::NoBinary)?);
    let ends = TensorError::BinaryEnds { expected: size, found: bytes.len() };
    let (taken, left) = bytes.split_at_checked(size).ok_or(ends)?;
    *rest = Some(left);
    Ok(taken)
}

fn read_tensors(raw: Vec<RawTensor<'_>>, mut rest: Option<&[u8]>) -> Result<Vec<Tensor>, DecodeError> {
    // A set, since a body may hold a million tensors: comparing each with all would take hours.
    let mut names = HashSet::with_capacity(raw.len());
    if let Some(tensor) = raw.iter().find(|tensor| !names.insert(&*tensor.name)) {
        return Err(DecodeError::Twice(tensor.name.to_string()));
    }
    let tensors = raw.into_iter().map(|tensor| tensor.read(&mut rest)).collect::<Result<_, _>>()?;
    match rest {
        Some(left) if !left.is_empty() => Err(DecodeError::Trailing(left.len())),
        _ => Ok(tensors),
    }
}

/// The JSON of a body, and what is behind it, if anything may be.
fn split(body: &[u8], json_length: Option<usize>) -> Result<(&[u8], Option<&[u8]>), DecodeError> {
    let Some(header) = json_length else { return Ok((body, None)) };
    let too_long = DecodeError::Header { header, body: body.len() };
    body.split_at_checked(header).map(|(json, rest)| (json, Some(rest))).ok_or(too_long)
}

impl InferRequest {
    /// Reads a request. Parameters of inputs are not kept: none has a meaning yet.
    ///
    /// # Errors
    /// If it is not JSON of the protocol's form, or a tensor's data does not match its shape and datatype.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(body, None)
    }

    /// As [`InferRequest::from_json`], where `json_length` is what `Inference-Header-Content-Length` says, if it is
    /// there: tensors may follow so many bytes of JSON.
    ///
    /// # Errors
    /// If it is not of the protocol's form, or a tensor's data does not match its shape and datatype.
    pub fn decode(body: &[u8], json_length: Option<usize>) -> Result<Self, DecodeError> {
        let (json, rest) = split(body, json_length)?;
        let raw: RawRequest<'_> = serde_json::from_slice(json)?;
        for output in &raw.outputs {
            if let Some(parameter) = UNSUPPORTED.into_iter().find(|name| output.parameters.contains_key(*name)) {
                return Err(DecodeError::Unsupported { output: output.name.clone(), parameter });
            }
        }
        Ok(Self {
            id: raw.id.map(Cow::into_owned),
            parameters: raw.parameters,
            inputs: read_tensors(raw.inputs, rest)?,
            outputs: raw.outputs,
        })
    }

    /// Whether an output is to be bytes: by what is said of it, else of all.
    pub fn wants_binary(&self, output: &str) -> bool {
        let flag = |parameters: &Parameters, name: &str| match parameters.get(name) {
            Some(Parameter::Bool(wanted)) => Some(*wanted),
            _ => None,
        };
        let of_it = self.outputs.iter().find(|o| o.name == output).and_then(|o| flag(&o.parameters, BINARY_DATA));
        of_it.or_else(|| flag(&self.parameters, BINARY_DATA_OUTPUT)).unwrap_or(false)
    }

    /// # Errors
    /// If a tensor has no JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, EncodeError> {
        let inputs = self.inputs.iter().map(RawTensor::write).collect::<Result<_, _>>()?;
        self.json(inputs)
    }

    /// With all inputs behind the JSON.
    ///
    /// # Errors
    /// None that its values could be the cause of.
    pub fn to_binary(&self) -> Result<Encoded, EncodeError> {
        let mut behind = Vec::new();
        let inputs = self.inputs.iter().map(|tensor| RawTensor::write_binary(tensor, &mut behind)).collect();
        let mut body = self.json(inputs)?;
        let json_length = Some(body.len());
        body.append(&mut behind);
        Ok(Encoded { body, json_length })
    }

    fn json(&self, inputs: Vec<RawTensor<'_>>) -> Result<Vec<u8>, EncodeError> {
        let raw = RawRequest {
            id: self.id.as_deref().map(Cow::Borrowed),
            parameters: self.parameters.clone(),
            inputs,
            outputs: self.outputs.clone(),
        };
        Ok(serde_json::to_vec(&raw)?)
    }

    /// Asks for all outputs as bytes, whatever was said of them.
    pub fn want_binary(&mut self) {
        for output in &mut self.outputs {
            output.parameters.remove(BINARY_DATA);
        }
        self.parameters.insert(BINARY_DATA_OUTPUT.into(), Parameter::Bool(true));
    }
}

impl InferResponse {
    /// # Errors
    /// As [`InferRequest::from_json`].
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(body, None)
    }

    /// # Errors
    /// As [`InferRequest::decode`].
    pub fn decode(body: &[u8], json_length: Option<usize>) -> Result<Self, DecodeError> {
        let (json, rest) = split(body, json_length)?;
        let raw: RawResponse<'_> = serde_json::from_slice(json)?;
        Ok(Self {
            model_name: raw.model_name.into_owned(),
            model_version: raw.model_version.map(Cow::into_owned),
            id: raw.id.map(Cow::into_owned),
            parameters: raw.parameters,
            outputs: read_tensors(raw.outputs, rest)?,
        })
    }

    /// # Errors
    /// If a tensor has no JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, EncodeError> {
        self.encode(|_| false).map(|encoded| encoded.body)
    }

    /// With the outputs that `is_binary` says behind the JSON.
    ///
    /// # Errors
    /// If another has no JSON form.
    pub fn encode(&self, is_binary: impl Fn(&str) -> bool) -> Result<Encoded, EncodeError> {
        let mut behind = Vec::new();
        let outputs = self.outputs.iter().map(|tensor| match is_binary(&tensor.name) {
            true => Ok(RawTensor::write_binary(tensor, &mut behind)),
            false => RawTensor::write(tensor),
        });
        let outputs = outputs.collect::<Result<_, _>>()?;
        let raw = RawResponse {
            model_name: Cow::Borrowed(&self.model_name),
            model_version: self.model_version.as_deref().map(Cow::Borrowed),
            id: self.id.as_deref().map(Cow::Borrowed),
            parameters: self.parameters.clone(),
            outputs,
        };
        let mut body = serde_json::to_vec(&raw)?;
        let json_length = self.outputs.iter().any(|tensor| is_binary(&tensor.name)).then_some(body.len());
        body.append(&mut behind);
        Ok(Encoded { body, json_length })
    }
}
