//! What people and scripts read.

use std::time::Duration;

use crate::plan::Plan;
use crate::simulate::report::{Report, text};
use crate::simulate::{Assumed, LoadError, load};

const ASSUMED: Assumed = Assumed { step: Duration::from_secs(300), isolation: Duration::from_secs(10) };

const COUNCIL: &str = "\
apiVersion: resurgam.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: council, namespace: recovery}
spec:
  serviceAccountName: recovery
  maxParallel: 2
  defaults:
    gates:
      beforeRestore: [{name: images, imageDigests: {approvedFrom: {configMap: {name: approved}}}}]
      beforeRelease: [{name: up, workloads: {}, stableFor: 1m}]
  services:
  - {name: backups, tier: 0}
  - {name: identity, tier: 1, together: domain-core, dependsOn: [backups]}
  - {name: dns, tier: 1, together: domain-core}
  - {name: databases, tier: 2, dependsOn: [identity]}
  - {name: childrens-social-care, tier: 3, dependsOn: [databases, dns]}
  - {name: housing-benefit, tier: 4, dependsOn: [databases]}
  - {name: libraries, tier: 6, dependsOn: [identity]}
";

fn report(yaml: &str) -> Report {
    let object = load(yaml).unwrap().remove(0);
    Report::of(&Plan::from_object(&object), ASSUMED).unwrap()
}

fn shown(yaml: &str, width: usize) -> String {
    let text = text(&report(yaml), width);
    anstream::adapter::strip_str(&text).to_string()
}

fn with(yaml: &str, from: &str, to: &str) -> String {
    assert!(yaml.contains(from), "{from}");
    yaml.replace(from, to)
}

#[test]
fn a_plan_is_shown_for_people() {
    insta::assert_snapshot!(shown(COUNCIL, 100));
}

#[test]
fn a_narrow_terminal_gets_narrow_lines() {
    let text = shown(COUNCIL, 64);
    for line in text.lines() {
        assert!(line.chars().count() <= 64, "{line}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn problems_are_shown_first_and_the_rest_is_simulated() {
    let broken =
        with(COUNCIL, "{name: backups, tier: 0}", "{name: backups, tier: 0, dependsOn: [housing-benefit]}");
    let broken = with(
        &broken,
        "tier: 6, dependsOn: [identity]}\n",
        "tier: 6}\n  - {name: web-forms, dependsOn: [librairies]}\n  - {name: waste, namespaces: [kube-system]}\n",
    );
    insta::assert_snapshot!(shown(&broken, 100));
}

#[test]
fn scripts_get_the_same_as_json() {
    let json = serde_json::to_string_pretty(&report(COUNCIL)).unwrap();
    insta::assert_snapshot!(json);
}

#[test]
fn without_limits_a_plan_takes_as_long_as_its_critical_path() {
    let report = report(&with(COUNCIL, "maxParallel: 2", "maxParallel: 50"));
    assert!((report.makespan_seconds - report.critical_path.seconds).abs() < 0.001);
}

#[test]
fn a_suspended_plan_is_played_and_says_so() {
    let suspended = shown(&with(COUNCIL, "maxParallel: 2", "suspend: true"), 100);
    assert!(suspended.contains("Suspended: played as if it were not."));
    assert!(suspended.contains("as planned"));
}

#[test]
fn invalid_plans_are_rejected_with_line_or_name() {
    for (text, says) in [
        (with(COUNCIL, "tier: 3,", "teir: 3,"), vec!["unknown field `teir`", "line 16"]),
        (with(COUNCIL, "  defaults:", "  defualts:"), vec!["unknown field `defualts`", "line 7"]),
        (format!("---\nkind: ConfigMap\n---\n{COUNCIL}extra: 1\n"), vec!["unknown field `extra`", "line 22"]),
        (with(COUNCIL, "stableFor: 1m", "stableFor: 1 minute"), vec!["'1 minute' is not a duration"]),
        (with(COUNCIL, "metadata: {name: council,", "metadata: {"), vec!["without metadata.name"]),
        (with(COUNCIL, "v1alpha1", "v1"), vec!["resurgam.dev/v1'", "only resurgam.dev/v1alpha1"]),
        (
            "kind: ConfigMap\n---\nkind: Secret\n".to_owned(),
            vec!["no RecoveryPlan in it, only ConfigMap, Secret"],
        ),
        (String::new(), vec!["no RecoveryPlan in it"]),
        ("spec: [".to_owned(), vec!["line"]),
    ] {
        let error: LoadError = load(&text).unwrap_err();
        for phrase in says {
            assert!(error.to_string().contains(phrase), "{phrase}: {error}");
        }
    }
}

#[test]
fn all_plans_of_a_file_are_read_and_other_kinds_passed_over() {
    let text = format!(
        "---\nkind: Namespace\nwhatever: [1]\n---\n{COUNCIL}---\n{}",
        with(COUNCIL, "name: council", "name: second")
    );
    let names: Vec<_> = load(&text).unwrap().into_iter().filter_map(|p| p.metadata.name).collect();
    assert_eq!(names, ["council", "second"]);
}

#[test]
fn people_who_have_to_approve_do_not_stop_a_simulation() {
    let approval = "approval: {parties: [{name: rbkc, group: rbkc-leads}]}";
    let manual = "restore: [{name: link, manual: {instructions: plug it in}}]";
    let service = format!(
        "{{name: libraries, tier: 6, dependsOn: [identity], {manual}, gates: {{beforeRelease: [{{name: people, {approval}}}]}}}}"
    );
    let report = report(&with(COUNCIL, "{name: libraries, tier: 6, dependsOn: [identity]}", &service));
    let text = text(&report, 100);
    assert!(text.contains("libraries") && !text.contains("never"), "{text}");
}
