//! An Application of Argo CD: one sync to the approved revision, told from all others by the token in its `info`.
//!
//! That the sync succeeded is not that the service is healthy: Argo CD has to compare and judge once more after it.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::super::StepProblem;
use super::{Start, named, text};
use crate::api::step::ArgoCdResume;
use crate::engine::StepProgress;

/// Name of the entry of `operation.info` that holds the token.
const INFO: &str = "resurgam";
/// Annotation by which people stop Argo CD from reconciling an Application.
const SKIP_RECONCILE: &str = "argocd.argoproj.io/skip-reconcile";
/// Part of the message of an operation that Argo CD does not carry out now: its phase is `Running` all the same.
const WINDOW: &str = "blocked by sync window";

/// Returns kind, namespace and name of the Application, for messages.
#[must_use]
pub fn title(spec: &ArgoCdResume) -> String {
    format!("Application {}/{}", spec.namespace.0, spec.name)
}

/// Returns whether an operation is the one with this token.
fn is_ours(operation: &Value, token: &str) -> bool {
    let info = operation["info"].as_array();
    info.into_iter().flatten().any(|entry| entry["name"] == INFO && entry["value"] == token)
}

/// Returns how to start.
///
/// # Errors
/// The Application cannot be synced to a revision: it has several sources, or syncs by itself to whatever revision is there.
pub fn start(spec: &ArgoCdResume, object: &Value, token: &str) -> Result<Start, StepProblem> {
    let title = title(spec);
    let operation = &object["operation"];
    if is_ours(operation, token) || is_ours(&object["status"]["operationState"]["operation"], token) {
        return Ok(Start::Begun);
    }
    if object["spec"]["sources"].as_array().is_some_and(|sources| !sources.is_empty()) {
        let message = format!("{title} has several sources, which one revision does not name");
        return Err(StepProblem::Unusable(message));
    }
    let automated = &object["spec"]["syncPolicy"]["automated"];
    if !automated.is_null() && automated["enabled"] != false {
        return Err(StepProblem::Unusable(format!(
            "{title} syncs by itself, which would undo a sync to the approved revision: set spec.syncPolicy.automated.enabled to false \
             until the service is recovered"
        )));
    }
    if !operation.is_null() {
        let by = named(text(operation, "/initiatedBy/username"), "Argo CD itself");
        return Ok(Start::Waits(format!("{title} is at another operation, which {by} began")));
    }
    Ok(Start::Write(json!({
        "metadata": {
            "resourceVersion": object["metadata"]["resourceVersion"],
            "annotations": {SKIP_RECONCILE: null},
        },
        "operation": {
            "initiatedBy": {"username": INFO},
            "info": [{"name": INFO, "value": token}],
            "sync": {"revision": spec.revision, "prune": false, "syncStrategy": {"hook": {}}},
        },
    })))
}

/// Returns the progress. `object`: as it was read, if it exists.
#[must_use]
pub fn judge(spec: &ArgoCdResume, object: Option<&Value>, token: &str) -> StepProgress {
    let title = title(spec);
    let running = |message: String| StepProgress::Running(format!("{title} {message}"));
    let failed = |message: String| StepProgress::Failed(format!("{title} {message}"));
    let Some(object) = object else { return failed("does not exist".to_owned()) };
    if object["metadata"]["deletionTimestamp"].is_string() {
        return failed("is being deleted".to_owned());
    }
    let state = &object["status"]["operationState"];
    if !is_ours(&state["operation"], token) {
        if is_ours(&object["operation"], token) {
            return running("has not begun the sync yet".to_owned());
        }
        return failed(format!(
            "has another operation than {token}, so that nothing proves what became of it"
        ));
    }
    let message = named(text(state, "/message"), "no message");
    match text(state, "/phase") {
        "Succeeded" => {}
        "Failed" | "Error" => return failed(format!("failed to sync: {message}")),
        _ if message.contains(WINDOW) => {
            return running(format!("waits for a sync window, and nothing of it is done before: {message}"));
        }
        phase => return running(format!("syncs ({}): {message}", named(phase, "no phase"))),
    }
    let another = |what: &str, revision: &str| {
        failed(format!(
            "{what} revision {}, and the plan approves {}",
            named(revision, "none"),
            spec.revision
        ))
    };
    let synced = text(state, "/syncResult/revision");
    if synced != spec.revision {
        return another("has synced", synced);
    }
    // What was compared before the sync ended says nothing of its result.
    let time = |value: &str| value.parse::<Timestamp>().ok();
    let (finished, compared) = (time(text(state, "/finishedAt")), time(text(object, "/status/reconciledAt")));
    if finished.is_none() || compared.is_none() || compared <= finished {
        return running("has synced, and has not been compared since".to_owned());
    }
    let now = text(object, "/status/sync/revision");
    if now != spec.revision {
        return another("is now compared with", now);
    }
    let (sync, health) = (text(object, "/status/sync/status"), text(object, "/status/health/status"));
    if (sync, health) != ("Synced", "Healthy") {
        let (sync, health) = (named(sync, "not compared"), named(health, "of unknown health"));
        return running(format!("has synced, and is {sync} and {health}"));
    }
    StepProgress::Succeeded
}

/// Returns the step's message once the Application is synced and healthy.
#[must_use]
pub fn done(spec: &ArgoCdResume) -> String {
    format!("{} synced revision {}, and is healthy; it does not sync by itself", title(spec), spec.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DnsLabel;

    const APPROVED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    /// A change of what Argo CD says, and words of what follows.
    type Case = (&'static str, fn(&mut Value));

    const TOKEN: &str = "resurgam-1-0";

    fn spec() -> ArgoCdResume {
        ArgoCdResume {
            namespace: DnsLabel("argocd".to_owned()),
            name: "shop".to_owned(),
            revision: APPROVED.to_owned(),
        }
    }

    fn idle() -> Value {
        json!({"metadata": {"resourceVersion": "7"}, "spec": {"source": {"repoURL": "https://git.example/shop"}}})
    }

    /// As Argo CD leaves it after the sync.
    fn synced() -> Value {
        json!({
            "metadata": {},
            "status": {
                "operationState": {
                    "operation": {"info": [{"name": "resurgam", "value": TOKEN}]}, "phase": "Succeeded",
                    "message": "successfully synced", "syncResult": {"revision": APPROVED}, "finishedAt": "2026-11-30T10:00:00Z",
                },
                "reconciledAt": "2026-11-30T10:00:01Z",
                "sync": {"status": "Synced", "revision": APPROVED}, "health": {"status": "Healthy"},
            },
        })
    }

    #[test]
    fn sync_is_requested_once_and_only_where_no_other_is() {
        let Ok(Start::Write(patch)) = start(&spec(), &idle(), TOKEN) else { panic!() };
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["operation"]["sync"]["revision"], APPROVED);
        assert_eq!(patch["operation"]["sync"]["prune"], false);
        let mut begun = idle();
        begun["operation"] = patch["operation"].clone();
        assert_eq!(start(&spec(), &begun, TOKEN).unwrap(), Start::Begun);
        let Ok(Start::Waits(message)) = start(&spec(), &begun, "resurgam-2-0") else { panic!() };
        assert_eq!(message, "Application argocd/shop is at another operation, which resurgam began");
        assert_eq!(start(&spec(), &synced(), TOKEN).unwrap(), Start::Begun, "it has ended already");
    }

    #[test]
    fn application_that_one_revision_does_not_fix_is_refused() {
        let refused = |change: fn(&mut Value)| {
            let mut object = idle();
            change(&mut object);
            start(&spec(), &object, TOKEN).map_err(|error| error.to_string())
        };
        let error = refused(|o| o["spec"]["syncPolicy"] = json!({"automated": {}})).unwrap_err();
        assert!(error.contains("syncs by itself"), "{error}");
        let off = refused(|o| o["spec"]["syncPolicy"] = json!({"automated": {"enabled": false}}));
        assert!(matches!(off, Ok(Start::Write(_))));
        let error = refused(|o| o["spec"]["sources"] = json!([{}, {}])).unwrap_err();
        assert!(error.contains("several sources"), "{error}");
    }

    #[test]
    fn succeeded_sync_is_not_yet_a_healthy_service() {
        let of = |change: fn(&mut Value)| {
            let mut object = synced();
            change(&mut object);
            judge(&spec(), Some(&object), TOKEN)
        };
        assert_eq!(of(|_| {}), StepProgress::Succeeded);
        let running: [Case; 6] = [
            ("has not been compared since", |o| o["status"]["reconciledAt"] = json!("2026-11-30T10:00:00Z")),
            ("has not been compared since", |o| o["status"]["reconciledAt"] = Value::Null),
            ("is OutOfSync and Healthy", |o| o["status"]["sync"]["status"] = json!("OutOfSync")),
            ("is Synced and Degraded", |o| o["status"]["health"]["status"] = json!("Degraded")),
            ("syncs (Running): successfully synced", |o| {
                o["status"]["operationState"]["phase"] = json!("Running");
            }),
            ("has not begun the sync yet", |o| {
                o["operation"] = o["status"]["operationState"]["operation"].clone();
                o["status"]["operationState"] = Value::Null;
            }),
        ];
        for (words, change) in running {
            let StepProgress::Running(message) = of(change) else { panic!("{words}: {:?}", of(change)) };
            assert!(message.contains(words), "{message}");
        }
        let failed: [Case; 5] = [
            ("failed to sync: one or more objects failed", |o| {
                o["status"]["operationState"]["phase"] = json!("Failed");
                o["status"]["operationState"]["message"] = json!("one or more objects failed");
            }),
            (OTHER, |o| o["status"]["operationState"]["syncResult"]["revision"] = json!(OTHER)),
            (OTHER, |o| o["status"]["sync"]["revision"] = json!(OTHER)),
            ("has another operation", |o| {
                o["status"]["operationState"]["operation"]["info"] = json!([]);
            }),
            ("being deleted", |o| o["metadata"]["deletionTimestamp"] = json!("2026-11-30T10:00:00Z")),
        ];
        for (words, change) in failed {
            let StepProgress::Failed(message) = of(change) else { panic!("{words}: {:?}", of(change)) };
            assert!(message.contains(words), "{message}");
        }
        assert!(matches!(judge(&spec(), None, TOKEN), StepProgress::Failed(_)));
    }

    #[test]
    fn sync_window_is_told_from_progress() {
        let mut object = synced();
        object["status"]["operationState"]["phase"] = json!("Running");
        object["status"]["operationState"]["message"] = json!("Sync operation blocked by sync window");
        let StepProgress::Running(message) = judge(&spec(), Some(&object), TOKEN) else { panic!() };
        assert_eq!(
            message,
            "Application argocd/shop waits for a sync window, and nothing of it is done before: Sync operation blocked by sync window"
        );
    }
}
