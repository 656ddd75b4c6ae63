//! The `resurgam` binary: the operator, and the tools beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    resurgam::cli::Cli::read().run()
}
