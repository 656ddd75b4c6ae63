//! `cargo xtask` right after `cargo test --workspace` compiles nothing again: both build every crate with the same features.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeSet;
use std::process::Command;

/// Every crate that Cargo would build for these arguments, with its features.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["tree", "--locked", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{p} [{f}]"]);
    let output = cargo.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn xtask_after_tests_compiles_nothing_again() {
    let of_tests = crates(&["--workspace", "--edges", "normal,build,dev"]);
    let of_xtask = crates(&["--package", "xtask", "--edges", "normal,build"]);
    let again: Vec<&String> = of_xtask.difference(&of_tests).collect();
    assert!(
        again.is_empty(),
        "tests build these with more features; add them at the end of [dependencies] in xtask/Cargo.toml: {again:#?}"
    );
}
