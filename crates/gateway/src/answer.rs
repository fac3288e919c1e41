//! Answers: a worker's, passed on, or the gateway's own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use modelyard_protocol::torch_serve::TorchError;
use modelyard_protocol::{ErrorBody, Protocol};
use serde::Serialize;

use crate::mirror::Handover;

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
    Streamed(Incoming),
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
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.is_none(),
            Self::Streamed(stream) => stream.is_end_stream(),
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

/// Takes out what concerns one connection only (RFC 9110 §7.6.1).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const HOP_BY_HOP: [&str; 7] =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    named.iter().for_each(|name| {
        headers.remove(name);
    });
    HOP_BY_HOP.iter().for_each(|name| {
        headers.remove(*name);
    });
}
