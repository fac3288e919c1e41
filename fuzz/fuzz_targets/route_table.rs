#![no_main]

modelyard_fuzz::target!("route_table");
