//! The audit log: which writes were answered with success, in the order in which they took effect.

use std::collections::BTreeSet;
use std::io::BufRead;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::CannotJudge;
use crate::plan::Plan;

/// What of the log matters here.
#[derive(Debug)]
pub(crate) struct Log {
    /// Lines read.
    pub events: usize,
    /// Successful writes that matter, in the order in which they took effect.
    pub writes: Vec<Write>,
}

/// A successful write.
#[derive(Debug)]
pub(crate) struct Write {
    pub line: usize,
    /// When the API server had answered.
    pub completed: Timestamp,
    /// When the API server had the request.
    pub received: Timestamp,
    /// Whose write it was: the impersonated user, if any.
    pub user: String,
    /// `namespaces/x`, `pods/ns/x`.
    pub object: String,
    /// It brought the object into being.
    pub created: bool,
    pub what: What,
}

/// What was written.
#[derive(Debug)]
pub(crate) enum What {
    /// A namespace, with what its isolation label says.
    Namespace { name: String, level: Level },
    /// A namespace was deleted (or is on its way).
    NamespaceDeleted { name: String },
    /// A pod was created.
    Pod { namespace: String },
    /// A service of the plan: what its ServiceRecovery says since.
    Service { name: String, state: ServiceState },
    /// The plan took hold of a Quarantine, for a service.
    Claim { service: String },
    /// A person decided to retry a service of the plan.
    Retry { service: String },
}

/// What a ServiceRecovery's status says. Nothing said is `false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceState {
    /// It has left the stage `Isolated`.
    pub claimed: bool,
    pub recovered: bool,
    pub healthy: bool,
    pub needs_decision: bool,
}

/// What a namespace's isolation label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Sealed,
    Contained,
    CleanRoom,
    Open,
}

impl Level {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Contained => "contained",
            Self::CleanRoom => "clean-room",
            Self::Open => "open",
        }
    }
}

/// The outside of an event; bodies are left aside, as most events do not matter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
}

#[derive(Deserialize, Default)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

/// The bodies of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bodies {
    #[serde(default)]
    request_object: Value,
    #[serde(default)]
    response_object: Value,
}

impl Log {
    /// Reads a whole log. Whatever cannot be understood ends it: a gap might hide just what is looked for.
    pub(crate) fn read(mut input: impl BufRead, plan: &Plan) -> Result<Self, CannotJudge> {
        let mut events = 0;
        let mut writes = Vec::new();
        let mut buffer = String::new();
        loop {
            buffer.clear();
            let line = events + 1;
            let wrong = |reason: String| CannotJudge::Line { line, reason };
            if input.read_line(&mut buffer).map_err(|error| wrong(error.to_string()))? == 0 {
                break;
            }
            if !buffer.ends_with('\n') {
                return Err(wrong("it does not end: the log was cut short".to_owned()));
            }
            events = line;
            let head: Head = serde_json::from_str(&buffer).map_err(|error| wrong(error.to_string()))?;
            if (head.api_version.as_str(), head.kind.as_str()) != ("audit.k8s.io/v1", "Event") {
                return Err(wrong(format!("{} {} is no audit event", head.api_version, head.kind)));
            }
            if let Some((revision, write)) = read_write(line, &head, &buffer, plan).map_err(wrong)? {
                writes.push((revision, write));
            }
        }
        if events == 0 {
            return Err(CannotJudge::Log("it is empty".to_owned()));
        }
        Ok(Self { events, writes: in_order(writes) })
    }

    /// The namespaces that the log tells of.
    pub(crate) fn namespaces(&self) -> BTreeSet<&str> {
        self.writes
            .iter()
            .filter_map(|write| match &write.what {
                What::Namespace { name, .. } => Some(name.as_str()),
                What::NamespaceDeleted { .. }
                | What::Pod { .. }
                | What::Service { .. }
                | What::Claim { .. }
                | What::Retry { .. } => None,
            })
            .collect()
    }
}

/// Puts writes in the order in which they took effect. A response's resourceVersion is the store's one revision counter;
/// deletions bear none of their own, and stand behind the highest one that was answered before them.
fn in_order(mut writes: Vec<(Option<u64>, Write)>) -> Vec<Write> {
    writes.sort_by_key(|(_, write)| (write.completed, write.line));
    let mut highest = 0;
    let mut keyed: Vec<_> = writes
        .into_iter()
        .map(|(revision, write)| {
            highest = highest.max(revision.unwrap_or(0));
            ((revision.unwrap_or(highest), revision.is_none()), write)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, write)| write).collect()
}

/// The write in an event, with the revision it made, if it is one that matters here.
fn read_write(
    line: usize,
    head: &Head,
    text: &str,
    plan: &Plan,
) -> Result<Option<(Option<u64>, Write)>, String> {
    let Some(object) = &head.object_ref else { return Ok(None) };
    let code = head.response_status.as_ref().map_or(0, |status| status.code);
    let deletes = matches!(head.verb.as_str(), "delete" | "deletecollection");
    let writes = deletes || matches!(head.verb.as_str(), "create" | "update" | "patch");
    if !writes || !matters(object, plan) {
        return Ok(None);
    }
    match head.stage.as_str() {
        "ResponseComplete" => {}
        "Panic" => return Err(format!("the API server panicked on {} {}", head.verb, object.resource)),
        _ => return Ok(None),
    }
    if !(200..300).contains(&code) || dry_run_uri(&head.request_uri) {
        return Ok(None);
    }
    let bodies: Bodies = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if deletes && bodies.request_object["dryRun"].as_array().is_some_and(|all| !all.is_empty()) {
        return Ok(None);
    }
    let response = &bodies.response_object;
    let created = !deletes && (head.verb == "create" || code == 201);
    let name = text_at(response, "/metadata/name").unwrap_or(&object.name);
    let Some(what) = what(head, object, name, created, deletes, response, plan)? else { return Ok(None) };
    let revision = if deletes {
        None
    } else {
        let text = text_at(response, "/metadata/resourceVersion");
        Some(text.and_then(|t| t.parse().ok()).ok_or_else(|| no_body(head, object))?)
    };
    let path = [object.resource.as_str(), object.namespace.as_str(), name];
    // A namespace refers to itself in both fields.
    let path = path.iter().enumerate().filter(|(i, part)| !part.is_empty() && (*i != 1 || **part != name));
    let write = Write {
        line,
        completed: time(&head.stage_timestamp)?,
        received: time(&head.request_received_timestamp)?,
        user: head.impersonated_user.as_ref().unwrap_or(&head.user).username.clone(),
        object: path.map(|(_, part)| *part).collect::<Vec<_>>().join("/"),
        created,
        what,
    };
    Ok(Some((revision, write)))
}

fn matters(object: &ObjectRef, plan: &Plan) -> bool {
    match (object.api_group.as_str(), object.resource.as_str()) {
        ("", "namespaces") => true,
        ("", "pods") => object.subresource.is_empty(),
        ("resurgam.dev", "quarantines") => true,
        ("resurgam.dev", "servicerecoveries" | "decisions") => object.namespace == plan.namespace,
        _ => false,
    }
}

fn what(
    head: &Head,
    object: &ObjectRef,
    name: &str,
    created: bool,
    deletes: bool,
    response: &Value,
    plan: &Plan,
) -> Result<Option<What>, String> {
    let expect = |kind: &str| {
        let as_expected = text_at(response, "/kind") == Some(kind);
        as_expected.then_some(()).ok_or_else(|| no_body(head, object))
    };
    let ours = |service: &str, what: What| plan.services.contains_key(service).then_some(what);
    Ok(match object.resource.as_str() {
        "namespaces" if deletes => Some(What::NamespaceDeleted { name: object.name.clone() }),
        "namespaces" => {
            expect("Namespace")?;
            Some(What::Namespace { name: name.to_owned(), level: level(response)? })
        }
        "pods" if created => Some(What::Pod { namespace: object.namespace.clone() }),
        "servicerecoveries" if deletes && head.verb == "deletecollection" => {
            return Err("ServiceRecoveries were deleted all at once: which ones cannot be told".to_owned());
        }
        "servicerecoveries" => {
            let service = name.strip_prefix(&format!("{}.", plan.name)).unwrap_or_default().to_owned();
            let state = if deletes {
                ServiceState::default()
            } else {
                expect("ServiceRecovery")?;
                state(response)
            };
            ours(&service.clone(), What::Service { name: service, state })
        }
        "quarantines" if !deletes => {
            expect("Quarantine")?;
            let claim =
                |key: &str| text_at(response, &format!("/status/claimedBy/{key}")).unwrap_or_default();
            let service = claim("service").to_owned();
            let mine = claim("plan") == plan.name && claim("planNamespace") == plan.namespace;
            mine.then(|| ours(&service.clone(), What::Claim { service })).flatten()
        }
        "decisions" if created => {
            expect("Decision")?;
            let spec = |key: &str| text_at(response, &format!("/spec/{key}")).unwrap_or_default();
            let service = spec("service").to_owned();
            let retry = spec("plan") == plan.name && spec("action") == "Retry";
            retry.then(|| ours(&service.clone(), What::Retry { service })).flatten()
        }
        _ => None,
    })
}

fn no_body(head: &Head, object: &ObjectRef) -> String {
    format!(
        "the answer to {} {} {} is not there in full: the audit policy must log such writes at RequestResponse",
        head.verb, object.resource, object.name
    )
}

fn dry_run_uri(uri: &str) -> bool {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.strip_prefix("dryRun=").is_some_and(|value| !value.is_empty()))
}

fn level(namespace: &Value) -> Result<Level, String> {
    match text_at(namespace, "/metadata/labels/resurgam.dev~1isolation") {
        None => Ok(Level::Open),
        Some("sealed") => Ok(Level::Sealed),
        Some("contained") => Ok(Level::Contained),
        Some("clean-room") => Ok(Level::CleanRoom),
        Some(other) => Err(format!("nobody knows an isolation '{other}'")),
    }
}

fn state(recovery: &Value) -> ServiceState {
    let conditions = recovery.pointer("/status/conditions").and_then(Value::as_array);
    let holds = |type_: &str| {
        let mut all = conditions.into_iter().flatten();
        all.any(|c| text_at(c, "/type") == Some(type_) && text_at(c, "/status") == Some("True"))
    };
    ServiceState {
        claimed: text_at(recovery, "/status/stage").is_some_and(|stage| stage != "Isolated"),
        recovered: holds("Recovered"),
        healthy: holds("Healthy"),
        needs_decision: holds("NeedsDecision"),
    }
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|error| format!("'{text}' is no time: {error}"))
}
