//! `cargo xtask upgrade-from COMMIT`: upgrades during a recovery, and rolls back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Options};
use rehearsal::Release;
use rehearsal::trial::upgrade::{State, there_and_back};

use crate::faults::block_on;

/// Text at the end of `--help`.
const EXAMPLES: &str = "\
The operator of that commit is built, and begins a small recovery with that commit's kinds and rights. Once its database is up, kinds, \
rights and operator are replaced by those at hand; once its web service is up, they are put back. Then the same begins with those at hand. \
Between two operators a tenant tries to get out.

Each recovery must end, with every namespace let into its clean room and out of it once, and the judge must find nothing in the audit log.

Building an earlier operator takes a minute where its dependencies are built already, and longer where they differ. It is kept in \
target/releases/.

Examples:
  # From the last release
  cargo xtask upgrade-from v0.1.0

  # Which commit broke it? Exit status 125 tells git bisect to skip a commit that does not build.
  git bisect run cargo xtask upgrade-from 890273d

Exit status: 0 both recoveries ended as they should; 1 one did not; 125 there is no such commit, or it does not build.";

/// Upgrade from an earlier commit during a recovery, and roll back.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A commit, tag or branch of this repository.
    commit: String,

    /// Folder for the cluster's data. Default: a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Exit code that `git bisect run` takes for a commit that cannot be tested.
const CANNOT_TELL: u8 = 125;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    anstream::eprintln!("building the operator at hand");
    let operator = crate::demo::build()?;
    anstream::eprintln!("building the operator of {}", args.commit);
    let earlier = match Release::of(&args.commit) {
        Ok(Some(earlier)) => earlier,
        Ok(None) => {
            anstream::eprintln!(
                "{} is no commit of this repository, or its history is not here",
                args.commit
            );
            return Ok(ExitCode::from(CANNOT_TELL));
        }
        Err(error) => {
            anstream::eprintln!("{error:#}");
            return Ok(ExitCode::from(CANNOT_TELL));
        }
    };
    block_on(async {
        anstream::eprintln!("starting a control plane");
        let cluster = ControlPlane::start(Options { dir: args.dir.clone(), ..Options::default() }).await?;
        let (earlier, this) = (State::Earlier(&earlier), State::This(&operator));
        for (name, what, one, other) in [
            ("there-and-back", format!("{}, this, {}", args.commit, args.commit), earlier, this),
            ("back-and-there", format!("this, {}, this", args.commit), this, earlier),
        ] {
            let began = Instant::now();
            let ended = there_and_back(&cluster, name, one, other).await;
            if ended.is_err() {
                let kept = crate::faults::keep_audit_log(&cluster, name);
                kept.context("after a recovery that did not end as it should")?;
            }
            ended.with_context(|| format!("operators: {what}"))?;
            anstream::println!("operators: {what}: recovered in {:.0} s", began.elapsed().as_secs_f64());
        }
        cluster.stop().await?;
        Ok(ExitCode::SUCCESS)
    })
}
