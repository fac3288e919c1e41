//! The protocol over gRPC, of a worker alone.

use std::net::SocketAddr;

use modelyard_protocol::grpc::messages::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use modelyard_protocol::grpc::{SERVICE, read_response, write_request};
use modelyard_protocol::{InferRequest, Tensor, TensorData};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use crate::process::Worker;

struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn of(worker: &Worker) -> Self {
        let status = std::fs::read(worker.dir.path().join("status.json")).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        let address: SocketAddr = status["grpcAddress"].as_str().unwrap().parse().unwrap();
        let endpoint: Endpoint = format!("http://{address}").parse().unwrap();
        Self(tonic::client::Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn call<M, N>(&mut self, method: &str, message: M) -> Result<N, Status>
    where
        M: prost::Message + Default + 'static,
        N: prost::Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let path = if method.contains('/') { format!("/{method}") } else { format!("/{SERVICE}/{method}") };
        let codec = ProstCodec::<M, N>::default();
        self.0.unary(Request::new(message), path.parse().unwrap(), codec).await.map(tonic::Response::into_inner)
    }

    async fn infer(&mut self, message: ModelInferRequest) -> Result<ModelInferResponse, Status> {
        self.call("ModelInfer", message).await
    }
}

fn request(name: &str, shape: &[usize], values: &[f32], raw: bool) -> ModelInferRequest {
    let input = Tensor { name: "x".into(), shape: shape.to_vec(), data: TensorData::Fp32(values.to_vec()) };
    let request = InferRequest { id: Some("7".into()), inputs: vec![input], ..InferRequest::default() };
    write_request(request, name, None, raw)
}

#[tokio::test]
async fn the_protocol_is_served_over_grpc_too() {
    let worker = Worker::start("linear-1.onnx", &["--grpc-listen", "127.0.0.1:0"]);
    let mut client = Client::of(&worker).await;
    for raw in [false, true] {
        let answer = client.infer(request("linear", &[2, 2], &[3.0, 4.0, 0.0, 0.0], raw)).await.unwrap();
        assert_eq!(!answer.raw_output_contents.is_empty(), raw);
        let answer = read_response(answer).unwrap();
        assert_eq!((answer.model_name.as_str(), answer.model_version.as_deref()), ("linear", Some("2")));
        assert_eq!((answer.id.as_deref(), answer.outputs[0].shape.as_slice()), (Some("7"), &[2, 1][..]));
        let TensorData::Fp32(values) = &answer.outputs[0].data else { panic!("{answer:?}") };
        assert_eq!(values[0], 3.0);
    }
    let pinned = ModelInferRequest { model_version: "2".into(), ..request("linear", &[1, 2], &[3.0, 4.0], true) };
    assert!(client.infer(pinned).await.is_ok());

    let named = || ModelMetadataRequest { name: "linear".into(), version: String::new() };
    let metadata: ModelMetadataResponse = client.call("ModelMetadata", named()).await.unwrap();
    let (input, output) = (&metadata.inputs[0], &metadata.outputs[0]);
    assert_eq!((metadata.platform.as_str(), &metadata.versions[..]), ("onnx_rten", &["2".to_owned()][..]));
    assert_eq!((input.name.as_str(), input.datatype.as_str(), &input.shape[..]), ("x", "FP32", &[-1, 2][..]));
    assert_eq!((output.name.as_str(), &output.shape[..]), ("y", &[-1, 1][..]));
    let model = ModelReadyRequest { name: "linear".into(), version: "2".into() };
    assert!(client.call::<_, ModelReadyResponse>("ModelReady", model).await.unwrap().ready);
    let ready: ServerReadyResponse = client.call("ServerReady", ServerReadyRequest {}).await.unwrap();
    assert!(ready.ready);
    let server: ServerMetadataResponse = client.call("ServerMetadata", ServerMetadataRequest {}).await.unwrap();
    assert_eq!(server.name, "modelyard-worker");
    let health = HealthCheckRequest { service: SERVICE.into() };
    let health: HealthCheckResponse = client.call("grpc.health.v1.Health/Check", health).await.unwrap();
    assert_eq!(health.status, 1);
    // They are counted as those over HTTP are.
    assert!(worker.get("/metrics").body.contains("modelyard_worker_requests_total{status=\"200\"} 3"));
}

#[tokio::test]
async fn what_cannot_be_answered_over_grpc_has_its_code_and_its_reason() {
    let worker = Worker::start("linear-1.onnx", &["--grpc-listen", "127.0.0.1:0", "--max-body", "100000"]);
    let mut client = Client::of(&worker).await;
    let mut refused = async |message| {
        let status = client.infer(message).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let (code, message) = refused(request("other", &[1, 2], &[3.0, 4.0], true)).await;
    let words = "there is no model other here: this worker serves linear version 2";
    assert_eq!((code, message.as_str()), (Code::NotFound, words));
    let (code, message) = refused(request("linear", &[1, 3], &[3.0, 4.0, 5.0], false)).await;
    let words = "input `x` must have shape [-1, 2] (-1 is any), not [1, 3]";
    assert_eq!((code, message.as_str()), (Code::InvalidArgument, words));
    let mut both = request("linear", &[1, 2], &[3.0, 4.0], false);
    both.raw_input_contents = request("linear", &[1, 2], &[3.0, 4.0], true).raw_input_contents;
    let (code, message) = refused(both).await;
    let words = "tensor `x`: it has typed contents, and there are raw contents too";
    assert_eq!((code, message.as_str()), (Code::InvalidArgument, words));
    let large = vec![0.0; 30_000];
    assert_eq!(refused(request("linear", &[15_000, 2], &large, true)).await.0, Code::ResourceExhausted);
}

#[tokio::test]
async fn a_worker_that_drains_lets_its_callers_go() {
    let worker = Worker::start("linear-1.onnx", &["--grpc-listen", "127.0.0.1:0"]);
    let mut client = Client::of(&worker).await;
    assert!(client.infer(request("linear", &[1, 2], &[3.0, 4.0], true)).await.is_ok());
    worker.terminate();
    // A connection that is open and idle does not hold it.
    let (status, _) = tokio::task::spawn_blocking(|| worker.ended()).await.unwrap();
    assert!(status.success());
}
