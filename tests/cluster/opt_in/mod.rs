//! What a plan does only where it says so: makes Quarantines, resumes CronJobs, runs Jobs. One control plane and one operator for all.

mod decisions;
mod quarantines;
mod resume;
mod steps;
