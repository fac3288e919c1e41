#![no_main]

modelyard_fuzz::target!("grpc_request");
