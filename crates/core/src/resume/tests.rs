use super::*;

const NOW: &str = "2025-11-24T10:30:00Z";
const SEAL: &str = "seal-1";

fn cronjob(name: &str, last: &str, suspended: bool, record: Option<(&str, &str)>) -> CronJob {
    let mut object: CronJob = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "library", "uid": "u1", "resourceVersion": "7", "creationTimestamp": "2025-01-01T00:00:00Z"},
        "spec": {"schedule": "0 2 * * *", "suspend": suspended, "jobTemplate": {}},
        "status": {"lastScheduleTime": last},
    }))
    .unwrap();
    object.metadata.annotations = record.map(|(was, seal)| {
        [(RECORDED_ANNOTATION.to_owned(), was.to_owned()), (SEAL_ANNOTATION.to_owned(), seal.to_owned())]
            .into()
    });
    object
}

const MISSED: &str = "2025-11-20T02:00:00Z";
const CURRENT: &str = "2025-11-24T02:00:00Z";

fn wanted(name: &str, missed_run: MissedRun) -> Resume {
    Resume { kind: ResumeKind::CronJob, namespace: "library".into(), name: name.into(), missed_run }
}

fn judged(named: &[Resume], cronjobs: Vec<CronJob>, jobs: Vec<Job>) -> Vec<ResumeObservation> {
    let seals = [("library".to_owned(), Seal { uid: SEAL.to_owned(), ..Seal::default() })].into();
    judge(named, &found(cronjobs, jobs), &seals, NOW.parse().unwrap())
}

#[test]
fn only_jobs_this_seal_suspended_are_due_and_missed_runs_held() {
    use MissedRun::{Fire, Hold};
    use ResumeState::{Due, Held, Resumed};
    let ours = Some(("false", SEAL));
    for (last, suspended, record, missed_run, expected) in [
        (CURRENT, true, ours, Hold, Due),
        (MISSED, true, ours, Hold, Held),
        (MISSED, true, ours, Fire, Due),
        (CURRENT, true, Some(("true", SEAL)), Fire, Held),
        (CURRENT, true, Some(("false", "seal-0")), Fire, Held),
        (CURRENT, true, Some(("perhaps", SEAL)), Fire, Held),
        (CURRENT, true, None, Fire, Held),
        (MISSED, false, ours, Hold, Resumed),
    ] {
        let all = judged(
            &[wanted("nightly", missed_run)],
            vec![cronjob("nightly", last, suspended, record)],
            vec![],
        );
        assert_eq!(all[0].status.state, expected, "{last} {suspended} {record:?} {missed_run:?}");
    }
    assert_eq!(judged(&[wanted("nightly", Fire)], vec![], vec![])[0].status.state, Held, "not there");
    let unknown = judge(
        &[wanted("nightly", Fire)],
        &found(vec![cronjob("nightly", CURRENT, true, ours)], vec![]),
        &BTreeMap::new(),
        NOW.parse().unwrap(),
    );
    assert_eq!(unknown[0].status.state, Held, "nobody knows the seal");
}

#[test]
fn entry_names_the_forecast_and_the_command_to_resume() {
    let ours = Some(("false", SEAL));
    let named = [wanted("payroll", MissedRun::Hold)];
    let all = judged(
        &named,
        vec![cronjob("payroll", MISSED, true, ours), cronjob("other", CURRENT, true, ours)],
        vec![],
    );
    let payroll = &all[0].status;
    assert_eq!(payroll.fires, "would start at once: missed 2025-11-24 02:00 UTC");
    assert!(
        payroll
            .message
            .contains(r#"kubectl -n library patch cronjob payroll -p '{"spec":{"suspend":false}}'"#),
        "{}",
        payroll.message
    );
    // Whoever is not named stays suspended, and is listed.
    let other = &all[1];
    assert_eq!((other.status.name.as_str(), other.status.state), ("other", ResumeState::Suspended));
    assert_eq!(other.status.fires, "next at 2025-11-25 02:00 UTC");
    assert_eq!(other.changes_at, Some("2025-11-25T02:00:00Z".parse().unwrap()));
    let mut odd = cronjob("payroll", MISSED, true, ours);
    odd.spec.as_mut().unwrap().schedule = "every night".into();
    let odd = &judged(&[wanted("payroll", MissedRun::Fire)], vec![odd], vec![])[0].status;
    assert_eq!(odd.state, ResumeState::Held, "what cannot be read is not resumed");
    assert!(odd.message.contains("its schedule 'every night' cannot be read"), "{}", odd.message);
}

#[test]
fn running_objects_are_reported_as_resumed() {
    let ours = Some(("false", SEAL));
    for (policy, expected) in [
        ("Allow", "would start at once: missed"),
        ("Forbid", "would start as soon as its active Job ends: missed"),
        ("Replace", "would start at once, in place of its active Job: missed"),
    ] {
        let mut object = cronjob("nightly", MISSED, true, ours);
        object.spec.as_mut().unwrap().concurrency_policy = Some(policy.into());
        object.status.as_mut().unwrap().active = Some(vec![Default::default()]);
        let all = judged(&[wanted("nightly", MissedRun::Fire)], vec![object], vec![]);
        assert!(all[0].status.fires.starts_with(expected), "{}", all[0].status.fires);
    }
}

#[test]
fn a_job_starts_at_once_and_one_that_has_ended_is_none() {
    let job = |name: &str, ended: bool| -> Job {
        let conditions = if ended { json!([{"type": "Complete", "status": "True"}]) } else { json!([]) };
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "library", "annotations": {RECORDED_ANNOTATION: "false", SEAL_ANNOTATION: SEAL}},
            "spec": {"suspend": true, "template": {}}, "status": {"conditions": conditions},
        }))
        .unwrap()
    };
    let named = [Resume { kind: ResumeKind::Job, ..wanted("import", MissedRun::Hold) }];
    let all = judged(&named, vec![], vec![job("import", false), job("done", true)]);
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].status.state, all[0].status.fires.as_str()), (ResumeState::Due, "starts at once"));
}

#[test]
fn resuming_takes_the_record_away_and_only_from_what_was_read() {
    let patch =
        SuspendedObject::CronJob(Box::new(cronjob("nightly", CURRENT, true, Some(("false", SEAL))))).resume();
    assert_eq!(
        patch,
        json!({
            "metadata": {"uid": "u1", "resourceVersion": "7", "annotations": {"resurgam.dev/replicas": null, "resurgam.dev/seal": null}},
            "spec": {"suspend": false},
        })
    );
}

#[test]
fn any_cron_job_gets_a_forecast_or_an_error() {
    let sound = json!([
        {
            "metadata": {"name": "nightly", "namespace": "library", "uid": "u1", "creationTimestamp": "2025-01-01T00:00:00Z",
                "annotations": {RECORDED_ANNOTATION: "false", SEAL_ANNOTATION: SEAL}},
            "spec": {"schedule": "0 2 * * *", "timeZone": "Europe/London", "startingDeadlineSeconds": 200, "suspend": true, "jobTemplate": {}},
            "status": {"lastScheduleTime": MISSED},
        },
        {
            "metadata": {"name": "once", "namespace": "library", "annotations": {RECORDED_ANNOTATION: "false", SEAL_ANNOTATION: SEAL}},
            "spec": {"suspend": true, "template": {}},
        },
    ]);
    let readable = fuzz_input::Readable::default();
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
        let spoiled = fuzz_input::spoiled(&sound, bytes);
        let Some((cronjob, job)) = readable.read::<(CronJob, Job)>(spoiled) else { return };
        let _ = cron::forecast(&cronjob, NOW.parse().unwrap());
        let told = judged(&[wanted("nightly", MissedRun::Fire)], vec![cronjob], vec![job]);
        assert!(told.len() <= LIMIT);
    });
}
