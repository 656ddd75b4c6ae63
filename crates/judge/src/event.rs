//! An event of an audit log: its metadata, which is parsed for every line, and its bodies, which are parsed only if needed.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Metadata of an event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Line number, counted from 1.
    pub line: usize,
    /// When the API server received the request.
    pub received: Timestamp,
    /// When the API server completed the answer.
    pub completed: Timestamp,
    /// Authenticated user.
    pub account: String,
    /// Effective user: the impersonated user, if any.
    pub user: String,
    pub verb: String,
    pub object: Object,
    /// Status code. 0: there was no answer.
    pub code: u16,
    /// Whether an admission webhook denied the request or could not be called. Nothing was stored.
    pub webhook_refused: bool,
    /// Whether the query requests a dry run. A deletion may also request it in its body.
    pub dry_run: bool,
    /// Whether it requests the next page of a list.
    pub continues: bool,
}

/// Object of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Object {
    #[serde(rename = "apiGroup")]
    pub group: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

/// Bodies of a request and its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bodies {
    #[serde(default)]
    pub request_object: Value,
    #[serde(default)]
    pub response_object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    api_version: String,
    kind: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<Object>,
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
struct ResponseStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Event {
    /// Parses a line. `None`: the request is not complete, or concerns no object.
    pub(crate) fn parse(line: usize, text: &str) -> Result<Option<Self>, String> {
        let raw: Raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if (raw.api_version.as_str(), raw.kind.as_str()) != ("audit.k8s.io/v1", "Event") {
            return Err(format!("{} {} is no audit event", raw.api_version, raw.kind));
        }
        let Some(object) = raw.object_ref else { return Ok(None) };
        match raw.stage.as_str() {
            "ResponseComplete" => {}
            "Panic" => return Err(format!("the API server panicked on {} {}", raw.verb, object.resource)),
            _ => return Ok(None),
        }
        let account = raw.user.username;
        let status = raw.response_status.unwrap_or_default();
        Ok(Some(Self {
            line,
            received: time(&raw.request_received_timestamp)?,
            completed: time(&raw.stage_timestamp)?,
            user: raw.impersonated_user.map_or_else(|| account.clone(), |user| user.username),
            account,
            verb: raw.verb,
            object,
            code: status.code,
            webhook_refused: is_webhook_refusal(&status.message),
            dry_run: in_query(&raw.request_uri, "dryRun="),
            continues: in_query(&raw.request_uri, "continue="),
        }))
    }

    /// Returns whether the request changes something if it succeeds.
    pub(crate) fn is_write(&self) -> bool {
        !self.dry_run && (self.deletes() || matches!(self.verb.as_str(), "create" | "update" | "patch"))
    }

    pub(crate) fn deletes(&self) -> bool {
        matches!(self.verb.as_str(), "delete" | "deletecollection")
    }

    /// Returns whether the API server reported success.
    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Returns whether the API server reported neither success nor denial, so that the write may have taken effect. Of a collection, some
    /// objects may have been deleted before a webhook denied one.
    pub(crate) fn unanswered(&self) -> bool {
        let refused = self.webhook_refused && self.verb != "deletecollection";
        self.code == 0 || (self.code >= 500 && !refused)
    }

    pub(crate) fn is_of_lease(&self) -> bool {
        self.object.resource == "leases"
    }

    pub(crate) fn renews_lease(&self) -> bool {
        self.is_of_lease() && self.is_write() && self.succeeded()
    }

    /// Returns the error about a missing body.
    pub(crate) fn no_body(&self) -> String {
        format!(
            "the answer to {} {} {} is not there in full: the audit policy must log such requests at RequestResponse",
            self.verb, self.object.resource, self.object.name
        )
    }
}

impl Bodies {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Returns whether the deletion was a dry run.
    pub(crate) fn dry_run(&self) -> bool {
        self.request_object["dryRun"].as_array().is_some_and(|all| !all.is_empty())
    }
}

impl Object {
    /// Returns the object with this name, as every request identifies it.
    pub(crate) fn named(&self, name: &str) -> Self {
        // A request to a namespace names it in both fields, except a creation, which names it in neither.
        let namespace = if self.resource == "namespaces" { "" } else { &self.namespace };
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            subresource: String::new(),
            ..self.clone()
        }
    }

    /// Formats the object: `namespaces/x`, `pods/ns/x`.
    pub(crate) fn display(&self, name: &str) -> String {
        let named = self.named(name);
        let parts = [named.resource.as_str(), &named.namespace, &named.name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

/// Returns a string in a body.
pub(crate) fn text_at<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Returns an object's resourceVersion as a number: the store has one counter.
pub(crate) fn revision(object: &Value) -> Option<u64> {
    text_at(object, "/metadata/resourceVersion")?.parse().ok()
}

pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|error| format!("'{text}' is no time: {error}"))
}

/// Returns whether a message is an admission webhook's failure. Webhooks run before anything is stored, so that it is a denial whatever
/// its code: 500 if the webhook could not be called, any code if it denied the request.
fn is_webhook_refusal(message: &str) -> bool {
    let denied =
        |rest: &str| rest.split_once("\" denied the request").is_some_and(|(name, _)| !name.contains('"'));
    message.starts_with("Internal error occurred: failed calling webhook \"")
        || message.strip_prefix("admission webhook \"").is_some_and(denied)
}

/// Returns whether an answer has less than the whole object: a Table, or metadata only.
pub(crate) fn is_excerpt(body: &Value) -> bool {
    matches!(text_at(body, "/kind"), Some("Table" | "PartialObjectMetadata"))
}

/// Returns whether a query parameter is present and not empty.
fn in_query(uri: &str, parameter: &str) -> bool {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.strip_prefix(parameter).is_some_and(|value| !value.is_empty()))
}
