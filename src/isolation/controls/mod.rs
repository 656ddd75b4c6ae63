//! What isolates, one file per control. Each observes, enforces (tightens) and restores by itself, and fails by itself: the
//! controller reports what failed and goes on with the next.

pub mod identity;
pub mod label;
pub mod legacy;
pub mod list;
pub mod network;
pub mod pod_security;
pub mod pods;
pub mod quota;
pub mod workloads;
