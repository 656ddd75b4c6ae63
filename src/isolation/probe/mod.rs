//! What tries the controls, so that `Tested` means tried: lock, fence and guard by dry-runs ([`fence`]) on every API server
//! ([`servers`]; what that means is [`shown`]'s to judge), the network by pods of our own
//! that must not reach each other ([`network`], as data in [`pods`]).

mod attempt;
pub(super) mod fence;
pub mod network;
pub mod pods;
pub mod servers;
pub mod shown;

pub use attempt::{AttemptError, attempt};
pub use fence::{is_open, probe};
pub use servers::Servers;
pub use shown::{Probed, Seen};
