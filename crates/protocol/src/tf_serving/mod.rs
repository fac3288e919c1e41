//! TF Serving's REST form: paths, requests, answers, and the documents that tell of a model (tensorflow/serving,
//! `g3doc/api_rest.md`, `util/json_tensor.cc`, `model_servers/http_rest_api_util.cc`).
//!
//! Requests name no datatypes: those are the model's. Answers name no outputs where there is one; [`read_answer`] needs to
//! be told. Errors are the Open Inference Protocol's, `{"error": "…"}`.

mod answer;
mod documents;
mod path;
mod request;

pub use answer::{Reply, read_answer};
pub use documents::{ModelStatus, State, VersionStatus, metadata};
pub use path::{Pin, TfAction, TfPath, parse_path};
pub use request::{Asked, read};

/// What a model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Predict,
    Classify,
    Regress,
}

/// The one signature that a model has here.
const SIGNATURE: &str = "serving_default";
