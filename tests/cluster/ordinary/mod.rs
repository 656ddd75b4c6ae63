//! Ordinary estates: what most clusters run must be recoverable as it is, or the operator says what to do.

mod tags;
