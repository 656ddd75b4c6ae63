//! What a plan does only where it says so: makes Quarantines, resumes CronJobs. One control plane and one operator for all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

#[allow(dead_code, reason = "shared with the tests of bad input")]
#[path = "../bad_input/bench.rs"]
mod bench;
mod quarantines;
mod resume;
