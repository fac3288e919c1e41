#![no_main]

modelyard_fuzz::target!("binary_request");
