#![no_main]

modelyard_fuzz::target!("path");
