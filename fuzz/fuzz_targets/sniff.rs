#![no_main]

modelyard_fuzz::target!("sniff");
