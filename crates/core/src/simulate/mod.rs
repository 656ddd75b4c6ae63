//! The engine in virtual time: the same [`decide`](crate::engine::decide), and no cluster.
//!
//! [`World`] plays the shell's part: it applies writes and effects, each after a latency, answers gates from a script, and
//! keeps a record of [`Fact`]s from which a test can judge without believing the engine.

mod assume;
mod load;
pub mod report;
mod world;

#[cfg(test)]
mod tests;

pub use assume::{Assumed, Run, ServiceRun, Sweep, play, sweep};
pub use load::{LoadError, load};
pub use world::{Event, Fact, Limits, Question, RanAway, Script, Takes, World};
