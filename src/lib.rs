//! Resurgam brings an organisation's services back after a cyber attack: in dependency order, each only after its health
//! and integrity gates pass, with everything else kept isolated meanwhile.
//!
//! Data goes one way: watch, observe, decide, act, write. `resurgam-core` decides, and cannot do anything else; `gates`, `steps`,
//! `isolation` and `controllers` are the shell.

pub mod access;
pub mod baseline;
pub mod calls;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster_cache;
pub mod controllers;
pub mod gates;
pub mod heartbeats;
pub mod isolation;
mod job_pods;
pub mod leader;
pub mod registries;
pub mod resume;
pub(crate) mod reviews;
pub mod status;
pub mod steps;
mod tls;
pub mod validation;
pub mod version;

pub use resurgam_api as api;
pub(crate) use resurgam_core::text;
pub use resurgam_core::{engine, plan, simulate};
