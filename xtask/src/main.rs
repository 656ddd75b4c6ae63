//! Chores of the repository, as `cargo xtask`.
fn main() {}
