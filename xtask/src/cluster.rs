//! `cargo xtask cluster`: runs a control plane for manual use.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use control_plane::{ControlPlane, Identity, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Interval at which a running cluster is checked.
const WATCH: Duration = Duration::from_secs(1);

/// Text at the end of `--help`.
const EXAMPLES: &str = "\
etcd, the API server, the controllers, the scheduler, and fake nodes (kwok). It ends with this command, however that ends. DIR keeps logs/ \
and audit/audit.log.

Examples:
  # A cluster, and a shell that uses it as the platform administrator
  cargo xtask cluster up --dir DIR &
  export KUBECONFIG=DIR/kubeconfigs/platform-administrator.yaml

  # Tests attach to it: nothing is started, and what they did can be looked at afterwards
  RESURGAM_CLUSTER=DIR cargo test --workspace --test cluster schema::

  cargo xtask cluster down --dir DIR

Tests that attach first remove what is not in a cluster that has just started: namespaces, kinds, policies, webhooks, roles. One module \
attaches at a time, so name it. Modules that install admission policies (isolation, attack, quarantine_cli) want a cluster that has just \
started: the API server does not forget deleted policies at once. Whoever configures or kills a control plane starts one all the same: api_servers, static_manifests, upgrade, \
chart, and each further one that a module needs.";

/// Runs a real control plane on loopback, for experiments and for tests to attach to.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster, print its kubeconfigs, and run it until Ctrl-C, SIGTERM or `down`.
    Up {
        /// Folder for data, kubeconfigs and logs. It must be empty, or that of an earlier cluster, whose files are removed.
        #[arg(long)]
        dir: PathBuf,
        /// Number of fake nodes.
        #[arg(long, default_value_t = Options::default().nodes)]
        nodes: usize,
    },
    /// Stop the cluster that runs in a folder. The folder is kept.
    Down {
        /// Folder that `up` was given.
        #[arg(long)]
        dir: PathBuf,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        match args.command {
            Command::Up { dir, nodes } => up(dir, nodes).await,
            Command::Down { dir } => down(dir).await,
        }
    });
    // Without waiting for a build that was interrupted: it ends with this process.
    runtime.shutdown_background();
    outcome
}

async fn up(dir: PathBuf, nodes: usize) -> anyhow::Result<()> {
    // Before anything is started: whoever ends us during the start gets the same orderly end.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    anstream::eprintln!("starting a control plane in {}", dir.display());
    let control_plane = tokio::select! {
        started = ControlPlane::start(Options { dir: Some(dir), nodes, ..Options::default() }) => started?,
        _ = interrupt.recv() => bail!("interrupted before the control plane was ready"),
        _ = terminate.recv() => bail!("ended before the control plane was ready"),
    };
    anstream::print!("{}", describe(&control_plane));
    anstream::eprintln!("running; Ctrl-C ends it");
    let mut watch = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = watch.tick() => control_plane.check()?,
        }
    }
    anstream::eprintln!("stopping");
    control_plane.stop().await
}

/// Returns lines for a shell to `eval`.
fn describe(control_plane: &ControlPlane) -> String {
    let mut lines = String::new();
    for who in Identity::ALL {
        let suffix = match who {
            Identity::PlatformAdministrator => String::new(),
            Identity::TenantAdministrator
            | Identity::Responder
            | Identity::RecoveryLead
            | Identity::Upgrader
            | Identity::GitOps
            | Identity::Operator => format!("_{}", who.name().replace('-', "_").to_uppercase()),
        };
        lines += &format!("KUBECONFIG{suffix}={}\n", control_plane.kubeconfig(who).display());
    }
    lines + &format!("AUDIT_LOG={}\n", control_plane.audit_log().display())
}

async fn down(dir: PathBuf) -> anyhow::Result<()> {
    let ended = control_plane::end(&dir).await?;
    let outcome = if ended { "ended the cluster in" } else { "no cluster is running in" };
    anstream::eprintln!("{outcome} {}", dir.display());
    Ok(())
}
