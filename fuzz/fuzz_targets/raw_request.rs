#![no_main]

modelyard_fuzz::target!("raw_request");
