//! The controls, one file each: what a control writes, and whether an observation shows it in place.

pub mod cleanup;
pub mod identity;
pub mod label;
pub mod list;
pub mod network;
pub mod pod_security;
pub mod pods;
pub mod quota;
pub mod rollouts;
pub mod workloads;
