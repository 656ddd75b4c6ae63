//! Isolation controls, one file each. Each observes, enforces (tightens) and restores independently: the controller reports a failure and
//! goes on with the next control.

pub mod cleanup;
pub mod identity;
pub mod label;
pub mod legacy;
pub mod list;
pub mod network;
pub mod pod_security;
pub mod pods;
pub mod quota;
pub mod workloads;
