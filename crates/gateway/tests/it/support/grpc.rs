//! A client of the protocol over gRPC.

use std::net::SocketAddr;

use modelyard_protocol::grpc::messages::{ModelInferRequest, ModelInferResponse};
use modelyard_protocol::grpc::{SERVICE, write_request};
use modelyard_protocol::{InferRequest, Tensor, TensorData};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) struct Client(Grpc<Channel>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let endpoint: Endpoint = format!("http://{address}").parse().unwrap();
        Self(Grpc::new(endpoint.connect().await.unwrap()).max_decoding_message_size(usize::MAX))
    }

    /// A call of the protocol's service, unless `method` names another one.
    pub(crate) async fn call<M, N>(
        &mut self,
        method: &str,
        message: M,
        metadata: &[(&'static str, &str)],
    ) -> Result<Response<N>, Status>
    where
        M: prost::Message + Default + 'static,
        N: prost::Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<M, N>::default();
        self.0.unary(request_with(message, metadata), path(method).parse().unwrap(), codec).await
    }

    pub(crate) async fn infer(
        &mut self,
        message: ModelInferRequest,
        metadata: &[(&'static str, &str)],
    ) -> Result<Response<ModelInferResponse>, Status> {
        self.call("ModelInfer", message, metadata).await
    }

    pub(crate) async fn stream<M, N>(
        &mut self,
        method: &str,
        messages: impl tokio_stream::Stream<Item = M> + Send + 'static,
        metadata: &[(&'static str, &str)],
    ) -> Result<Streaming<N>, Status>
    where
        M: prost::Message + Default + 'static,
        N: prost::Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::<M, N>::default();
        let request = request_with(messages, metadata);
        self.0.streaming(request, path(method).parse().unwrap(), codec).await.map(Response::into_inner)
    }
}

fn path(method: &str) -> String {
    if method.contains('/') { format!("/{method}") } else { format!("/{SERVICE}/{method}") }
}

fn request_with<T>(content: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(content);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, MetadataValue::try_from(*value).unwrap());
    }
    request
}

/// A request with the input `x`, which no scripted backend reads.
pub(crate) fn request(deployment: &str, values: &[f32], raw: bool) -> ModelInferRequest {
    let input = Tensor { name: "x".into(), shape: vec![1, values.len()], data: TensorData::Fp32(values.to_vec()) };
    let request = InferRequest { id: Some("7".into()), inputs: vec![input], ..InferRequest::default() };
    write_request(request, deployment, None, raw)
}
