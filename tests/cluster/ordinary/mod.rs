//! Ordinary estates come back as they were, or the status says why not.

mod applications;
mod baseline;
mod estate;
mod nothing_to_start;
mod prepared;
mod records;
mod rollouts;
mod stuck;
mod tags;
