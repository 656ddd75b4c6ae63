//! Controllers: watch, gather, ask the pure half what comes next, write.
