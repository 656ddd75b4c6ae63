//! Fifty services of which one in ten fails at random. `cargo xtask failures` plays 500.

use std::path::Path;

use control_plane::{ControlPlane, Options};
use rehearsal::many::Many;

#[tokio::test(flavor = "multi_thread")]
async fn random_failures_end_recovered_or_waiting_for_a_true_root() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let seed = rehearsal::seed(7).unwrap();
    eprintln!("RESURGAM_SEED={seed}");
    let many = Many::new(50, seed, rehearsal::DEADLINE);
    let binary = Path::new(env!("CARGO_BIN_EXE_resurgam"));
    let (outcome, operator, plan) = many.play(&cluster, binary, &|_| {}).await.unwrap();
    drop(operator);
    assert!(outcome.failed >= 2 && outcome.held_up >= 2 && outcome.recovered >= 10, "{outcome:?}");
    let file = std::fs::File::open(cluster.audit_log()).unwrap();
    let report = judge::judge(std::io::BufReader::new(file), &plan, &judge::Options::default()).unwrap();
    assert!(report.is_clean(), "{report}");
    cluster.stop().await.unwrap();
}
