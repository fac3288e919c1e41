#![no_main]

modelyard_fuzz::target!("evidence_report");
