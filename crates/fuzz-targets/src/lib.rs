//! What fuzzers run: a function from bytes for each decoder, which panics if the decoder breaks a promise.
//!
//! A decoder's promises are that it answers or refuses whatever it is given, that what it answers is whole (elements
//! match shapes, names match rules), and that decode(encode(x)) = x. Nothing here is part of what is installed: the
//! package `fuzz/` at the top hands these functions to libFuzzer, and `tests/replay.rs` runs them over the corpus that
//! is kept there, so that what was found once stays mended.

mod compressed;
mod graphs;
mod manifests;
mod messages;
mod models;
mod onnx;
mod paths;
mod requests;
mod routes;
mod values;

/// Runs one input. Panics if a promise is broken.
pub type Target = fn(&[u8]);

/// All of them, by the names that their corpora have.
pub const TARGETS: &[(&str, Target)] = &[
    ("binary_request", requests::binary),
    ("compressed_body", compressed::body),
    ("dense_model", models::dense),
    ("evidence_report", routes::evidence_report),
    ("grpc_request", messages::request),
    ("infer_request", requests::json),
    ("json_tensor", requests::json_tensor),
    ("manifest", manifests::documents),
    ("onnx_graph", graphs::evaluator),
    ("onnx_ml", models::onnx_ml),
    ("onnx_outline", models::onnx_outline),
    ("onnx_zip_map", models::onnx_zip_map),
    ("path", paths::any),
    ("raw_request", requests::raw),
    ("route_table", routes::route_table),
    ("sniff", models::sniff),
    ("values", values::all),
];

/// Runs a target by name.
///
/// # Panics
/// If there is no such target, or what it tests broke a promise.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(found, _)| *found == name).expect("a target of that name");
    target(bytes);
}

/// What is asked to be the same, shown as text: NaN equals nothing, and must.
fn assert_same<T: std::fmt::Debug>(found: &T, expected: &T) {
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
}
