//! Every run here ends with the judge, over the whole of it and over a while in which there is nothing to do.

use control_plane::ControlPlane;
use judge::{Options, Report, Window, judge_files};

/// Judges the plan by all that has been logged so far. `namespace` is one of its recovered services'; the operator is running.
pub async fn judged(cluster: &ControlPlane, name: &str, plan: &str, namespace: &str) -> Report {
    let (from, until) = rehearsal::idle(cluster, namespace).await.unwrap();
    let file = cluster.dir().join(format!("{name}.yaml"));
    std::fs::write(&file, plan).unwrap();
    let quiet = Some(Window::new(from, until).unwrap());
    let report = judge_files(cluster.audit_log(), &file, &Options { quiet, ..Options::default() }).unwrap();
    eprintln!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.quiet.is_some(), "I8 was judged");
    report
}
