//! Every run here ends with the judge, over the whole of it and over a while in which there is nothing to do.

use control_plane::{ControlPlane, Identity};
use judge::{Options, Report, Window, judge_files};
use rehearsal::kind;
use serde_json::{Value, json};

/// Judges the plan by all that has been logged so far. The operator is running.
pub async fn judged(cluster: &ControlPlane, name: &str, plan: &str) -> Report {
    let (from, until) = rehearsal::idle(cluster).await.unwrap();
    // Whoever looks into a crash reads what is there: the operator itself need not, after its last write.
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let spec: Value = serde_yaml::from_str(plan).unwrap();
    for service in spec["spec"]["services"].as_array().unwrap() {
        let own = [service["name"].clone()];
        let namespaces = service["namespaces"].as_array().map_or(&own[..], Vec::as_slice);
        for namespace in namespaces {
            kind(&admin, "v1", "Namespace", None).get(namespace.as_str().unwrap()).await.unwrap();
        }
    }
    let file = cluster.dir().join(format!("{name}.yaml"));
    std::fs::write(&file, plan).unwrap();
    let quiet = Some(Window::new(from, until).unwrap());
    let report = judge_files(cluster.audit_log(), &file, &Options { quiet, ..Options::default() }).unwrap();
    eprintln!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.quiet.is_some(), "I8 was judged");
    // Had the operator died in the midst of each of its labels, the judge would tell the same of what was loosened.
    let lost = unanswered(&std::fs::read_to_string(cluster.audit_log()).unwrap());
    let again = judge::judge(lost.as_bytes(), plan, &Options::default()).unwrap();
    assert!(again.is_clean(), "{again}");
    assert!(again.unanswered.len() > report.unanswered.len());
    assert_eq!((&again.loosened, again.asks), (&report.loosened, report.asks), "{again}");
    report
}

/// The same log, had no label of the operator's been answered.
fn unanswered(log: &str) -> String {
    let lost = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let label = event["verb"] == "patch" && event["objectRef"]["resource"] == "namespaces";
        if label
            && event["responseStatus"]["code"] == 200
            && event["user"]["username"] == Options::default().operator
        {
            event["responseStatus"] = json!({"code": 504, "message": "context canceled"});
            event["responseObject"] = json!({"kind": "Status", "code": 504});
        }
        format!("{event}\n")
    };
    log.lines().map(lost).collect()
}
