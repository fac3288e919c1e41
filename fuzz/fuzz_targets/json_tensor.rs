#![no_main]

modelyard_fuzz::target!("json_tensor");
