//! The chart: what Helm makes of its values, and what an installation, an upgrade and a removal do to a cluster, during an
//! incident, too.

mod lifecycle;
mod rendered;
