//! Bad input: each has a condition that names the culprit; nothing it touches starts or opens, the operator stays up, and
//! what is good goes on. One control plane and one operator for all tests here, side by side.

pub mod bench;
mod edits;
mod fields;
mod plans;
pub mod registries;
pub mod schema;
mod services;
mod unreadable;
