//! Reads what the preflight judges, as the caller. The judgement is `resurgam_core::preflight`.

mod gather;
mod login;

pub use gather::gather;
pub use resurgam_core::preflight::*;
