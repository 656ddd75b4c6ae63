//! The chart: what Helm makes of its values, and what an installation, an upgrade and a removal do to a cluster, during an
//! incident, too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod lifecycle;
mod rendered;
