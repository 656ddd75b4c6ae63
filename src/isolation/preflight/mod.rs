//! Reads what the preflight judges, as the caller. `resurgam_core::preflight` judges it.

mod gather;
mod login;

pub use gather::gather;
pub use resurgam_core::preflight::*;
