//! What verifying a control showed, and what that means: admission by dry-runs ([`admission`]), the network by pods ([`network`]).

pub mod admission;
pub mod network;
