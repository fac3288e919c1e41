//! One inference: from the bytes of a request to those of its answer.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, StatusCode, header};
use modelyard_engine::{Engine, InferError};
use modelyard_protocol::{
    Coding, Encoded, Framing, InferRequest, InferResponse, JSON_LENGTH, Parameters, binary, parameter_timeout,
};

use super::answer::{Refusal, Response, with_body};
use super::form::{Asked, Form, OUTPUTS};
use super::{Body, late};
use crate::compute::{Call, Request, Unanswered};
use crate::models::Identity;

/// A request whose body is all there.
pub(crate) struct Inference {
    pub(super) identity: Arc<Identity>,
    pub(super) body: Body,
    pub(super) form: Form,
    pub(super) framing: Framing,
    /// How the answer may be compressed.
    pub(super) accepted: Coding,
    /// The largest body once it is no more compressed, in bytes.
    pub(super) limit: usize,
    pub(super) arrived: Instant,
}

/// What its answer depends on beside the outputs.
pub(crate) struct Reply {
    identity: Arc<Identity>,
    asked: Asked,
    accepted: Coding,
}

/// An answer, ready to be sent.
pub(crate) struct Written {
    body: Vec<u8>,
    json_length: Option<usize>,
    /// What its outputs are, where its form does not say it.
    outputs: Option<HeaderValue>,
    coding: Coding,
}

impl Request for Inference {
    type Reply = Reply;
    type Answer = Result<Written, Refusal>;

    fn read(self, engine: &dyn Engine) -> Result<(Call, Reply), Self::Answer> {
        self.decode(engine).map_err(Err)
    }

    fn write(reply: Reply, result: Result<Vec<modelyard_protocol::Tensor>, Unanswered>) -> Self::Answer {
        let outputs = result.map_err(|error| match error {
            Unanswered::Late => late(),
            Unanswered::Engine(InferError::BadInput(message)) => bad(message),
            Unanswered::Engine(error @ InferError::Failed(_)) => {
                tracing::warn!("{error}");
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        })?;
        let Reply { identity, asked, accepted } = reply;
        let (request, is_raw) = match asked {
            Asked::OpenInference { request, is_raw } => (request, is_raw),
            Asked::Other(other) => {
                let (body, outputs) = other.write(&outputs)?;
                let (body, coding) = accepted.encode(body);
                return Ok(Written { body, json_length: None, outputs, coding });
            }
        };
        let response = InferResponse {
            model_name: identity.name.clone(),
            model_version: Some(identity.version.clone()),
            id: request.id.clone(),
            parameters: Parameters::new(),
            outputs,
        };
        // An output without a JSON form is a matter of what was asked for: other outputs may have one.
        let encoded = response.encode(|output| is_raw || request.wants_binary(output));
        let Encoded { body, json_length } = encoded.map_err(|error| bad(error.to_string()))?;
        let (body, coding) = accepted.encode(body);
        Ok(Written { body, json_length, outputs: None, coding })
    }
}

impl Inference {
    fn decode(self, engine: &dyn Engine) -> Result<(Call, Reply), Refusal> {
        let body = self.framing.coding.decode(&self.body.bytes, self.limit)?;
        let (call, asked) = match &self.form {
            Form::OpenInference => read(&body, self.framing.json_length, self.arrived, engine)?,
            Form::Other(other) => {
                let (call, other) = other.read(&body, engine.signature())?;
                (call, Asked::Other(other))
            }
        };
        Ok((call, Reply { identity: self.identity, asked, accepted: self.accepted }))
    }
}

fn read(
    body: &[u8],
    json_length: Option<usize>,
    arrived: Instant,
    engine: &dyn Engine,
) -> Result<(Call, Asked), Refusal> {
    // No JSON at all is a raw request: a tensor and nothing said of it.
    let is_raw = json_length == Some(0);
    let mut request = if is_raw {
        let input = binary::raw_input(body, &engine.signature().inputs).map_err(|error| bad(error.to_string()))?;
        InferRequest { inputs: vec![input], ..InferRequest::default() }
    } else {
        InferRequest::decode(body, json_length).map_err(|error| bad(error.to_string()))?
    };
    let timeout = parameter_timeout(&request.parameters).map_err(|error| bad(error.to_string()))?;
    let call = Call {
        inputs: std::mem::take(&mut request.inputs),
        outputs: request.outputs.iter().map(|output| output.name.clone()).collect(),
        deadline: timeout.map(|timeout| arrived + timeout),
    };
    Ok((call, Asked::OpenInference { request, is_raw }))
}

pub(super) fn bad(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

impl Written {
    pub(super) fn into_response(self) -> Response {
        let content = if self.json_length.is_some() { "application/octet-stream" } else { "application/json" };
        let mut response = with_body(StatusCode::OK, content, self.body.into());
        let headers = response.headers_mut();
        if let Some(length) = self.json_length {
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
        if let Some(outputs) = self.outputs {
            headers.insert(OUTPUTS, outputs);
        }
        if let Some(coding) = self.coding.name() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    }
}
