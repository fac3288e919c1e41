//! Answers: a worker's, passed on, or the gateway's own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use modelyard_protocol::torch_serve::TorchError;
use modelyard_protocol::{ErrorBody, Protocol};
use serde::Serialize;

use crate::mirror::Handover;
use crate::upstream::Streamed;

pub(crate) const VARIANT: HeaderName = HeaderName::from_static("x-modelyard-variant");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-modelyard-version");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The body of an answer: here already, or passing through.
pub(crate) enum AnswerBody {
    Whole {
        /// `None`: nothing, or nothing more.
        bytes: Option<Bytes>,
        /// What happens when it has been written.
        then: Option<Box<Handover>>,
    },
    Streamed(Box<Streamed>),
}

impl AnswerBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), then: None }
    }

    /// All of it, as long as nothing was sent.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Whole { bytes, .. } => bytes.as_ref(),
            Self::Streamed(_) => None,
        }
    }

    /// Hands something over when this was written, or given up.
    pub(crate) fn hand_over_after(&mut self, handover: Handover) {
        if let Self::Whole { then, .. } = self {
            *then = Some(Box::new(handover));
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            Self::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.is_none(),
            Self::Streamed(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Streamed(stream) => stream.size_hint(),
        }
    }
}

pub(crate) type Answer = Response<AnswerBody>;

pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Response::new(AnswerBody::whole(bytes.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AnswerBody::whole(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// The message of an error of the gateway's own.
#[derive(Clone)]
struct Said(String);

pub(crate) fn error(status: StatusCode, message: impl Into<String>) -> Answer {
    let said = Said(message.into());
    let mut answer = json(status, &ErrorBody { error: said.0.clone() });
    answer.extensions_mut().insert(said);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Has an error of the gateway's own be of the form that the protocol has for it. Workers do so themselves.
pub(crate) fn say_in(protocol: Protocol, answer: &mut Answer) {
    // TF Serving's is that of the Open Inference Protocol.
    if protocol == Protocol::TorchServe
        && let Some(Said(message)) = answer.extensions_mut().remove()
    {
        let error = TorchError::new(answer.status().as_u16(), message);
        *answer.body_mut() = AnswerBody::whole(serde_json::to_vec(&error).unwrap_or_default().into());
    }
}

/// What concerns one connection only, whatever it says (RFC 9110 §7.6.1).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    const OTHERS: [HeaderName; 2] =
        [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE].contains(name)
        || OTHERS.contains(name)
}

/// What a message says that concerns its connection only.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Takes both out.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
}
