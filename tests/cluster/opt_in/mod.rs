//! What a plan does only where it says so: makes Quarantines, resumes CronJobs, runs Jobs. One control plane and one operator for all.

mod apply;
mod decisions;
mod oci;
mod pin_images;
mod quarantines;
mod resume;
mod steps;
mod verdicts;
mod wait;
