//! Verifies the controls: lock, fence and guard by dry-runs ([`fence`]) on every API server ([`servers`]), the network by pods of
//! our own that must not reach each other ([`attempt`], whose pods are data in [`pods`]). What the results mean is decided in
//! `resurgam_core::isolation::verify`.

mod attempt;
pub(super) mod fence;
pub mod servers;

pub use attempt::{AttemptError, attempt};
pub use fence::{is_open, probe};
pub use resurgam_core::isolation::verify::{admission, network, pods};
pub use servers::Servers;

pub use admission::{ProbeReport, ProbeResult};
