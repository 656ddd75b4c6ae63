//! Reads network policies of other APIs. What each of them allows is judged in `resurgam_core::isolation::other_policies`.

mod gather;

use std::time::Duration;

pub use gather::{PolicyReader, observe};
pub use resurgam_core::isolation::other_policies::*;

/// Label that adds a ClusterRole to what the operator may list.
pub const AGGREGATE_LABEL: &str = "resurgam.dev/aggregate-to-capture";
/// No watch tells the operator of such policies, whose kinds come and go: while anything is isolated, all of them are looked at this often,
/// and while one stands, its namespace.
pub const RECHECK: Duration = Duration::from_secs(30);
