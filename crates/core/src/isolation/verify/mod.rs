//! What verifying a control showed, and what that means: admission by dry-runs ([`dry_run`] judges one answer, [`admission`] all of
//! them), the network ([`network`]) by pods ([`pods`]).

pub mod admission;
pub mod dry_run;
pub mod network;
pub mod pods;
