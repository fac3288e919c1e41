//! What is told of a model: whether its versions are there, and what it takes and gives.

use modelyard_core::{Datatype, Signature, TensorSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SIGNATURE;

/// `GET /v1/models/{name}`. The same path is KServe's (V1), which tells other things of a model; members that are not a
/// protocol's own are passed over by its clients, so that this is both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    pub model_version_status: Vec<VersionStatus>,
    /// KServe's.
    pub name: String,
    /// KServe's: whether a version is available.
    pub ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    pub version: String,
    pub state: State,
    pub status: Status,
}

/// Where a version is in its life (`get_model_status.proto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    Start,
    Loading,
    Available,
    Unloading,
    End,
}

/// The last error of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub error_code: String,
    pub error_message: String,
}

impl ModelStatus {
    pub fn new(name: &str, versions: Vec<VersionStatus>) -> Self {
        let ready = versions.iter().any(|version| version.state == State::Available);
        Self { model_version_status: versions, name: name.to_owned(), ready }
    }
}

impl VersionStatus {
    pub fn new(version: &str, state: State) -> Self {
        let status = Status { error_code: "OK".into(), error_message: String::new() };
        Self { version: version.to_owned(), state, status }
    }
}

/// `GET /v1/models/{name}/metadata`. The definitions of signatures are below two members of one name, since TF Serving
/// prints a message that has such a field under its own.
pub fn metadata(name: &str, version: &str, signature: &Signature) -> Value {
    let tensors = |specs: &[TensorSpec]| -> Value {
        specs.iter().map(|spec| (spec.name.clone(), tensor(spec))).collect::<serde_json::Map<_, _>>().into()
    };
    let definition = json!({
        "inputs": tensors(&signature.inputs),
        "outputs": tensors(&signature.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    json!({
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: definition}}},
    })
}

/// A `TensorInfo`; 64-bit integers are strings in the JSON form of protocol buffers.
fn tensor(spec: &TensorSpec) -> Value {
    let dimensions: Vec<Value> = spec.shape.iter().map(|d| json!({"size": d.to_string(), "name": ""})).collect();
    json!({
        "dtype": dtype(spec.datatype),
        "tensor_shape": {"dim": dimensions, "unknown_rank": false},
        "name": spec.name,
    })
}

fn dtype(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "DT_BOOL",
        Datatype::Uint8 => "DT_UINT8",
        Datatype::Uint16 => "DT_UINT16",
        Datatype::Uint32 => "DT_UINT32",
        Datatype::Uint64 => "DT_UINT64",
        Datatype::Int8 => "DT_INT8",
        Datatype::Int16 => "DT_INT16",
        Datatype::Int32 => "DT_INT32",
        Datatype::Int64 => "DT_INT64",
        Datatype::Fp16 => "DT_HALF",
        Datatype::Fp32 => "DT_FLOAT",
        Datatype::Fp64 => "DT_DOUBLE",
        Datatype::Bf16 => "DT_BFLOAT16",
        Datatype::Bytes => "DT_STRING",
    }
}
