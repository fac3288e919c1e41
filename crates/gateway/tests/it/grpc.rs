//! The protocol over gRPC: the same deployments, under the same rollouts.

use std::time::Duration;

use modelyard_core::{Assignment, HeaderName, Slots, StickyBy};
use modelyard_protocol::grpc::messages::{
    InferTensorContents, ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStreamInferResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::grpc::{Client, request};
use crate::support::{Behaviour, Gateway, route, table};

const ONE: &str = r#"{"model_name":"m","model_version":"1","id":"7","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1.5,2.0]}]}"#;
const TWO: &str =
    r#"{"model_name":"m","model_version":"2","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[2.0]}]}"#;

fn told(metadata: &MetadataMap, name: &str) -> String {
    metadata.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn raw_tensors_are_answered_raw_and_typed_ones_typed() {
    let mut gateway = Gateway::start().await;
    let backend = gateway.backend(Behaviour::Ok(ONE)).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let mut client = gateway.grpc().await;
    for raw in [false, true] {
        let answer = client.infer(request("m", &[3.0, 4.0], raw), &[("x-request-id", "abc-1")]).await.unwrap();
        assert_eq!(told(answer.metadata(), "x-modelyard-variant"), "stable");
        assert_eq!(told(answer.metadata(), "x-modelyard-version"), "1");
        assert_eq!(told(answer.metadata(), "x-request-id"), "abc-1");
        let response = answer.into_inner();
        assert_eq!((response.model_version.as_str(), response.id.as_str()), ("1", "7"));
        let output = &response.outputs[0];
        assert_eq!((output.name.as_str(), output.datatype.as_str(), &output.shape[..]), ("y", "FP32", &[1, 2][..]));
        if raw {
            let bytes: Vec<u8> = [1.5_f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!((&response.raw_output_contents[..], &output.contents), (&[bytes.into()][..], &None));
        } else {
            assert_eq!(output.contents.as_ref().unwrap().fp32_contents, [1.5, 2.0]);
            assert!(response.raw_output_contents.is_empty());
        }
    }
    let seen = gateway.evidence(1, |e| e.requests == 2).await;
    assert_eq!((seen.errors, seen.latency.count()), (0, 2));
}

#[tokio::test]
async fn what_is_wrong_has_its_code_and_its_words() {
    let mut gateway = Gateway::start_with(&["--max-body", "100000"]).await;
    let backend = gateway.backend(Behaviour::Status(400)).await;
    let mut client = gateway.grpc().await;
    let said = |status: Status| (status.code(), status.message().to_owned());
    let early = client.infer(request("m", &[1.0], true), &[]).await.unwrap_err();
    assert_eq!(said(early), (Code::Unavailable, "the gateway has no route table yet".into()));
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let unknown = client.infer(request("nobody", &[1.0], true), &[]).await.unwrap_err();
    assert!(!told(unknown.metadata(), "x-request-id").is_empty());
    assert_eq!(said(unknown), (Code::NotFound, "there is no deployment nobody".into()));
    let pinned = ModelInferRequest { model_version: "9".into(), ..request("m", &[1.0], true) };
    let pinned = client.infer(pinned, &[]).await.unwrap_err();
    assert_eq!(said(pinned), (Code::NotFound, "version 9 is not served here; served: 1".into()));
    let mut short = request("m", &[1.0], true);
    short.inputs[0].shape = vec![1, 2];
    let short = client.infer(short, &[]).await.unwrap_err();
    let words = "tensor `x`: its shape [1, 2] of FP32 needs 8 bytes, but its data has 4";
    assert_eq!(said(short), (Code::InvalidArgument, words.into()));
    let refused = client.infer(request("m", &[1.0], true), &[]).await.unwrap_err();
    assert_eq!(told(refused.metadata(), "x-modelyard-variant"), "stable");
    assert_eq!(said(refused), (Code::InvalidArgument, "scripted".into()));
    let large = client.infer(request("m", &vec![0.0; 50_000], true), &[]).await.unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted);
    // As varints, a number takes a byte where it is small.
    let mut small = request("m", &[], false);
    small.inputs[0].datatype = "INT64".into();
    small.inputs[0].shape = vec![50_000];
    small.inputs[0].contents = Some(InferTensorContents { int64_contents: vec![1; 50_000], ..Default::default() });
    let grown = client.infer(small, &[]).await.unwrap_err();
    assert_eq!(said(grown), (Code::ResourceExhausted, "the body is longer than 100000 bytes".into()));
    let no_call = client.call::<_, ServerLiveResponse>("Nothing", ServerLiveRequest {}, &[]).await.unwrap_err();
    assert_eq!(no_call.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_version_on_trial_that_fails_is_counted_and_the_stable_one_answers() {
    let mut gateway = Gateway::start().await;
    let (old, bad) = (gateway.backend(Behaviour::Ok(ONE)).await, gateway.backend(Behaviour::Status(500)).await);
    gateway.publish(table(1, route(1, &[("1", 0, &[old]), ("2", 10_000, &[bad])]))).await;
    let mut client = gateway.grpc().await;
    for _ in 0..10 {
        let answer = client.infer(request("m", &[1.0], true), &[]).await.unwrap();
        assert_eq!(told(answer.metadata(), "x-modelyard-variant"), "stable");
    }
    let trial = gateway.evidence(2, |e| e.requests == 10 && e.errors == 10).await;
    assert_eq!(trial.rescued, 10);
    let asked_for = ModelInferRequest { model_version: "2".into(), ..request("m", &[1.0], true) };
    assert_eq!(client.infer(asked_for, &[]).await.unwrap_err().code(), Code::Internal);
    let by_header = [("x-modelyard-variant", "canary")];
    assert_eq!(client.infer(request("m", &[1.0], true), &by_header).await.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn a_user_has_the_same_variant_as_over_http() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok(ONE)).await, gateway.backend(Behaviour::Ok(TWO)).await);
    let mut half = route(1, &[("1", 5_000, &[old]), ("2", 5_000, &[new])]);
    let weights: Vec<_> = half.variants.iter().map(|v| (v.name.clone(), v.weight)).collect();
    let sticky_by = StickyBy::Header("x-user-id".parse::<HeaderName>().unwrap());
    half.assignment = Some(Assignment { sticky_by, salt: "m/2".parse().unwrap(), slots: Slots::of(&weights).unwrap() });
    gateway.publish(table(1, half)).await;
    let mut client = gateway.grpc().await;
    let mut canaries = 0;
    for user in 0..50 {
        let user = format!("user-{user}");
        let over_http = gateway.infer("m", &format!("x-user-id: {user}\r\n")).await.header("x-modelyard-variant");
        let answer = client.infer(request("m", &[1.0], false), &[("x-user-id", &user)]).await.unwrap();
        assert_eq!(told(answer.metadata(), "x-modelyard-variant"), over_http);
        canaries += usize::from(over_http == "canary");
    }
    // The hash is fixed.
    assert!((10..=40).contains(&canaries), "{canaries} of 50");
}

#[tokio::test]
async fn the_servers_own_calls_and_its_health_are_answered() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let live: ServerLiveResponse = client.call("ServerLive", ServerLiveRequest {}, &[]).await.unwrap().into_inner();
    assert!(live.live);
    let health = async |client: &mut Client, service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        client.call::<_, HealthCheckResponse>("grpc.health.v1.Health/Check", request, &[]).await
    };
    let ready = async |client: &mut Client| {
        let ready = client.call::<_, ServerReadyResponse>("ServerReady", ServerReadyRequest {}, &[]).await;
        let status = health(client, "").await.unwrap().into_inner().status;
        assert_eq!(ready.as_ref().unwrap().get_ref().ready, status == 1);
        status == 1
    };
    assert!(!ready(&mut client).await, "there is no table yet");
    let watched = tokio_stream::once(HealthCheckRequest::default());
    let mut watched = client.stream("grpc.health.v1.Health/Watch", watched, &[]).await.unwrap();
    assert_eq!(watched.message().await.unwrap(), Some(HealthCheckResponse { status: 2 }));
    let backend = gateway.backend(Behaviour::Status(503)).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    assert!(ready(&mut client).await);
    assert_eq!(watched.message().await.unwrap(), Some(HealthCheckResponse { status: 1 }));
    assert_eq!(health(&mut client, "nothing").await.unwrap_err().code(), Code::NotFound);

    let metadata = client.call("ServerMetadata", ServerMetadataRequest {}, &[]).await.unwrap();
    let metadata: ServerMetadataResponse = metadata.into_inner();
    assert_eq!(metadata.name, "modelyard-gateway");
    let model = ModelReadyRequest { name: "m".into(), version: String::new() };
    let answer: ModelReadyResponse = client.call("ModelReady", model, &[]).await.unwrap().into_inner();
    assert!(!answer.ready, "its worker says 503");
    let nobody = ModelMetadataRequest { name: "nobody".into(), version: String::new() };
    let nobody = client.call::<_, ModelMetadataResponse>("ModelMetadata", nobody, &[]).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
}

#[tokio::test]
async fn a_stream_answers_each_request_in_its_turn_and_an_error_does_not_end_it() {
    let mut gateway = Gateway::start().await;
    let backend = gateway.backend(Behaviour::Ok(ONE)).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let mut client = gateway.grpc().await;
    let requests = ["m", "nobody", "m"].map(|name| request(name, &[1.0], true));
    let mut answers = client.stream("ModelStreamInfer", tokio_stream::iter(requests), &[]).await.unwrap();
    let mut next = async || answers.message().await.unwrap().map(|answer: ModelStreamInferResponse| answer);
    let first = next().await.unwrap();
    assert_eq!(first.error_message, "");
    let response = first.infer_response.unwrap();
    assert_eq!(response.outputs[0].name, "y");
    assert!(response.parameters.contains_key("x-modelyard-variant"), "{:?}", response.parameters);
    let second = next().await.unwrap();
    assert_eq!(second.error_message, "there is no deployment nobody");
    assert_eq!(second.infer_response.unwrap().id, "7");
    assert_eq!(next().await.unwrap().error_message, "");
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_it_said() {
    let mut gateway = Gateway::start().await;
    let slow = gateway.backend(Behaviour::Slow(Duration::from_secs(3600), ONE)).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[slow])]))).await;
    let mut client = gateway.grpc().await;
    let requests = tokio_stream::once(request("m", &[1.0], true));
    // Of a call that is no stream the client looks at the time too.
    let mut answers = client.stream("ModelStreamInfer", requests, &[("grpc-timeout", "200m")]).await.unwrap();
    let late = answers.message().await.map(|answer: Option<ModelStreamInferResponse>| answer).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let wrong = client.infer(request("m", &[1.0], true), &[("grpc-timeout", "soon")]).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_in_flight_at_sigterm_is_answered() {
    let mut gateway = Gateway::start().await;
    let slow = gateway.backend(Behaviour::Slow(Duration::from_millis(800), ONE)).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[slow])]))).await;
    let mut client = gateway.grpc().await;
    let asked = tokio::spawn(async move { client.infer(request("m", &[1.0], true), &[]).await });
    gateway.backend_was_asked().await;
    gateway.terminate();
    assert_eq!(asked.await.unwrap().unwrap().into_inner().id, "7");
    assert!(gateway.ended().await.success());
}
