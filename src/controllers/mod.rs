//! The shell: watch, gather, ask the pure half, write. It decides nothing.

pub mod fence;
pub mod metrics;
pub mod plan;
pub mod quarantine;
mod roles;

mod act;
mod context;
mod events;
mod gate_tasks;
mod observe;
mod running;
mod stores;
