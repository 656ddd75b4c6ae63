//! `cargo xtask mutants`: mutation tests of the decisions.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

/// Text at the end of `--help`.
const EXAMPLES: &str = "\
cargo-mutants changes one expression of resurgam-core at a time (a comparison turned round, a function that returns nothing) and runs that \
crate's tests. A change that no test notices is a decision that nobody holds, or code that decides nothing: write the test, or remove the code.

Each change takes a build and a run of the tests; all of them take hours. cargo-mutants is installed once where it is missing.

Examples:
  # What has changed since main: minutes. What a review asks for.
  cargo xtask mutants --since main

  # One file
  cargo xtask mutants --file crates/core/src/engine/slots.rs

  # How many would there be?
  cargo xtask mutants --list

  # A quarter of all of them, on each of four machines
  cargo xtask mutants --shard 0/4

Progress goes to standard error; mutants.out/ has what each change was and what the tests said.

Exit status: 0 a test noticed each change; 1 the tests fail without any change, or cannot be run; 2 a change went unnoticed; 3 with a change, \
tests did not end.";

/// Change the decisions in resurgam-core one by one, and list the changes that no test detects.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only code that differs from this commit or branch.
    #[arg(long, value_name = "COMMIT")]
    since: Option<String>,

    /// Only files that match a path or glob.
    #[arg(long, value_name = "GLOB")]
    file: Vec<String>,

    /// Only a part of the changes: K/N, with K from 0.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,

    /// Only list the changes.
    #[arg(long)]
    list: bool,
}

/// Exit codes of cargo-mutants for undetected changes, and for timeouts.
const FOUND: [u8; 2] = [2, 3];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo = || {
        let mut cargo = Command::new(&cargo);
        cargo.current_dir(rehearsal::repository("."));
        cargo
    };
    let is_there =
        cargo().args(["mutants", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        anstream::eprintln!("installing cargo-mutants, once");
        let installed = cargo().args(["install", "--quiet", "--locked", "cargo-mutants"]).status()?;
        ensure!(installed.success(), "cargo-mutants cannot be installed");
    }
    let mut mutants = cargo();
    mutants.args(["mutants", "--package", "resurgam-core", "--colors", "auto"]);
    let diff = args.since.as_deref().map(diff_since).transpose()?;
    if let Some(diff) = &diff {
        mutants.arg("--in-diff").arg(diff);
    }
    for file in &args.file {
        mutants.args(["--file", file]);
    }
    if let Some(shard) = &args.shard {
        mutants.args(["--shard", shard]);
    }
    if args.list {
        mutants.arg("--list");
    }
    let status = mutants.status().context("cargo-mutants cannot be run")?;
    if status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.filter(|code| FOUND.contains(code)).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Writes the difference to a commit to a file.
fn diff_since(commit: &str) -> Result<std::path::PathBuf> {
    let mut git = Command::new("git");
    let output =
        git.arg("-C").arg(rehearsal::repository(".")).args(["diff", commit, "--", "crates/core"]).output()?;
    ensure!(output.status.success(), "git diff {commit}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let file = rehearsal::repository("target/mutants.diff");
    std::fs::write(&file, output.stdout).with_context(|| file.display().to_string())?;
    Ok(file)
}
