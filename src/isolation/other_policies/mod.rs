//! Reads network policies of other APIs. `resurgam_core::isolation::other_policies` judges what they allow.

mod gather;

use std::time::Duration;

pub use gather::{PolicyReader, observe};
pub use resurgam_core::isolation::other_policies::*;

/// Label that adds a ClusterRole to what the operator may list.
pub const AGGREGATE_LABEL: &str = "resurgam.dev/aggregate-to-capture";
/// Interval at which policies of other APIs are read while anything is isolated. There is no watch, since their kinds come and go.
pub const RECHECK: Duration = Duration::from_secs(30);
