//! Baselines: what is read for them, the form in which they are kept, and their signatures. The core compares.

pub(crate) mod gather;
pub mod keys;
pub mod packed;

pub use gather::{GatherError, Gathered, gather};
pub use keys::{KeyError, PublicKey, SigningKey};
