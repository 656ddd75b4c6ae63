//! Malformed objects, for parsers and judges to survive.
//!
//! `cargo test` plays a fixed number of them, always the same (`BOLERO_RANDOM_SEED` plays others); `cargo bolero test NAME`
//! searches on, guided by coverage.

mod mutate;

use std::sync::atomic::{AtomicUsize, Ordering};

pub use mutate::spoiled;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Rounds of each target in `cargo test`.
pub const ROUNDS: usize = 1_000;

/// How many sound and half-sound objects a target has seen: one that reads none of them tests nothing.
#[derive(Default)]
pub struct Readable(AtomicUsize);

impl Readable {
    /// The object, where it can be read.
    pub fn read<T: DeserializeOwned>(&self, value: Value) -> Option<T> {
        let read = serde_json::from_value(value).ok()?;
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(read)
    }
}

impl Drop for Readable {
    fn drop(&mut self) {
        let read = *self.0.get_mut();
        // A fuzzer that is guided plays as many as it likes, and a failure has been told already.
        if !std::thread::panicking() && std::env::var_os("BOLERO_LIBFUZZER_ARGS").is_none() {
            assert!(read > ROUNDS / 10, "only {read} objects could be read at all");
        }
    }
}
