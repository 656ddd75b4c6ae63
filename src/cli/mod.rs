//! One file for each subcommand.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::calls::error_line;

mod access;
mod baseline;
mod check;
mod completion;
mod controller;
mod crds;
mod decide;
mod evidence;
mod fence;
pub mod follow;
mod gate_eval;
mod images;
mod plan_file;
mod probe;
mod quarantine;
mod release;
mod simulate;
mod status;
mod test_fence;
mod version;

/// Brings services back after a cyber attack: in dependency order, each only when it is proved healthy and intact, with
/// everything else kept isolated meanwhile.
#[derive(Debug, Parser)]
#[command(name = "resurgam", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Name by which kubectl finds this binary.
const PLUGIN: &str = "kubectl-resurgam";

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate a plan and play it through in virtual time, without any cluster: order, critical path, makespan. 0: it is sound; 1: it has
    /// problems; 2: it is no plan, or an API server would refuse it.
    Simulate(simulate::Args),
    /// Print the RBAC that a plan needs, no more and no less, to apply or to commit. With --check: what of it is missing.
    Access(access::Args),
    /// Show what is recovered, what is next, what blocks it, and which Quarantines fail. 0: no action needed; 1: action
    /// needed; 2: unknown.
    Status(status::Args),
    /// Decide what the operator asks about a service, or hold or abort it, as yourself. 0: it took effect; 1: not, or not yet; 2: refused.
    Decide(decide::Args),
    /// Check whether isolating and recovering would work on this cluster. 0: they would; 1: they would not; 2: unknown.
    Check(check::Args),
    /// Isolate namespaces now, as yourself, operator or not. 0: all namespaces isolated and verified; 1: some are not.
    Quarantine(quarantine::Args),
    /// Release namespaces that were isolated by mistake, and start what ran. 0: released, and started if asked for; 1: not all.
    Release(release::Args),
    /// The operator: watches plans and recovers what they name. One replica leads, by a Lease.
    Controller(controller::Args),
    /// List, get and verify what was captured before anything was stopped.
    Evidence(evidence::Args),
    /// Print what runs, or ran when it was sealed, as entries for the list of approved images. 0: all of it; 1: not all could be
    /// resolved; 2: unknown.
    Images(images::Args),
    /// Make, sign and compare inventories of what is approved, for gate baseline. 0: it is so; 1: it is not; 2: unknown.
    Baseline(baseline::Args),
    /// Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`.
    Crds(crds::Args),
    /// Print the admission policies as manifests, or as static manifests for the API server's own machine.
    Fence(fence::Args),
    /// Isolate namespace resurgam-test, try ten writes there, and let it out: what `helm test` runs, as an account that may. Changes
    /// nothing while any other namespace is isolated. 0: all were refused, or one is; 2: not so.
    TestFence(test_fence::Args),
    /// Show the versions of this command, the operator, the policies and the CRDs. 0: compatible; 1: incompatible; 2: unknown.
    Version(version::Args),
    /// Print the completion script of a shell, or install this as `kubectl resurgam`.
    Completion(completion::Args),
    /// Runs in the pods by which the operator tries the cluster's network.
    #[command(hide = true)]
    Probe(probe::Args),
    /// Evaluates one expression of a `condition` gate, within limits: the operator starts it.
    #[command(hide = true)]
    GateEval(gate_eval::Args),
}

impl Cli {
    /// Parses the command line. Help and errors exit the process.
    #[must_use]
    pub fn read() -> Self {
        let mut arguments = std::env::args_os().peekable();
        let program = arguments.peek().cloned().unwrap_or_default();
        let matches = command(&program).get_matches_from(arguments);
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the subcommand. 0: success, or the answer is yes. 1: the answer is no. 2: an error, or the answer is unknown.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Simulate(args) => simulate::run(&args),
            Command::Access(args) => access::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Decide(args) => decide::run(&args),
            Command::Quarantine(args) => quarantine::run(&args),
            Command::Release(args) => release::run(&args),
            Command::Controller(args) => controller::run(&args),
            Command::Evidence(args) => evidence::run(&args),
            Command::Images(args) => images::run(&args),
            Command::Baseline(args) => baseline::run(&args),
            Command::Crds(args) => crds::run(&args),
            Command::Fence(args) => fence::run(&args),
            Command::TestFence(args) => test_fence::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Version(args) => version::run(&args),
            Command::Completion(args) => completion::run(&args),
            Command::Probe(args) => probe::run(&args),
            Command::GateEval(args) => gate_eval::run(&args),
        };
        result.unwrap_or_else(|error| {
            anstream::eprintln!("resurgam: {}", error_line(error.as_ref()));
            ExitCode::from(2)
        })
    }
}

/// Returns the clap command, with the name under which people call the plugin.
fn command(program: &OsStr) -> clap::Command {
    let command = Cli::command();
    if Path::new(program).file_stem() == Some(OsStr::new(PLUGIN)) {
        command.bin_name("kubectl resurgam")
    } else {
        command
    }
}

/// How something is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How manifests are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ManifestFormat {
    /// One document for each object.
    #[default]
    Yaml,
    /// One `List`.
    Json,
}

/// Parses `NAMESPACE/NAME`.
fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("it takes NAMESPACE/NAME".to_owned()),
    }
}

/// Returns a file's display name and its text. `-` is standard input.
pub(crate) fn read(path: &Path) -> anyhow::Result<(String, String)> {
    if path.as_os_str() == "-" {
        let text = std::io::read_to_string(std::io::stdin()).context("reading standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {file}"))?;
    Ok((file, text))
}

/// Returns columns and lines of the terminal, or 100 by 50 without one.
pub(crate) fn terminal() -> (usize, usize) {
    terminal_size::terminal_size()
        .map_or((100, 50), |(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// Returns the cluster from KUBECONFIG, `~/.kube/config` or the pod's account.
pub(crate) async fn cluster() -> anyhow::Result<kube::Config> {
    // The error's text covers all attempts; its source only the kubeconfig.
    kube::Config::infer().await.map_err(|error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        anyhow::anyhow!("no cluster is configured: set KUBECONFIG, or run in a pod ({why})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_teaches_and_shows_examples() {
        let mut root = command(OsStr::new("resurgam")).term_width(110);
        root.build();
        for name in [
            "access",
            "baseline",
            "check",
            "completion",
            "evidence",
            "fence",
            "images",
            "quarantine",
            "release",
            "simulate",
            "version",
        ] {
            let help = root.find_subcommand_mut(name).unwrap().render_long_help();
            insta::assert_snapshot!(format!("help_{name}"), help.to_string());
        }
    }

    #[test]
    fn kubectl_plugin_uses_the_name_that_people_type() {
        for (program, expected) in [
            ("/usr/local/bin/kubectl-resurgam", "Usage: kubectl resurgam check"),
            ("kubectl-resurgam.exe", "Usage: kubectl resurgam check"),
            ("/usr/local/bin/resurgam", "Usage: resurgam check"),
        ] {
            let mut root = command(OsStr::new(program));
            root.build();
            let usage = root.find_subcommand_mut("check").unwrap().render_usage().to_string();
            assert!(usage.starts_with(expected), "{program}: {usage}");
        }
    }
}
