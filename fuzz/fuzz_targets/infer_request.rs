#![no_main]

modelyard_fuzz::target!("infer_request");
