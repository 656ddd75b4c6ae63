//! All decisions of Resurgam, and nothing that could act on them: what a plan is, what is to be done next, how isolated a namespace is to
//! be, and how a plan plays out in virtual time.
//!
//! Pure: this crate's manifest has no client, no async runtime, no TLS and no clock, so the compiler holds that line. Time and everything
//! observed are arguments.

pub mod engine;
pub mod gates;
pub mod isolation;
pub mod plan;
pub mod preflight;
pub mod resume;
pub mod simulate;
pub mod steps;
pub mod text;

use resurgam_api as api;
