//! The protocol's calls, each as one request of the REST form.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use modelyard_protocol::grpc::messages::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerMetadataResponse, ServerReadyResponse,
};
use modelyard_protocol::grpc::{MessageError, is_raw, read_request, write_metadata, write_response};
use modelyard_protocol::{Encoded, InferResponse, JSON_LENGTH, ModelMetadata, ServerMetadata};
use tonic::{Code, Response, Status};

use crate::Rest;
use crate::deadline::Deadline;
use crate::status::{metadata, refusal};

/// Asks on behalf of one call.
#[derive(Clone)]
pub(crate) struct Caller<R> {
    pub(crate) rest: R,
    pub(crate) headers: HeaderMap,
    pub(crate) deadline: Deadline,
}

impl<R: Rest> Caller<R> {
    async fn get(&self, path: String) -> http::Response<Bytes> {
        let mut request = http::Request::new(Bytes::new());
        request.headers_mut().clone_from(&self.headers);
        self.ask(request, path).await
    }

    async fn ask(&self, mut request: http::Request<Bytes>, path: String) -> http::Response<Bytes> {
        // Paths are made of what `model_path` lets through.
        self.deadline.pass_on(request.headers_mut());
        *request.uri_mut() = http::Uri::try_from(path).unwrap_or_default();
        self.rest.ask(request).await
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/v2/health/ready".into()).await.status() == StatusCode::OK
    }

    pub(crate) async fn server_ready(&self) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.is_ready().await }))
    }

    pub(crate) async fn server_metadata(&self) -> Result<Response<ServerMetadataResponse>, Status> {
        let answer = good(self.get("/v2".into()).await)?;
        let ServerMetadata { name, version, extensions } = json(&answer)?;
        Ok(told(ServerMetadataResponse { name, version, extensions }, answer.headers()))
    }

    pub(crate) async fn model_ready(&self, message: ModelReadyRequest) -> Result<Response<ModelReadyResponse>, Status> {
        let answer = self.get(model_path(&message.name, &message.version, "/ready")?).await;
        let ready = match answer.status() {
            StatusCode::OK => true,
            StatusCode::SERVICE_UNAVAILABLE => false,
            _ => return Err(refusal(&answer)),
        };
        Ok(told(ModelReadyResponse { ready }, answer.headers()))
    }

    pub(crate) async fn model_metadata(
        &self,
        message: ModelMetadataRequest,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let answer = good(self.get(model_path(&message.name, &message.version, "")?).await)?;
        let metadata: ModelMetadata = json(&answer)?;
        Ok(told(write_metadata(metadata), answer.headers()))
    }

    pub(crate) async fn model_infer(&self, message: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        let wants_raw = is_raw(&message);
        let path = model_path(&message.model_name, &message.model_version, "/infer")?;
        let mut request = read_request(message).map_err(wrong)?;
        request.want_binary();
        let Encoded { body, json_length } =
            request.to_binary().map_err(|error| Status::invalid_argument(error.to_string()))?;
        // A large request is held once.
        drop(request);

        let mut request = http::Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(length) = json_length {
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
        let answer = good(self.ask(request, path).await)?;
        let length = answer.headers().get(JSON_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let response = InferResponse::decode(answer.body(), length)
            .map_err(|error| Status::internal(format!("the worker's answer is not of the protocol: {error}")))?;
        Ok(told(write_response(response, wants_raw), answer.headers()))
    }
}

fn good(answer: http::Response<Bytes>) -> Result<http::Response<Bytes>, Status> {
    if answer.status().is_success() { Ok(answer) } else { Err(refusal(&answer)) }
}

fn json<'a, T: serde::Deserialize<'a>>(answer: &'a http::Response<Bytes>) -> Result<T, Status> {
    serde_json::from_slice(answer.body())
        .map_err(|error| Status::internal(format!("the answer is not of the protocol: {error}")))
}

fn told<T>(message: T, headers: &HeaderMap) -> Response<T> {
    let mut response = Response::new(message);
    *response.metadata_mut() = metadata(headers);
    response
}

fn wrong(error: MessageError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Names and versions of Modelyard need no percent-encoding: one that would names nothing that exists.
fn model_path(name: &str, version: &str, action: &str) -> Result<String, Status> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if name.is_empty() {
        return Err(Status::invalid_argument("no model is named"));
    }
    if !is_plain(name) || !is_plain(version) {
        let named: String = format!("{name} {version}").trim().chars().take(80).collect();
        return Err(Status::new(Code::NotFound, format!("there is no model {named}")));
    }
    let version = if version.is_empty() { String::new() } else { format!("/versions/{version}") };
    Ok(format!("/v2/models/{name}{version}{action}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_makes_another_path() {
        assert_eq!(model_path("m", "", "/infer").unwrap(), "/v2/models/m/infer");
        assert_eq!(model_path("m", "v1.0", "").unwrap(), "/v2/models/m/versions/v1.0");
        for (name, version) in [("a/b", ""), ("m", "1/infer?"), ("m\r\n", ""), ("é", ""), ("%2e", "")] {
            assert_eq!(model_path(name, version, "").unwrap_err().code(), Code::NotFound, "{name} {version}");
        }
        assert_eq!(model_path("", "1", "").unwrap_err().code(), Code::InvalidArgument);
    }
}
