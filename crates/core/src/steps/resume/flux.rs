//! A Kustomization of Flux: it is resumed with a token of the attempt, and has succeeded by Flux's own evidence for that token.
//!
//! While it is suspended, its conditions stay as they were, so that none of them counts before Flux has handled the token. Flux writes
//! conditions and the rest of the status by two requests: each is compared with what the other one implies.

use serde_json::{Value, json};

use super::super::StepProblem;
use super::{Start, named, text};
use crate::api::step::FluxResume;
use crate::engine::StepProgress;

/// Annotation by which people and programs ask Flux to reconcile, and that names the request.
pub const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// Status of a snapshot in `status.history` that was applied, and whose health checks passed.
const RECONCILED: &str = "ReconciliationSucceeded";
/// Kinds of sources, with their plurals.
const SOURCES: [(&str, &str); 3] =
    [("GitRepository", "gitrepositories"), ("OCIRepository", "ocirepositories"), ("Bucket", "buckets")];

/// The source of a Kustomization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Kind.
    pub kind: &'static str,
    /// Plural of the kind.
    pub plural: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Source {
    /// Returns kind, namespace and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Returns the plurals of all kinds of sources.
#[must_use]
pub fn source_plurals() -> [&'static str; 3] {
    SOURCES.map(|(_, plural)| plural)
}

/// Returns kind, namespace and name of the Kustomization, for messages.
#[must_use]
pub fn title(spec: &FluxResume) -> String {
    format!("Kustomization {}/{}", spec.namespace.0, spec.name)
}

/// Returns the source that a Kustomization names.
///
/// # Errors
/// It names none, or one of a kind whose revision this version cannot read.
pub fn source(spec: &FluxResume, object: &Value) -> Result<Source, StepProblem> {
    let kind = text(object, "/spec/sourceRef/kind");
    let name = text(object, "/spec/sourceRef/name");
    let (kind, plural) = SOURCES.into_iter().find(|(of, _)| *of == kind).ok_or_else(|| {
        let kind = named(kind, "none");
        StepProblem::Unusable(format!(
            "{}: its source is of kind {kind}, whose revision is unknown",
            title(spec)
        ))
    })?;
    if name.is_empty() || name.contains(['/', '?', '#', '%']) || name == "." || name == ".." {
        return Err(StepProblem::Unusable(format!("{}: its source has no usable name", title(spec))));
    }
    let namespace = named(text(object, "/spec/sourceRef/namespace"), &spec.namespace.0);
    Ok(Source { kind, plural, namespace: namespace.to_owned(), name: name.to_owned() })
}

/// Returns whether a revision is the approved one. `approved`: whole, or without the branch or tag.
fn is_approved(revision: &str, approved: &str) -> bool {
    let digest = revision.rsplit_once('@').map_or(revision, |(_, digest)| digest);
    !approved.is_empty() && (revision == approved || digest == approved)
}

/// Returns how to start. `source`: as it was read, if it exists.
///
/// # Errors
/// The source is missing or has another revision than the approved one.
pub fn start(
    spec: &FluxResume,
    object: &Value,
    of: &Source,
    source: Option<&Value>,
    token: &str,
) -> Result<Start, StepProblem> {
    let requested = object["metadata"]["annotations"][REQUESTED_AT].as_str();
    let is_suspended = object["spec"]["suspend"] == true;
    if requested == Some(token) && !is_suspended {
        return Ok(Start::Begun);
    }
    let Some(source) = source else {
        return Err(StepProblem::Unusable(format!("{} does not exist", of.title())));
    };
    let revision = text(source, "/status/artifact/revision");
    if revision.is_empty() {
        return Ok(Start::Waits(format!("{} has fetched no revision yet", of.title())));
    }
    if !is_approved(revision, &spec.revision) {
        return Err(StepProblem::Unusable(another(&of.title(), "has", revision, spec)));
    }
    Ok(Start::Write(json!({
        "metadata": {
            "resourceVersion": object["metadata"]["resourceVersion"],
            "annotations": {REQUESTED_AT: token},
        },
        "spec": {"suspend": false},
    })))
}

fn another(title: &str, verb: &str, revision: &str, spec: &FluxResume) -> String {
    format!("{title} {verb} revision {revision}, and the plan approves {}", spec.revision)
}

/// Returns the progress. `object` and `source`: as they were read, if they exist.
#[must_use]
pub fn judge(
    spec: &FluxResume,
    object: Option<&Value>,
    source: Option<(&Source, Option<&Value>)>,
    token: &str,
) -> StepProgress {
    let title = title(spec);
    let Some(object) = object else { return StepProgress::Failed(format!("{title} does not exist")) };
    if object["metadata"]["deletionTimestamp"].is_string() {
        return StepProgress::Failed(format!("{title} is being deleted"));
    }
    if object["spec"]["suspend"] == true {
        return StepProgress::Failed(format!("{title} was suspended again, by somebody else"));
    }
    let requested = object["metadata"]["annotations"][REQUESTED_AT].as_str().unwrap_or_default();
    if requested != token {
        let other = named(requested, "none");
        return StepProgress::Failed(format!(
            "{title}: the request {token} was overwritten by another one ({other}), so that nothing proves what became of it"
        ));
    }
    match handled(spec, object, token) {
        Handled::Done => StepProgress::Succeeded,
        Handled::Failed(why) => StepProgress::Failed(format!("{title} {why}")),
        Handled::Not(why) => {
            // Until it is done, another revision of the source would be what Flux applies.
            let moved = source.and_then(|(of, source)| {
                let revision = text(source?, "/status/artifact/revision");
                let is_other = !revision.is_empty() && !is_approved(revision, &spec.revision);
                is_other.then(|| another(&of.title(), "has now", revision, spec))
            });
            match moved {
                Some(moved) => StepProgress::Failed(moved),
                None => StepProgress::Running(format!("{title} {why}")),
            }
        }
    }
}

/// What Flux says of a request.
enum Handled {
    Done,
    Not(String),
    Failed(String),
}

fn handled(spec: &FluxResume, object: &Value, token: &str) -> Handled {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let condition =
        |type_: &str| conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    let said = |type_: &str| {
        let at = |key: &str| condition(type_).and_then(|of| of[key].as_str()).unwrap_or_default();
        format!("{type_}={} ({}): {}", named(at("status"), "Unknown"), at("reason"), at("message"))
    };
    if text(object, "/status/lastHandledReconcileAt") != token {
        return Handled::Not("has not handled the request yet".to_owned());
    }
    if condition("Stalled").is_some_and(|stalled| stalled["status"] == "True") {
        return Handled::Failed(format!("does not go on: {}", said("Stalled")));
    }
    if condition("Ready").is_none_or(|ready| ready["status"] != "True") {
        return Handled::Not(format!("is at it: {}", said("Ready")));
    }
    let (generation, observed) =
        (object["metadata"]["generation"].as_i64(), object["status"]["observedGeneration"].as_i64());
    if generation.is_none() || observed != generation {
        return Handled::Not("says Ready of an earlier generation".to_owned());
    }
    // It is written before anything is applied, and so is never older than the condition.
    let attempted = text(object, "/status/lastAttemptedRevision");
    if !is_approved(attempted, &spec.revision) {
        let attempted = named(attempted, "none");
        return Handled::Failed(format!(
            "has applied revision {attempted}, and the plan approves {}",
            spec.revision
        ));
    }
    let latest = &object["status"]["history"][0];
    let is_evidence = latest["lastReconciledStatus"] == RECONCILED
        && is_approved(text(latest, "/metadata/revision"), &spec.revision)
        && !text(latest, "/digest").is_empty();
    if !is_approved(text(object, "/status/lastAppliedRevision"), &spec.revision) || !is_evidence {
        return Handled::Not("is Ready, and has not recorded yet what it applied".to_owned());
    }
    Handled::Done
}

/// Returns the step's message once Flux has applied the approved revision: with the digest of what it applied.
#[must_use]
pub fn done(spec: &FluxResume, object: &Value) -> String {
    format!(
        "{} applied revision {}, manifests {}",
        title(spec),
        text(object, "/status/lastAppliedRevision"),
        text(object, "/status/history/0/digest")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DnsLabel;
    use crate::api::step::FluxKind;

    const APPROVED: &str = "main@sha1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OTHER: &str = "main@sha1:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    /// A change of what Flux says, and words of what follows.
    type Case = (&'static str, fn(&mut Value));

    const TOKEN: &str = "resurgam-1-0";

    fn spec() -> FluxResume {
        FluxResume {
            kind: FluxKind::Kustomization,
            namespace: DnsLabel("flux-system".to_owned()),
            name: "shop".to_owned(),
            revision: APPROVED.to_owned(),
        }
    }

    fn suspended() -> Value {
        json!({
            "metadata": {"resourceVersion": "7", "generation": 2},
            "spec": {"suspend": true, "sourceRef": {"kind": "GitRepository", "name": "estate"}},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}], "lastAppliedRevision": APPROVED},
        })
    }

    fn at(revision: &str) -> Value {
        json!({"status": {"artifact": {"revision": revision}}})
    }

    /// As Flux leaves it after it has applied the approved revision.
    fn applied() -> Value {
        json!({
            "metadata": {"generation": 3, "annotations": {REQUESTED_AT: TOKEN}},
            "spec": {"suspend": false, "sourceRef": {"kind": "GitRepository", "name": "estate"}},
            "status": {
                "observedGeneration": 3, "lastHandledReconcileAt": TOKEN, "lastAppliedRevision": APPROVED,
                "lastAttemptedRevision": APPROVED,
                "conditions": [{"type": "Ready", "status": "True", "reason": "ReconciliationSucceeded"}],
                "history": [{"digest": "sha256:1", "lastReconciledStatus": "ReconciliationSucceeded", "metadata": {"revision": APPROVED}}],
            },
        })
    }

    fn begun(object: &Value, source: Option<&Value>) -> Result<Start, String> {
        let of = super::source(&spec(), object).unwrap();
        start(&spec(), object, &of, source, TOKEN).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_approved_revision_is_resumed() {
        let patch = json!({
            "metadata": {"resourceVersion": "7", "annotations": {REQUESTED_AT: TOKEN}}, "spec": {"suspend": false},
        });
        assert_eq!(begun(&suspended(), Some(&at(APPROVED))), Ok(Start::Write(patch)));
        let error = begun(&suspended(), Some(&at(OTHER))).unwrap_err();
        assert_eq!(
            error,
            format!(
                "GitRepository flux-system/estate has revision {OTHER}, and the plan approves {APPROVED}"
            )
        );
        assert!(begun(&suspended(), None).unwrap_err().contains("does not exist"));
        assert!(matches!(begun(&suspended(), Some(&json!({}))), Ok(Start::Waits(_))), "nothing was fetched");
        assert_eq!(begun(&applied(), None), Ok(Start::Begun), "it is resumed once");
    }

    #[test]
    fn branch_may_be_left_out_of_the_approved_revision() {
        let digest = APPROVED.split_once('@').unwrap().1;
        assert!(is_approved(APPROVED, digest) && is_approved(APPROVED, APPROVED));
        assert!(!is_approved(OTHER, digest) && !is_approved("", digest) && !is_approved("x", ""));
        assert!(
            !is_approved(APPROVED, "dev@sha1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            "another branch"
        );
    }

    #[test]
    fn success_needs_every_piece_of_evidence() {
        let of = |change: fn(&mut Value)| {
            let mut object = applied();
            change(&mut object);
            judge(&spec(), Some(&object), None, TOKEN)
        };
        assert_eq!(of(|_| {}), StepProgress::Succeeded);
        assert_eq!(
            done(&spec(), &applied()),
            format!("Kustomization flux-system/shop applied revision {APPROVED}, manifests sha256:1")
        );
        let running: [Case; 7] = [
            ("has not handled the request yet", |o| o["status"]["lastHandledReconcileAt"] = json!("before")),
            ("earlier generation", |o| o["status"]["observedGeneration"] = json!(2)),
            ("is at it: Ready=False (ReconciliationSucceeded)", |o| {
                o["status"]["conditions"][0]["status"] = json!("False");
            }),
            ("is at it: Ready=Unknown", |o| o["status"]["conditions"] = json!([])),
            ("not recorded yet", |o| o["status"]["history"] = json!([])),
            ("not recorded yet", |o| {
                o["status"]["history"][0]["lastReconciledStatus"] = json!("HealthCheckFailed");
            }),
            ("not recorded yet", |o| o["status"]["lastAppliedRevision"] = json!(OTHER)),
        ];
        for (words, change) in running {
            let StepProgress::Running(message) = of(change) else { panic!("{words}: {:?}", of(change)) };
            assert!(message.contains(words), "{message}");
        }
        let failed: [Case; 5] = [
            ("was suspended again", |o| o["spec"]["suspend"] = json!(true)),
            ("overwritten by another one (mine)", |o| {
                o["metadata"]["annotations"][REQUESTED_AT] = json!("mine");
            }),
            (OTHER, |o| o["status"]["lastAttemptedRevision"] = json!(OTHER)),
            ("being deleted", |o| o["metadata"]["deletionTimestamp"] = json!("2026-11-30T10:00:00Z")),
            ("Stalled=True", |o| {
                o["status"]["conditions"] = json!([{"type": "Stalled", "status": "True", "message": "no"}]);
            }),
        ];
        for (words, change) in failed {
            let StepProgress::Failed(message) = of(change) else { panic!("{words}: {:?}", of(change)) };
            assert!(message.contains(words), "{message}");
        }
        assert!(matches!(judge(&spec(), None, None, TOKEN), StepProgress::Failed(_)));
    }

    #[test]
    fn source_that_moves_on_before_the_end_fails_with_both_revisions() {
        let mut object = applied();
        object["status"]["lastHandledReconcileAt"] = json!("before");
        let of = super::source(&spec(), &object).unwrap();
        let moved = |object: &Value, revision: &str| {
            judge(&spec(), Some(object), Some((&of, Some(&at(revision)))), TOKEN)
        };
        let StepProgress::Failed(message) = moved(&object, OTHER) else { panic!() };
        assert!(message.contains(OTHER) && message.contains(APPROVED), "{message}");
        assert!(matches!(moved(&object, APPROVED), StepProgress::Running(_)));
        assert_eq!(moved(&applied(), OTHER), StepProgress::Succeeded, "what comes after is another matter");
    }

    #[test]
    fn source_of_unknown_kind_is_refused() {
        let mut object = suspended();
        object["spec"]["sourceRef"] = json!({"kind": "Chart", "name": "x"});
        let error = super::source(&spec(), &object).unwrap_err().to_string();
        assert!(error.contains("its source is of kind Chart"), "{error}");
        object["spec"]["sourceRef"] = json!({"kind": "OCIRepository", "name": "x", "namespace": "sources"});
        assert_eq!(super::source(&spec(), &object).unwrap().title(), "OCIRepository sources/x");
    }
}
