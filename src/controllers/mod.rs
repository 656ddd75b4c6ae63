//! The shell: watch, gather, ask the engine, write. It decides nothing.

pub mod metrics;
pub mod plan;

mod act;
mod events;
mod gate_tasks;
mod observe;
mod running;
mod stores;
