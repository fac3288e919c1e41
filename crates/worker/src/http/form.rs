//! What an inference is asked in: the protocol of its path, whose body is read and answered as it has it. Knows no HTTP
//! but a header's value: its callers are the compute threads.

use std::convert::Infallible;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::ready;
use futures::stream::once;
use http::{HeaderName, HeaderValue};
use modelyard_core::{Signature, TensorSpec};
use modelyard_protocol::tf_serving::{self, Verb};
use modelyard_protocol::torch_serve::{self, Part};
use modelyard_protocol::{InferRequest, Tensor};
use multer::Multipart;

use super::answer::Refusal;
use super::infer::bad;
use crate::compute::Call;

/// What the outputs of an answer are, for the gateway that compares answers: name, datatype and shape of each, as JSON.
pub(super) const OUTPUTS: HeaderName = HeaderName::from_static(modelyard_protocol::OUTPUTS);
/// A longer one is left out: servers take some kilobytes of headers, and not more.
const LONGEST_OUTPUTS: usize = 4 << 10;
/// Of a form.
const MOST_PARTS: usize = 10_000;

/// How a request's body is to be read.
pub(crate) enum Form {
    OpenInference,
    Other(Other),
}

/// Forms whose bodies name no datatypes.
pub(crate) enum Other {
    TfServing(Verb),
    TorchServe { content_type: Option<String> },
}

/// What has been read, as far as the answer depends on it.
pub(super) enum Asked {
    OpenInference {
        /// Without its tensors.
        request: InferRequest,
        is_raw: bool,
    },
    Other(OtherReply),
}

pub(super) enum OtherReply {
    TfServing(tf_serving::Reply),
    TorchServe(torch_serve::Reply),
}

impl Other {
    pub(super) fn read(&self, body: &[u8], signature: &Signature) -> Result<(Call, OtherReply), Refusal> {
        match self {
            Self::TfServing(verb) => {
                let asked = tf_serving::read(*verb, body, signature).map_err(|error| bad(error.to_string()))?;
                let call = Call { inputs: asked.inputs, outputs: asked.reply.outputs(), deadline: None };
                Ok((call, OtherReply::TfServing(asked.reply)))
            }
            Self::TorchServe { content_type } => {
                let content_type = content_type.as_deref();
                let asked = match content_type.and_then(|content| multer::parse_boundary(content).ok()) {
                    Some(boundary) => {
                        let fields = fields(body, boundary)?;
                        let parts: Vec<_> = fields.iter().map(Field::part).collect();
                        torch_serve::read(&parts, signature)
                    }
                    None => torch_serve::read(&[Part { name: None, content_type, data: body }], signature),
                };
                let asked = asked.map_err(|error| bad(error.to_string()))?;
                let call = Call { inputs: asked.inputs, outputs: Vec::new(), deadline: None };
                Ok((call, OtherReply::TorchServe(asked.reply)))
            }
        }
    }
}

impl OtherReply {
    /// The body, and what is said of it.
    pub(super) fn write(&self, outputs: &[Tensor]) -> Result<(Vec<u8>, Option<HeaderValue>), Refusal> {
        let written = match self {
            Self::TfServing(reply) => reply.write(outputs),
            Self::TorchServe(reply) => reply.write(outputs),
        };
        let (body, described) = written.map_err(|error| bad(error.to_string()))?;
        Ok((body, describe(&described)))
    }
}

fn describe(outputs: &[TensorSpec]) -> Option<HeaderValue> {
    let text = serde_json::to_vec(outputs).ok().filter(|text| text.len() <= LONGEST_OUTPUTS)?;
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

/// A part of a form.
struct Field {
    name: Option<String>,
    content_type: Option<String>,
    data: Bytes,
}

impl Field {
    fn part(&self) -> Part<'_> {
        Part { name: self.name.as_deref(), content_type: self.content_type.as_deref(), data: &self.data }
    }
}

/// The parts of a form that is all there, so that nothing is waited for.
fn fields(body: &[u8], boundary: String) -> Result<Vec<Field>, Refusal> {
    let body = Bytes::copy_from_slice(body);
    let mut form = Multipart::new(once(ready(Ok::<_, Infallible>(body))), boundary);
    let read = async {
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await? {
            if fields.len() == MOST_PARTS {
                return Ok(Err(bad(format!("the form has more than {MOST_PARTS} parts"))));
            }
            let name = field.name().map(ToOwned::to_owned);
            let content_type = field.headers().get("content-type").and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
            fields.push(Field { name, content_type, data: field.bytes().await? });
        }
        Ok(Ok(fields))
    };
    let broken = |error: Option<multer::Error>| {
        let why = error.map_or_else(|| "it ends early".to_owned(), |error| error.to_string());
        bad(format!("the body is not a valid form: {why}"))
    };
    match read.now_or_never() {
        Some(Ok(fields)) => fields,
        Some(Err(error)) => Err(broken(Some(error))),
        None => Err(broken(None)),
    }
}
