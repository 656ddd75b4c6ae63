use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn context() -> StepContext {
    StepContext {
        plan_uid: "u".to_owned(),
        service: "db".to_owned(),
        step: "import".to_owned(),
        attempt: 2,
        claimed_at: Some("2026-11-30T10:00:00Z".parse().unwrap()),
        namespaces: vec!["db".to_owned()],
        ..StepContext::default()
    }
}

fn spec(namespace: Option<&str>) -> JobStepSpec {
    let spec = json!({"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    let namespace = namespace.map(|name| crate::api::DnsLabel(name.to_owned()));
    JobStepSpec { namespace, spec: spec.as_object().unwrap().clone() }
}

#[test]
fn name_is_derived_from_plan_service_attempt_and_step() {
    let names = |change: fn(&mut StepContext)| {
        let mut other = context();
        change(&mut other);
        name(&other)
    };
    let own = name(&context());
    assert!(own.starts_with("step-import-2-"), "{own}");
    assert_eq!(own, names(|_| {}), "starting twice creates one Job");
    let others = [
        names(|c| c.plan_uid = "v".to_owned()),
        names(|c| c.service = "web".to_owned()),
        names(|c| c.attempt = 3),
        names(|c| c.claimed_at = Some("2026-11-30T10:00:01Z".parse().unwrap())),
        names(|c| c.step = "export".to_owned()),
        names(|c| c.retries = 1),
    ];
    assert!(!others.contains(&own), "{others:?}");
    assert!(names(|c| c.step = "x".repeat(63)).len() <= 58, "a pod's suffix has room");
}

#[test]
fn job_outside_the_services_namespaces_is_a_plan_problem() {
    let namespaces = ["a".to_owned(), "b".to_owned()];
    assert_eq!(problem(&spec(Some("b")), &namespaces), None);
    assert_eq!(problem(&spec(None), &namespaces[..1]), None);
    let message = problem(&spec(None), &namespaces).unwrap();
    assert_eq!(message, "must name the namespace of its Job: one of a, b");
    let message = problem(&spec(Some("c")), &namespaces).unwrap();
    assert_eq!(message, "names namespace c, which is none of the service's");
    let mut malformed = spec(None);
    malformed.spec.insert("backoffLimit".to_owned(), json!("many"));
    let message = problem(&malformed, &namespaces[..1]).unwrap();
    assert!(message.starts_with("is no Job: spec: "), "{message}");
    let said = |at: &str, value: serde_json::Value| {
        let mut spec = spec(None);
        let mut whole = serde_json::Value::from(spec.spec.clone());
        *whole.pointer_mut(at).unwrap() = value;
        spec.spec = whole.as_object().unwrap().clone();
        problem(&spec, &namespaces[..1])
    };
    let with =
        |restart: &str| json!({"restartPolicy": restart, "containers": [{"name": "c", "imagee": "x"}]});
    for (at, value, words) in [
        (
            "/template/spec",
            with("Never"),
            "is no Job: spec.template.spec.containers[0].imagee is no field of batch/v1",
        ),
        (
            "/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy has to be Never or OnFailure",
        ),
        (
            "/template/spec",
            json!({"restartPolcy": "Never", "containers": []}),
            "spec.template.spec.restartPolcy is no field",
        ),
    ] {
        let message = said(at, value).unwrap();
        assert!(message.contains(words), "{message}");
    }
    let volumes = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "env": [], "resources": {"limits": {"cpu": 1}}}],
        "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {}, "enableServiceLinks": false});
    assert_eq!(said("/template/spec", volumes), None, "what is empty or false is no unknown field");
}

#[test]
fn job_counts_only_if_this_attempt_created_it() {
    let context = context();
    let created = |status: serde_json::Value| {
        let mut job = wanted(&spec(None), &context).unwrap();
        job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            "2026-11-30T10:00:00Z".parse().unwrap(),
        ));
        job.status = serde_json::from_value(status).unwrap();
        job
    };
    let condition =
        |type_: &str| json!({"conditions": [{"type": type_, "status": "True", "message": "as it said"}]});
    let name = name(&context);
    for (status, expected) in [
        (json!(null), StepProgress::Running(format!("Job {name}: 0 of its pods run"))),
        (
            json!({"active": 1, "failed": 2}),
            StepProgress::Running(format!("Job {name}: 1 of its pods run, 2 failed so far")),
        ),
        (condition("SuccessCriteriaMet"), StepProgress::Running(format!("Job {name}: 0 of its pods run"))),
        (condition("Complete"), StepProgress::Succeeded),
        (condition("Failed"), StepProgress::Failed(format!("Job {name} failed: as it said"))),
    ] {
        assert_eq!(judge(Some(&created(status.clone())), &context), expected, "{status}");
    }
    let failed = |job: Option<&Job>| matches!(judge(job, &context), StepProgress::Failed(_));
    assert!(failed(None), "it was deleted");
    let complete = created(condition("Complete"));
    let unclaimed = StepContext { claimed_at: None, ..context.clone() };
    let of_nobody = wanted(&spec(None), &unclaimed).unwrap();
    let progress = judge(Some(&of_nobody), &unclaimed);
    assert!(matches!(progress, StepProgress::Failed(_)), "no claim is on record");
    let mut other = complete;
    other.metadata.annotations = None;
    assert!(failed(Some(&other)), "it was created for something else");
}

/// A pod of which `main` ended so, and before that as `last` says.
fn pod(name: &str, code: Option<i32>, last: Option<i32>, at: &str) -> Pod {
    let terminated = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error", "finishedAt": at, "message": "password: canary"}});
    let state = code.map_or(json!({"running": {}}), terminated);
    let status = json!({"name": "main", "image": "web", "imageID": "", "ready": false, "restartCount": 0,
        "state": state, "lastState": last.map(terminated)});
    let pod = json!({"metadata": {"name": name}, "status": {"containerStatuses": [status]}});
    serde_json::from_value(pod).unwrap()
}

fn log(pod: &str, is_previous: bool, kept: KeptLog) -> ContainerLog {
    ContainerLog { pod: pod.to_owned(), container: "main".to_owned(), is_previous, kept }
}

#[test]
fn ended_job_names_exit_code_and_where_its_log_is() {
    let kept = |pod: &str, object: &str| log(pod, false, KeptLog::Kept(object.to_owned()));
    let (early, late) = ("2026-11-30T10:00:00Z", "2026-11-30T10:05:00Z");
    let lost = || KeptLog::NotKept("the store is full".to_owned());
    let nothing = || KeptLog::Nothing("it has logged nothing".to_owned());
    let two = || vec![pod("a", Some(1), None, early), pod("b", Some(3), None, late)];
    let one = || vec![pod("a", Some(3), None, early)];
    for (pods, logs, expected) in [
        (
            Ok(two()),
            Ok(vec![kept("a", "db/1.log.age"), kept("b", "db/2.log.age")]),
            "; container main of Pod b ended with exit code 3 (Error); kept as evidence, its log: db/2.log.age, log of a/main: db/1.log.age",
        ),
        (
            Ok(one()),
            Ok(vec![log("a", false, lost())]),
            "; container main of Pod a ended with exit code 3 (Error); no log is kept: log of main: the store is full",
        ),
        (
            Ok(one()),
            Ok(vec![kept("a", "db/1.log.age"), log("a", true, lost())]),
            "; container main of Pod a ended with exit code 3 (Error); kept as evidence, its log: db/1.log.age; not kept, previous log of main: the store is full",
        ),
        (
            // It was started again after it failed, and stopped then.
            Ok(vec![pod("a", None, Some(3), early)]),
            Ok(vec![kept("a", "db/1.log.age"), log("a", true, KeptLog::Kept("db/2.log.age".to_owned()))]),
            "; container main of Pod a ended with exit code 3 (Error); kept as evidence, its previous log: db/2.log.age, log of a/main: db/1.log.age",
        ),
        (
            Ok(one()),
            Err("the operator has no --evidence-recipient".to_owned()),
            "; container main of Pod a ended with exit code 3 (Error); no log is kept: the operator has no --evidence-recipient",
        ),
        (
            Ok(one()),
            Ok(vec![log("a", false, nothing())]),
            "; container main of Pod a ended with exit code 3 (Error); no log is kept: its containers have logged nothing",
        ),
        (Ok(Vec::new()), Ok(Vec::new()), "; no log is kept: its pods are gone"),
        (Err("list pods: no right".to_owned()), Ok(Vec::new()), "; no log is kept: list pods: no right"),
    ] {
        let progress = with_logs(StepProgress::Failed("Job x failed".to_owned()), &pods, &logs);
        assert_eq!(progress, StepProgress::Failed(format!("Job x failed{expected}")));
    }
    let pods = Ok(vec![pod("a", Some(0), None, early)]);
    let progress = with_logs(StepProgress::Succeeded, &pods, &Ok(vec![kept("a", "db/1.log.age")]));
    let expected = "kept as evidence, log of a/main: db/1.log.age";
    assert_eq!(progress, StepProgress::SucceededWith(expected.to_owned()));
    let unkept = with_logs(StepProgress::Succeeded, &pods, &Err("there is no evidence store".to_owned()));
    let expected = "no log is kept: there is no evidence store";
    assert_eq!(unkept, StepProgress::SucceededWith(expected.to_owned()), "it succeeds all the same");
}

#[test]
fn only_a_job_of_this_attempt_that_is_over_has_logs_to_keep() {
    let context = context();
    let created = |type_: &str| {
        let mut job = wanted(&spec(None), &context).unwrap();
        job.status =
            serde_json::from_value(json!({"conditions": [{"type": type_, "status": "True"}]})).unwrap();
        job
    };
    for (type_, is_over) in
        [("Failed", true), ("Complete", true), ("FailureTarget", false), ("SuccessCriteriaMet", false)]
    {
        assert_eq!(ended(Some(&created(type_)), &context).is_some(), is_over, "{type_}");
    }
    let mut of_others = created("Failed");
    of_others.metadata.annotations = None;
    assert_eq!(ended(Some(&of_others), &context), None);
    assert_eq!(ended(None, &context), None);
}

#[test]
fn job_of_an_earlier_start_that_still_runs_is_found() {
    let job = |name: &str, spec: serde_json::Value, status: serde_json::Value| -> Job {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap()
    };
    let failed = json!([{"type": "Failed", "status": "True"}]);
    let template = json!({"template": {}});
    let suspended = json!({"template": {}, "suspend": true});
    let own = name(&context());
    for (name, spec, status, runs) in [
        ("earlier", &template, json!({"active": 1}), true),
        ("earlier", &template, json!({}), true),
        ("earlier", &template, json!({"conditions": failed}), false),
        ("earlier", &template, json!({"conditions": failed, "terminating": 1}), true),
        ("earlier", &suspended, json!({}), false),
        ("earlier", &suspended, json!({"terminating": 1}), true),
        (own.as_str(), &template, json!({"active": 1}), false),
    ] {
        let jobs = [job(name, spec.clone(), status.clone())];
        assert_eq!(still_running(&jobs, &context()).is_some(), runs, "{name} {spec} {status}");
    }
}

#[test]
fn a_step_and_its_undo_look_for_each_others_jobs() {
    let undo = StepContext { step: "import-undo".to_owned(), ..context() };
    assert_eq!(selector(&context()), "resurgam.dev/step in (import,import-undo)");
    assert_eq!(selector(&undo), selector(&context()));
}
