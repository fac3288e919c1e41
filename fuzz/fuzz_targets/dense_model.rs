#![no_main]

modelyard_fuzz::target!("dense_model");
