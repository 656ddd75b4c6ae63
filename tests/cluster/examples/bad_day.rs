//! The bad day, as `cargo xtask demo --bad-day` plays it.

use std::path::Path;

use control_plane::{ControlPlane, Options};
use rehearsal::Line;
use rehearsal::bad_day::BadDay;

#[tokio::test(flavor = "multi_thread")]
async fn bad_day_ends_recovered_with_every_exception_explained() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let told = std::sync::Mutex::new(Vec::new());
    let tell = |line: Line| told.lock().unwrap().push(line);
    let day = BadDay { cluster: &cluster, binary: Path::new(env!("CARGO_BIN_EXE_resurgam")), tell: &tell };
    let (operator, plan) =
        day.play().await.unwrap_or_else(|error| panic!("{error:#}\n{:#?}", told.lock().unwrap()));
    drop(operator);
    let file = std::fs::File::open(cluster.audit_log()).unwrap();
    let report = judge::judge(std::io::BufReader::new(file), &plan, &judge::Options::default()).unwrap();
    assert!(report.is_clean(), "{report}");
    let quotes = told.into_inner().unwrap();
    let says =
        |words: &str| quotes.iter().any(|line| matches!(line, Line::Quote(_, what) if what.contains(words)));
    for words in ["isolated itself", "rejected by bo", "gate 'ledger' is gone", "started without statistics"]
    {
        assert!(says(words), "{words}: {quotes:#?}");
    }
    cluster.stop().await.unwrap();
}
