#![no_main]

modelyard_fuzz::target!("values");
