//! What the operator, its command and its manifests promise, on real API servers: one module for each subject.
//!
//! One binary, so that tests overlap: most of them wait for somebody else most of the time. How many run at a time is in
//! `.cargo/config.toml`. `cargo test --workspace --test cluster isolation::` runs one module.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod attack;
mod bad_input;
mod chart;
mod controller_start;
mod crds;
mod examples;
mod faults;
mod gates;
mod gitops;
mod inventory;
mod isolation;
mod large_plan;
mod oldest;
mod opt_in;
mod ordinary;
mod other_policies;
mod quarantine_cli;
mod ratchet;
mod recovery;
mod rights;
mod schema;
mod steps_velero;
mod upgrade;
