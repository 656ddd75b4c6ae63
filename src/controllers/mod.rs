//! The shell: watch, gather, ask the pure half, write. It decides nothing.

pub mod fence;
pub mod health_cache;
pub mod metrics;
pub mod network;
pub mod plan;
pub mod process;
pub mod quarantine;
mod roles;

mod accepted;
mod act;
mod api_servers;
mod context;
mod dependencies;
mod events;
mod gate_tasks;
mod observe;
mod preparation;
mod running;
mod step_tasks;
mod stores;
mod verdicts;
mod view;
