//! What tries the controls, so that `Tested` means tried: lock and fence by dry-runs ([`fence`]), the network by pods of our own
//! that must not reach each other ([`network`], as data in [`pods`]).

mod attempt;
pub(super) mod fence;
pub mod network;
pub mod pods;

pub use attempt::{AttemptError, attempt};
pub use fence::{Probed, Seen, is_open, probe};
