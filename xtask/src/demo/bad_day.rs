//! `cargo xtask demo --bad-day`: almost nothing goes as planned.

use std::time::Instant;

use anyhow::Result;
use control_plane::{ControlPlane, Options};
use rehearsal::bad_day::BadDay;

use super::say::{note, scene, tell};
use super::{Args, FinishedDemo, build};

pub(super) async fn play(args: &Args) -> Result<FinishedDemo> {
    let began = Instant::now();
    scene("Building the operator");
    let binary = build()?;
    scene("Starting a control plane: etcd, API server, controllers, scheduler, and fake nodes (kwok)");
    let cluster = ControlPlane::start(Options { dir: args.dir.clone(), ..Options::default() }).await?;
    rehearsal::install(&cluster).await?;
    note(&format!("audit log: {}", cluster.audit_log().display()));
    let (operator, plan) = BadDay { cluster: &cluster, binary: &binary, tell: &tell }.play().await?;

    scene("The judge reads the API server's audit log and the plan, and nothing else");
    let report = judge::judge(
        std::io::BufReader::new(std::fs::File::open(cluster.audit_log())?),
        &plan,
        &judge::Options::default(),
    )?;
    anstream::print!("{report}");
    note(&format!("the whole day took {:.0} s", began.elapsed().as_secs_f64()));
    Ok(FinishedDemo { report, cluster, operator: Some(operator), _more: Box::new(()) })
}
