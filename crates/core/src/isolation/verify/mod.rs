//! Verification of controls: admission by dry-runs ([`dry_run`] judges one answer, [`admission`] all of them), and the network
//! ([`network`]) by pods ([`pods`]).

pub mod admission;
pub mod dry_run;
pub mod network;
pub mod pods;
