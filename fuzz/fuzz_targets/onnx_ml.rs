#![no_main]

modelyard_fuzz::target!("onnx_ml");
