//! Decisions about isolation: what is in place, and what follows from that. The shell reads,
//! writes and tries; it decides none of this.

pub mod deliverers;
pub mod other_policies;
pub mod pod_security;
pub mod policy_names;
pub mod tighten;
pub mod verify;
