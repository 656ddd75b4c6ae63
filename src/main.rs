//! The `resurgam` binary.
fn main() {}
