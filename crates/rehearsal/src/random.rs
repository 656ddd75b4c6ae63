//! Pseudorandom numbers, the same on every machine.

use anyhow::{Context, Result};

/// Returns the seed from RESURGAM_SEED, or `default`.
///
/// # Errors
/// The variable is not a number.
pub fn seed(default: u64) -> Result<u64> {
    let Ok(text) = std::env::var("RESURGAM_SEED") else { return Ok(default) };
    text.parse().with_context(|| format!("RESURGAM_SEED={text}"))
}

/// Sebastiano Vigna's SplitMix64: small, and enough for tests.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// Returns a generator with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number in `from..to`; `to` must be greater.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (z ^ (z >> 31)) % (to - from)
    }
}
