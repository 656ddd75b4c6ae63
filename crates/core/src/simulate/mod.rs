//! Simulation: the engine in virtual time, with the same [`decide`](crate::engine::decide) and no cluster.
//!
//! [`World`] replaces the shell: it applies writes and effects after a latency, answers gates from a script, and records [`Fact`]s, from
//! which a test can judge independently of the engine.

mod assume;
mod load;
pub mod report;
mod world;

#[cfg(test)]
mod tests;

pub use assume::{Assumed, Run, ServiceRun, Sweep, play, sweep};
pub use load::{LoadError, load};
pub use world::{Event, Fact, Limits, Question, RanAway, Script, Takes, World};
