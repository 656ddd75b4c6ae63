//! Controllers: watch, gather, ask the pure half what comes next, write.

pub mod fence;
pub mod quarantine;
