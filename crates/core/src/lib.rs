//! All decisions of Resurgam, without any I/O: compiling plans, deciding what to do next, how isolated a namespace has to be, and
//! simulating a plan in virtual time.
//!
//! Pure: the crate's manifest has no client, no async runtime, no TLS and no clock, so that the compiler enforces it. Time and
//! observations are arguments.

pub mod baseline;
pub mod engine;
pub mod gates;
pub mod isolation;
pub mod plan;
pub mod preflight;
pub mod preparation;
pub mod release;
pub mod resume;
pub mod simulate;
pub mod steps;
pub mod text;
pub mod time;

use resurgam_api as api;
