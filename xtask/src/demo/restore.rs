//! `cargo xtask demo --restore`: three boroughs whose data is gone, with the real Velero and the real Flux.

use std::time::Instant;

use anyhow::Result;
use control_plane::{ControlPlane, Options};
use rehearsal::restoration::{Programs, Restoration};

use super::say::{note, scene, tell};
use super::{Args, FinishedDemo, build};

pub(super) async fn play(args: &Args) -> Result<FinishedDemo> {
    let began = Instant::now();
    scene("Building the operator, Velero with its plugin for S3, an S3 server, and two controllers of Flux");
    let binary = build()?;
    // Blocks for minutes where they are missing.
    let programs = tokio::task::spawn_blocking(Programs::build).await??;
    scene("Starting a control plane: etcd, API server, controllers, scheduler, and fake nodes (kwok)");
    let cluster = ControlPlane::start(Options { dir: args.dir.clone(), ..Options::default() }).await?;
    let built = Instant::now();
    rehearsal::install(&cluster).await?;
    note(&format!("audit log: {}", cluster.audit_log().display()));
    let story = Restoration { cluster: &cluster, binary: &binary, programs: &programs, tell: &tell };
    let restored = story.play().await?;

    scene("The judge reads the API server's audit log and the plan, and nothing else");
    let options =
        judge::Options { operate: vec![rehearsal::velero::USER.to_owned()], ..judge::Options::default() };
    let log = std::io::BufReader::new(std::fs::File::open(cluster.audit_log())?);
    let report = judge::judge(log, &restored.plan, &options)?;
    anstream::print!("{report}");
    note(&format!(
        "the whole demo took {:.0} s, of which {:.0} s once everything was built and up",
        began.elapsed().as_secs_f64(),
        built.elapsed().as_secs_f64()
    ));
    let (operator, tools) = (restored.operator, restored.tools);
    Ok(FinishedDemo { report, cluster, operator: Some(operator), _more: Box::new(tools) })
}
