#![no_main]

modelyard_fuzz::target!("compressed_body");
