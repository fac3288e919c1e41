//! Answers as they are made here: whole, in memory.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use modelyard_protocol::torch_serve::TorchError;
use modelyard_protocol::{ErrorBody, FramingError, Protocol};
use serde::Serialize;

pub(crate) type Response = http::Response<Bytes>;

/// Why there is no answer, as the protocol says it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    message: String,
    /// For 429 and 503: when to try again, in seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: String) -> Self {
        let retry_after = (status == StatusCode::TOO_MANY_REQUESTS).then_some(1);
        Self { status, message, retry_after }
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds.max(1)), ..self }
    }

    /// As the protocol of the request has it.
    pub(crate) fn said_in(self, protocol: Protocol) -> Response {
        let mut response = match protocol {
            Protocol::TorchServe => json(self.status, &TorchError::new(self.status.as_u16(), self.message.as_str())),
            _ => json(self.status, &ErrorBody { error: self.message }),
        };
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<FramingError> for Refusal {
    fn from(error: FramingError) -> Self {
        let status = match error {
            FramingError::JsonLength | FramingError::Broken(_) => StatusCode::BAD_REQUEST,
            FramingError::Coding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            FramingError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, error.to_string())
    }
}

/// # Errors
/// 405.
pub(crate) fn must_be(method: &Method, expected: &Method) -> Result<(), Refusal> {
    // The server leaves the body out of answers to HEAD.
    if method == expected || (method == Method::HEAD && expected == Method::GET) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {expected} here, not {method}")))
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => with_body(status, "application/json", body.into()),
        // None of what is written here fails to be.
        Err(error) => with_body(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into()),
    }
}

pub(crate) fn with_body(status: StatusCode, content: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    response
}
