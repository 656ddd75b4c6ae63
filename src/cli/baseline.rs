//! `resurgam baseline`: makes, signs and compares inventories of what is approved.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::isolation::evidence::DigestKey;

mod capture;
mod diff;
mod manifests;
mod sign;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Gate baseline compares what is in a service's namespaces, and what reaches into them, with a signed inventory. These commands make \
one, sign it, and show what differs. Values of Secrets are never written: with --secret-key a keyed digest of each is.

A key pair, by openssl (or by `resurgam baseline keygen`, where there is none):
  openssl genpkey -algorithm ed25519 -out approver.pem
  openssl pkey -in approver.pem -pubout -out approver.pub

Examples:
  # Before the day: what is there now. Read it before you sign it.
  resurgam baseline capture -n shop-web -n shop-db --secret-key digest.key -o baseline.json

  # After the fact: what was captured when the namespaces were isolated; or what Git says, with the defaults of this API server.
  resurgam baseline capture --from-evidence s3://evidence/council -n shop-web -o baseline.json
  resurgam baseline capture --from-manifests rendered/ --scratch baseline-scratch -o baseline.json

  # Sign it, and write the ConfigMaps that the gate reads.
  resurgam baseline sign baseline.json --key approver.pem -o baseline.dsse
  resurgam baseline sign baseline.dsse --key second.pem --config-map recovery/shop-baseline -o configmaps.yaml

  # What has changed since?
  resurgam baseline diff baseline.dsse --key approver.pub --secret-key digest.key

Exit status: 0 it is so, or nothing differs; 1 it is not, or something differs; 2 it could not be found out. `capture` and `diff` take \
`list` on everything in the namespaces, on clusterroles, clusterrolebindings and webhook configurations, and `get` on the namespaces.";

/// Arguments of `resurgam baseline`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an inventory: of namespaces as they are, of captured evidence, or of rendered manifests. It is not signed.
    Capture(capture::Args),
    /// Sign an inventory, or add a signature to a signed one.
    Sign(sign::SignArgs),
    /// Verify signatures. 0: all given keys have signed it; 1: not.
    Verify(sign::VerifyArgs),
    /// Show what differs from an inventory: object, field, was, is. 0: nothing; 1: something; 2: unknown.
    Diff(diff::Args),
    /// Create an ed25519 key pair, where no openssl is at hand.
    Keygen(sign::KeygenArgs),
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Capture(args) => block_on(capture::run(args)),
        Command::Sign(args) => sign::sign(args),
        Command::Verify(args) => sign::verify(args),
        Command::Diff(args) => block_on(diff::run(args)),
        Command::Keygen(args) => sign::keygen(args),
    }
}

fn block_on(future: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

/// Writes to a file, or to standard output.
fn write(output: Option<&Path>, text: &str) -> Result<()> {
    match output {
        Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        None => Ok(anstream::stdout().write_all(text.as_bytes())?),
    }
}

fn digest_key(path: Option<&PathBuf>) -> Result<Option<DigestKey>> {
    let read = |path: &PathBuf| {
        DigestKey::read(path).with_context(|| format!("reading --secret-key {}", path.display()))
    };
    path.map(read).transpose()
}

#[cfg(test)]
mod tests;
