//! TF Serving's and TorchServe's forms, by a worker alone.

use serde_json::json;

use crate::client::{Answer, call, call_with};
use crate::process::Worker;

/// y = x / 2 + 2, as TF Serving's own example has it.
const HALF_PLUS_TWO: &str = "half_plus_two.onnx";

fn post(worker: &Worker, path: &str, body: &str) -> Answer {
    call(worker.address, "POST", path, body).unwrap()
}

#[test]
fn tf_servings_published_example_is_answered_as_published() {
    let worker = Worker::start(HALF_PLUS_TWO, &[]);
    let answer = post(&worker, "/v1/models/linear:predict", r#"{"instances": [1.0, 2.0, 5.0]}"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"predictions":[2.5,3.0,4.5]}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let outputs = r#"[{"name":"y","datatype":"FP32","shape":[3]}]"#;
    assert_eq!(answer.header("x-modelyard-outputs"), Some(outputs));
    let answer = post(&worker, "/v1/models/linear/versions/2:PREDICT", r#"{"inputs": {"x": [1, NaN, -Infinity]}}"#);
    assert_eq!(answer.body, r#"{"outputs":[2.5,NaN,-Infinity]}"#);
    let answer = post(&worker, "/v1/models/linear:regress", r#"{"examples": [{"x": 1.0}, {"x": [2.0]}]}"#);
    assert_eq!(answer.body, r#"{"results":[2.5,3.0]}"#);

    let version = json!({"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}});
    let status = json!({"model_version_status": [version], "name": "linear", "ready": true});
    assert_eq!(worker.get("/v1/models/linear").json(), status);
    assert_eq!(worker.get("/v1/models/linear/versions/2").json(), status);
    let metadata = worker.get("/v1/models/linear/metadata").json();
    assert_eq!(metadata["model_spec"], json!({"name": "linear", "signature_name": "", "version": "2"}));
    let x = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"];
    assert_eq!((&x["dtype"], &x["tensor_shape"]["dim"][0]["size"]), (&json!("DT_FLOAT"), &json!("-1")));
    assert_eq!(worker.get("/v1/models").json(), json!({"models": ["linear"]}));
    assert_eq!(worker.get("/").json(), json!({"status": "alive"}));
}

#[test]
fn torch_serves_bodies_are_taken() {
    let worker = Worker::start("linear-1.onnx", &[]);
    assert_eq!(worker.get("/ping").json(), json!({"status": "Healthy"}));
    let answered = |headers: &[(&str, &str)], body: &[u8]| {
        call_with(worker.address, "POST", "/predictions/linear", headers, body).unwrap().body
    };
    let json = [("content-type", "application/json")];
    assert_eq!(answered(&json, b"[3, 4]"), "[3.0]");
    assert_eq!(answered(&json, b"[[3, 4], [0, 0]]"), "[[3.0],[2.0]]");
    assert_eq!(answered(&json, br#"{"x": [3, 4]}"#), "[3.0]");
    assert_eq!(answered(&json, br#"{"instances": [[3, 4]]}"#), r#"{"predictions":[[3.0]]}"#);
    assert_eq!(answered(&[], b"[3, 4]"), "[3.0]", "as `curl -T` sends a file");
    let raw: Vec<u8> = [3.0_f32, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(answered(&[("content-type", "application/octet-stream")], &raw), "[3.0]");
    let form = "--b\r\ncontent-disposition: form-data; name=\"data\"; filename=\"a\"\r\n\r\n[3, 4]\r\n--b\r\ncontent-disposition: form-data; name=\"data\"\r\n\r\n[0, 0]\r\n--b--\r\n";
    let content = [("content-type", "multipart/form-data; boundary=b")];
    assert_eq!(answered(&content, form.as_bytes()), "[[3.0],[2.0]]", "as `curl -F` sends files");
    let file = form.replace("filename=\"a\"", "filename=\"a\"\r\ncontent-type: application/octet-stream");
    assert_eq!(answered(&content, file.as_bytes()), "[[3.0],[2.0]]", "as curl says of every file");
    let put = call(worker.address, "PUT", "/predictions/linear", "[3, 4]").unwrap();
    assert_eq!((put.status, put.body.as_str()), (200, "[3.0]"));
    let pinned = post(&worker, "/predictions/linear/2", "[3, 4]");
    assert_eq!(pinned.body, "[3.0]");

    let broken = call_with(worker.address, "POST", "/predictions/linear", &content, b"--b\r\n").unwrap();
    assert_eq!(broken.status, 400);
    assert!(broken.json()["message"].as_str().unwrap().starts_with("the body is not a valid form: "), "{broken:?}");
}

#[test]
fn what_cannot_be_answered_has_the_protocols_form() {
    let worker = Worker::start("linear-1.onnx", &["--max-body", "1000"]);
    let refused = |method: &str, path: &str, body: &str| {
        let answer = call(worker.address, method, path, body).unwrap();
        (answer.status, answer.json())
    };
    let (status, error) = refused("POST", "/v1/models/linear:predict", r#"{"instances": [[1, 2, 3]]}"#);
    assert_eq!(status, 400);
    assert_eq!(error, json!({"error": "input `x` must have shape [-1, 2] (-1 is any), not [1, 3]"}));
    assert_eq!(refused("POST", "/v1/models/other:predict", "{}").0, 404);
    assert_eq!(refused("POST", "/v1/models/linear/versions/3:predict", "{}").0, 404);
    assert_eq!(refused("POST", "/v1/models/linear/labels/stable:predict", "{}").0, 400);
    assert_eq!(refused("GET", "/v1/models/linear/versions", "").0, 400);
    assert_eq!(refused("GET", "/v1/models/linear:predict", "").0, 405);
    assert_eq!(refused("POST", "/v1/models/linear:classify", r#"{"examples": [{"x": [1, 2]}]}"#).0, 200);
    let (status, error) = refused("POST", "/predictions/linear", "[1, 2, 3]");
    let message = "input `x` must have shape [-1, 2] (-1 is any), not [1, 3]";
    assert_eq!((status, error), (400, json!({"code": 400, "type": "BadRequestException", "message": message})));
    assert_eq!(refused("POST", "/predictions/linear/3", "[1, 2]").1["type"], "ModelNotFoundException");
    let (status, error) = refused("POST", "/predictions/linear", &" ".repeat(1001));
    assert_eq!((status, &error["code"]), (413, &json!(413)));
}
