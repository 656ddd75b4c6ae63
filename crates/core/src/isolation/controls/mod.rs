//! What each control writes, and whether it is in place, from what was read. One file per control.

pub mod identity;
pub mod label;
pub mod list;
pub mod network;
pub mod pod_security;
pub mod pods;
pub mod quota;
pub mod workloads;
