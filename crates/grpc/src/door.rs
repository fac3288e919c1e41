//! Which call a request of HTTP/2 is, and the messages in it.

use std::convert::Infallible;

use bytes::Bytes;
use modelyard_protocol::grpc::messages::infer_parameter::ParameterChoice;
use modelyard_protocol::grpc::messages::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerReadyRequest,
};
use modelyard_protocol::grpc::{self, DESCRIPTORS};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceExt as _, service_fn};

use crate::calls::Caller;
use crate::deadline::Deadline;
use crate::{Rest, health, status};

/// Answers of a stream that may wait for the network before the next request is asked.
const ANSWERS_AHEAD: usize = 1;

type Reflection = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Answers calls.
pub struct Door {
    max_message: usize,
    reflection: Reflection,
    /// For the tools that know only the older form.
    older_reflection: Reflection,
}

impl Door {
    /// Messages of more than `max_message` bytes are refused.
    ///
    /// # Errors
    /// If what is known of the services could not be read.
    pub fn new(max_message: usize) -> Result<Self, tonic_reflection::server::Error> {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Ok(Self {
            max_message,
            reflection: BoxCloneSyncService::new(builder().build_v1()?),
            older_reflection: BoxCloneSyncService::new(builder().build_v1alpha()?),
        })
    }

    /// Answers one call. What comes back beside the answer feeds it, if it is a stream: it is to be run as a task of
    /// its own, and ends with the call.
    pub async fn call<R, B>(
        &self,
        rest: R,
        request: http::Request<B>,
    ) -> (http::Response<Body>, Option<impl Future<Output = ()> + use<R, B>>)
    where
        R: Rest,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let request = request.map(Body::new);
        let mut feed = None;
        let response = match Deadline::of(request.headers()) {
            Ok(deadline) => {
                let headers = status::request_headers(request.headers());
                let caller = Caller { rest, headers, deadline };
                let response = self.answer(&caller, deadline, request, &mut feed).await;
                return (refused_as_specified(response), feed.map(|feed: Feed| feed.run(caller, deadline)));
            }
            Err(status) => status.into_http(),
        };
        (response, None)
    }

    async fn answer<R: Rest>(
        &self,
        caller: &Caller<R>,
        deadline: Deadline,
        request: http::Request<Body>,
        feed: &mut Option<Feed>,
    ) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
        match (service, method) {
            (grpc::SERVICE, "ModelInfer") => self.unary(request, deadline, |message| caller.model_infer(message)).await,
            (grpc::SERVICE, "ModelStreamInfer") => self.stream_infer(request, feed).await,
            (grpc::SERVICE, "ModelReady") => self.unary(request, deadline, |message| caller.model_ready(message)).await,
            (grpc::SERVICE, "ModelMetadata") => {
                self.unary(request, deadline, |message| caller.model_metadata(message)).await
            }
            (grpc::SERVICE, "ServerLive") => {
                let live = async |_: ServerLiveRequest| Ok(Response::new(ServerLiveResponse { live: true }));
                self.unary(request, deadline, live).await
            }
            (grpc::SERVICE, "ServerReady") => {
                self.unary(request, deadline, |_: ServerReadyRequest| caller.server_ready()).await
            }
            (grpc::SERVICE, "ServerMetadata") => {
                self.unary(request, deadline, |_: ServerMetadataRequest| caller.server_metadata()).await
            }
            (health::SERVICE, "Check") => {
                let check = async |message| health::check(caller, message).await.map(Response::new);
                self.unary(request, deadline, check).await
            }
            (health::SERVICE, "Watch") => self.watch_health(request, feed).await,
            ("grpc.reflection.v1.ServerReflection", _) => reflect(&self.reflection, request).await,
            ("grpc.reflection.v1alpha.ServerReflection", _) => reflect(&self.older_reflection, request).await,
            _ => Status::unimplemented(format!("there is no call {path} here")).into_http(),
        }
    }

    fn grpc<M, N>(&self) -> Grpc<ProstCodec<N, M>>
    where
        M: prost::Message + Default + Send + 'static,
        N: prost::Message + Default + Send + 'static,
    {
        Grpc::new(ProstCodec::default()).max_decoding_message_size(self.max_message)
    }

    async fn unary<M, N, F>(
        &self,
        request: http::Request<Body>,
        deadline: Deadline,
        answer: impl Fn(M) -> F,
    ) -> http::Response<Body>
    where
        M: prost::Message + Default + Send + 'static,
        N: prost::Message + Default + Send + 'static,
        F: Future<Output = Result<Response<N>, Status>>,
    {
        let call = service_fn(|request: Request<M>| deadline.bound(answer(request.into_inner())));
        self.grpc().unary(call, request).await
    }

    async fn stream_infer(&self, request: http::Request<Body>, feed: &mut Option<Feed>) -> http::Response<Body> {
        let call = service_fn(|request: Request<Streaming<ModelInferRequest>>| {
            let (answers, stream) = mpsc::channel(ANSWERS_AHEAD);
            *feed = Some(Feed::Infer { requests: Box::new(request.into_inner()), answers });
            std::future::ready(Ok::<_, Status>(Response::new(ReceiverStream::new(stream))))
        });
        self.grpc().streaming(call, request).await
    }

    async fn watch_health(&self, request: http::Request<Body>, feed: &mut Option<Feed>) -> http::Response<Body> {
        let call = service_fn(|request: Request<HealthCheckRequest>| {
            let (told, stream) = mpsc::channel(ANSWERS_AHEAD);
            *feed = Some(Feed::Health { request: request.into_inner(), told });
            std::future::ready(Ok::<_, Status>(Response::new(ReceiverStream::new(stream))))
        });
        self.grpc().server_streaming(call, request).await
    }
}

async fn reflect(service: &Reflection, request: http::Request<Body>) -> http::Response<Body> {
    match service.clone().ready().await {
        Ok(service) => service.call(request).await.unwrap_or_else(|never| match never {}),
        Err(never) => match never {},
    }
}

/// A message that is too long has a code of its own in tonic, and another one in the other implementations of gRPC,
/// by which callers know not to try again. Nothing else here has that code.
fn refused_as_specified(mut response: http::Response<Body>) -> http::Response<Body> {
    if response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == "11") {
        response.headers_mut().insert(Status::GRPC_STATUS, http::HeaderValue::from_static("8"));
    }
    response
}

/// What makes the answers of a stream.
enum Feed {
    Infer {
        requests: Box<Streaming<ModelInferRequest>>,
        answers: mpsc::Sender<Result<ModelStreamInferResponse, Status>>,
    },
    Health {
        request: HealthCheckRequest,
        told: mpsc::Sender<Result<HealthCheckResponse, Status>>,
    },
}

impl Feed {
    async fn run<R: Rest>(self, caller: Caller<R>, deadline: Deadline) {
        match self {
            Self::Infer { requests, answers } => {
                let done = deadline.bound(infer_each(&caller, requests, &answers)).await;
                if let Err(status) = done {
                    answers.send(Err(status)).await.ok();
                }
            }
            Self::Health { request, told } => {
                let watching = async {
                    health::watch(&caller, request, &told).await;
                    Ok(())
                };
                if let Err(status) = deadline.bound(watching).await {
                    told.send(Err(status)).await.ok();
                }
            }
        }
    }
}

/// Asks each request in its turn. One that fails does not end the stream.
async fn infer_each<R: Rest>(
    caller: &Caller<R>,
    mut requests: Box<Streaming<ModelInferRequest>>,
    answers: &mpsc::Sender<Result<ModelStreamInferResponse, Status>>,
) -> Result<(), Status> {
    loop {
        let answer = async {
            let Some(request) = requests.message().await.map_err(too_long)? else { return Ok::<_, Status>(None) };
            let id = request.id.clone();
            Ok(Some(streamed(caller.model_infer(request).await, id)))
        };
        let answer = tokio::select! {
            answer = answer => answer?,
            // Nobody waits for it.
            () = answers.closed() => return Ok(()),
        };
        let Some(answer) = answer else { return Ok(()) };
        if answers.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
}

/// As in [`refused_as_specified`].
fn too_long(status: Status) -> Status {
    if status.code() == Code::OutOfRange { Status::resource_exhausted(status.message()) } else { status }
}

/// A message of a stream has no metadata: its parameters tell what that of a call would.
fn streamed(answer: Result<Response<ModelInferResponse>, Status>, id: String) -> ModelStreamInferResponse {
    let (error_message, metadata, mut response) = match answer {
        Ok(answer) => {
            let (metadata, response, _) = answer.into_parts();
            (String::new(), metadata, response)
        }
        Err(status) => {
            let message = if status.message().is_empty() { status.code().description() } else { status.message() };
            let response = ModelInferResponse { id, ..ModelInferResponse::default() };
            (message.to_owned(), status.metadata().clone(), response)
        }
    };
    let own = metadata.into_headers();
    let own = own.iter().filter(|(name, _)| status::is_own(name));
    response.parameters.extend(own.filter_map(|(name, value)| {
        let choice = ParameterChoice::StringParam(value.to_str().ok()?.to_owned());
        Some((name.to_string(), InferParameter { parameter_choice: Some(choice) }))
    }));
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
