//! I8: an idle operator writes nothing, and reads no more than it declares.

use std::time::Duration;

use judge::{CannotJudge, Options, Report, Rule};
use serde_json::json;

use crate::maker::{ACCOUNT, LEAD, Maker, OPERATOR, PLAN, key, time};

/// Recovered, and idle for a minute: the lease every five seconds, gates every ten.
fn idle() -> Maker {
    let mut log = Maker::clean();
    for second in (20..80).step_by(5) {
        log.at(second * 1_000);
        log.event(
            "lease",
            OPERATOR,
            "patch",
            json!({"resource": "leases", "name": "resurgam", "namespace": "resurgam-system",
            "apiGroup": "coordination.k8s.io"}),
            (200, json!({"spec": {"leaseDurationSeconds": 15}})),
        );
        if second % 10 == 0 {
            log.look("gates", "web").look("gates", "db").look("gates", "dns");
        }
    }
    log.at(80_000);
    log
}

fn judged(log: &Maker, from: u64, until: u64) -> Result<Report, CannotJudge> {
    let quiet = format!("{}/{}", time(from), time(until)).parse().unwrap();
    log.judge_with(PLAN, &Options { quiet: Some(quiet), ..Options::default() })
}

fn messages(log: &Maker) -> String {
    let report = judged(log, 20_000, 80_000).unwrap();
    assert!(report.violations.iter().all(|v| v.rule == Rule::Quiet), "{report}");
    report.violations.iter().map(|v| format!("{}\n", v.message)).collect()
}

#[test]
fn an_idle_operator_is_quiet_and_the_report_says_for_how_long() {
    let report = judged(&idle(), 20_000, 80_000).unwrap();
    assert!(report.is_clean(), "{report}");
    let quiet = report.quiet.unwrap();
    assert_eq!((quiet.seconds, quiet.requests), (60.0, 12 + 6 * 4));
}

#[test]
fn every_write_in_the_quiet_window_is_reported() {
    let mut log = idle();
    log.at(40_000).status("again", "web", |_| {});
    log.at(41_000).event(
        "refused",
        ACCOUNT,
        "delete",
        json!({"resource": "pods", "namespace": "db", "name": "x"}),
        (403, json!({})),
    );
    // Others may do as they like, and what is only tried is no write.
    log.at(42_000)
        .status("lead's", "web", |_| {})
        .change("lead's", |event| event["user"]["username"] = json!(LEAD));
    log.at(43_000).event(
        "tried",
        OPERATOR,
        "create",
        json!({"resource": "pods", "namespace": "db"}),
        (403, json!({})),
    );
    log.change("tried", |event| event["requestURI"] = json!("/x?dryRun=All"));
    let report = judged(&log, 20_000, 80_000).unwrap();
    insta::assert_snapshot!("not_quiet", report);
    assert_eq!(report.violations.len(), 2, "{report}");
    let before = judged(&log, 20_000, 40_000).unwrap();
    assert!(before.is_clean(), "what comes after the window is not in it: {before}");
}

#[test]
fn reads_beyond_their_intervals_are_violations() {
    // Seven are declared: six intervals, and one that was just due.
    let mut log = idle();
    log.at(50_001).look("gates", "db");
    assert_eq!(messages(&log), "");
    log.at(50_002).look("gates", "db");
    assert_eq!(
        messages(&log),
        "8 times list pods/db as system:serviceaccount:recovery:recovery in a quiet window of 60 s, where 7 are declared\n"
    );
    let mut log = idle();
    log.at(50_000).read("own", OPERATOR, &key("db"));
    assert_eq!(messages(&log), "");
    log.at(50_001).read("own", OPERATOR, &key("db"));
    assert_eq!(
        messages(&log),
        "2 times get servicerecoveries/recovery/p.db as system:serviceaccount:resurgam-system:resurgam in a quiet window of 60 s, \
         where 1 are declared\n"
    );
}

#[test]
fn the_pages_of_one_list_are_one_read() {
    let mut log = idle();
    log.at(50_001).look("gates", "db").look("page", "db");
    log.change("page", |event| event["requestURI"] = json!("/x?limit=500&continue=abc"));
    assert_eq!(messages(&log), "");
    log.change("page", |event| event["requestURI"] = json!("/x?limit=500&continue="));
    assert!(messages(&log).starts_with("8 times list pods/db"));
}

#[test]
fn service_is_judged_by_its_stage_in_the_quiet_window() {
    let mut log = idle();
    // It is isolated anew, and asks nothing more, after the window.
    log.at(90_000).status("later", "db", |status| status["stage"] = json!("Isolated"));
    assert_eq!(messages(&log), "");
    log.change("db recovered", |event| event["responseObject"]["status"]["stage"] = json!("Isolated"));
    let report = judged(&log, 20_000, 80_000).unwrap();
    assert!(report.to_string().contains("6 times list pods/db"), "{report}");
}

#[test]
fn the_operator_may_declare_that_it_looks_oftener() {
    let mut log = idle();
    log.at(50_000).read("own", OPERATOR, &key("db")).read("own", OPERATOR, &key("db"));
    let quiet = format!("{}/{}", time(20_000), time(80_000)).parse().unwrap();
    let options = Options { quiet: Some(quiet), own_interval: Duration::from_secs(60), ..Options::default() };
    assert!(log.judge_with(PLAN, &options).unwrap().is_clean());
}

#[test]
fn reads_for_another_plan_are_left_to_it_and_its_writes_are_not() {
    let of_another = |event: &mut serde_json::Value| {
        event["impersonatedUser"] = json!({"username": "system:serviceaccount:elsewhere:recovery"});
    };
    let mut log = idle();
    log.at(50_000);
    for _ in 0..20 {
        log.list("theirs", ACCOUNT, "pods", "elsewhere");
    }
    log.change("theirs", of_another);
    assert_eq!(messages(&log), "");
    log.pod("theirs too", ACCOUNT, "elsewhere").change("theirs too", of_another);
    assert_eq!(messages(&log), "create pods/elsewhere/app-x (answered 201) in the quiet window\n");
}

#[test]
fn a_lease_or_a_watch_in_a_tight_loop_is_not_quiet() {
    let mut log = idle();
    log.at(60_000);
    for _ in 0..26 {
        log.read("lease", OPERATOR, "namespaces//lease").change("lease", |event| {
            event["objectRef"]["resource"] = json!("leases");
            event["objectRef"]["name"] = json!("resurgam");
        });
    }
    for _ in 0..8 {
        log.list("watch", OPERATOR, "pods", "").change("watch", |event| event["verb"] = json!("watch"));
    }
    let told = messages(&log);
    assert!(told.contains("26 times get leases"), "{told}");
    assert!(told.contains("8 times watch pods"), "{told}");
}

#[test]
fn a_window_in_which_the_operator_was_dead_proves_nothing() {
    let error = judged(&idle(), 100_000, 160_000).unwrap_err().to_string();
    assert!(error.ends_with("proves nothing: the operator renewed no lease in it"), "{error}");
    for text in ["", "x/y", "2026-11-23T20:00:10Z", "2026-11-23T20:00:10Z/2026-11-23T20:00:10Z"] {
        assert!(text.parse::<judge::Window>().is_err(), "{text}");
    }
}
