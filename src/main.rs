//! The `resurgam` binary: the operator, and the tools beside it.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    resurgam::cli::Cli::parse().run()
}
