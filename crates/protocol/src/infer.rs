//! Inference requests and responses as JSON. Knows no model: names and shapes are checked by the engine.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use modelyard_core::Datatype;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json;
use crate::tensor::{MAX_RANK, Tensor, TensorData, TensorError};

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
    #[serde(default, skip_serializing)]
    parameters: Parameters,
    #[serde(default, borrow)]
    data: RawData<'a>,
}

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
    fn read(self) -> Result<Tensor, DecodeError> {
        let parsed = self.parse();
        let name = self.name.into_owned();
        match parsed {
            Ok((shape, data)) => Ok(Tensor { name, shape, data }),
            Err(problem) => Err(DecodeError::Tensor { name, problem }),
        }
    }

    fn parse(&self) -> Result<(Vec<usize>, TensorData), TensorError> {
        let datatype: Datatype = self
            .datatype
            .parse()
            .map_err(|_| TensorError::UnknownDatatype(self.datatype.chars().take(40).collect()))?;
        // Before all that recurses over the shape or repeats it in a message.
        if self.shape.len() > MAX_RANK {
            return Err(TensorError::Rank(self.shape.len()));
        }
        let shape = self.shape.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| TensorError::NegativeDimension(self.shape.clone()))?;
        match &self.data {
            RawData::Text(text) => Ok((shape.clone(), json::decode(text.get(), datatype, &shape)?)),
            _ if self.parameters.contains_key("binary_data_size") => Err(TensorError::BinaryExtension),
            _ => Err(TensorError::NoData),
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
        Ok(RawTensor {
            name: Cow::Borrowed(&tensor.name),
            datatype: Cow::Borrowed(tensor.datatype().as_str()),
            #[expect(clippy::cast_possible_wrap, reason = "a tensor's dimensions are at most isize::MAX")]
            shape: tensor.shape.iter().map(|d| *d as i64).collect(),
            parameters: Parameters::new(),
            data: RawData::Elements(&tensor.data),
        })
    }
}

fn read_tensors(raw: Vec<RawTensor<'_>>) -> Result<Vec<Tensor>, DecodeError> {
    // A set, since a body may hold a million tensors: comparing each with all would take hours.
    let mut names = HashSet::with_capacity(raw.len());
    if let Some(tensor) = raw.iter().find(|tensor| !names.insert(&*tensor.name)) {
        return Err(DecodeError::Twice(tensor.name.to_string()));
    }
    raw.into_iter().map(RawTensor::read).collect()
}

impl InferRequest {
    /// Reads a request. Parameters of inputs are not kept: none has a meaning yet.
    ///
    /// # Errors
    /// If it is not JSON of the protocol's form, or a tensor's data does not match its shape and datatype.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        let raw: RawRequest<'_> = serde_json::from_slice(body)?;
        Ok(Self {
            id: raw.id.map(Cow::into_owned),
            parameters: raw.parameters,
            inputs: read_tensors(raw.inputs)?,
            outputs: raw.outputs,
        })
    }

    /// # Errors
    /// If a tensor has no JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, EncodeError> {
        let raw = RawRequest {
            id: self.id.as_deref().map(Cow::Borrowed),
            parameters: self.parameters.clone(),
            inputs: self.inputs.iter().map(RawTensor::write).collect::<Result<_, _>>()?,
            outputs: self.outputs.clone(),
        };
        Ok(serde_json::to_vec(&raw)?)
    }
}

impl InferResponse {
    /// # Errors
    /// As [`InferRequest::from_json`].
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        let raw: RawResponse<'_> = serde_json::from_slice(body)?;
        Ok(Self {
            model_name: raw.model_name.into_owned(),
            model_version: raw.model_version.map(Cow::into_owned),
            id: raw.id.map(Cow::into_owned),
            parameters: raw.parameters,
            outputs: read_tensors(raw.outputs)?,
        })
    }

    /// # Errors
    /// If a tensor has no JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, EncodeError> {
        let raw = RawResponse {
            model_name: Cow::Borrowed(&self.model_name),
            model_version: self.model_version.as_deref().map(Cow::Borrowed),
            id: self.id.as_deref().map(Cow::Borrowed),
            parameters: self.parameters.clone(),
            outputs: self.outputs.iter().map(RawTensor::write).collect::<Result<_, _>>()?,
        };
        Ok(serde_json::to_vec(&raw)?)
    }
}
