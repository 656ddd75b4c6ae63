//! An attack as data, how it is made, and what counts as refused.

use futures::{StreamExt, stream};
use http::header::{ACCEPT, CONTENT_TYPE};
use kube::core::Status;
use resurgam::isolation::policies::FENCES;
use serde_json::{Value, json};

use crate::attack::exemptions;
use crate::attack::rig::{INCIDENT, Level, REASON};
use crate::attack::served;
use crate::attack::who::Who;

pub const FENCE: &str = "resurgam-write-fence";
pub const LOCK: &str = "resurgam-namespace-lock";
pub const QUARANTINE: &str = "resurgam-quarantine-lock";
pub const WRITER: &str = "resurgam-single-writer";

/// What is asked of the API server.
#[derive(Clone, Debug)]
pub enum Ask {
    Create(Value),
    /// A merge patch.
    Merge(Value),
    /// A JSON patch.
    Json(Value),
    /// Server-side apply, by force.
    Apply(Value),
    /// The object as it is, with this merged into it.
    Replace(Value),
    Delete,
    DeleteAll,
    /// Opens a connection, by POST or by GET.
    Connect(http::Method),
}

/// One attack.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: String,
    pub path: String,
    pub ask: Ask,
    /// The policy that has to refuse it.
    pub policy: &'static str,
}

pub fn attack(name: &str, path: String, ask: Ask, policy: &'static str) -> Attack {
    Attack { name: name.to_owned(), path, ask, policy }
}

impl Attack {
    /// As admission names it.
    pub fn operation(&self) -> &'static str {
        match self.ask {
            Ask::Create(_) => "CREATE",
            Ask::Merge(_) | Ask::Json(_) | Ask::Replace(_) => "UPDATE",
            // Where it is not there, it is created.
            Ask::Apply(_) if self.name.contains("new") => "CREATE",
            Ask::Apply(_) => "UPDATE",
            Ask::Delete | Ask::DeleteAll => "DELETE",
            Ask::Connect(_) => "CONNECT",
        }
    }

    /// The resource, and its subresource: `pods/exec`.
    pub fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap();
        let within = path.split_once("/namespaces/").map_or("", |(_, rest)| rest);
        let parts: Vec<&str> = within.split('/').skip(1).collect();
        match parts.as_slice() {
            [plural] | [plural, _] => (*plural).to_owned(),
            [plural, _, sub, ..] => format!("{plural}/{sub}"),
            [] => "namespaces".to_owned(),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// By this policy, in these words.
    Refused(String),
    /// By the lack of a right, before any policy was asked.
    NoRight,
    /// It was let through.
    Through,
    /// What was in the way was no policy.
    Other(String),
}

/// Makes an attack, in earnest or as a dry-run.
pub async fn make(who: &Who, attack: &Attack, dry: bool) -> Outcome {
    let (method, kind, body) = match &attack.ask {
        Ask::Create(body) => (http::Method::POST, "application/json", body.clone()),
        Ask::Merge(body) => (http::Method::PATCH, "application/merge-patch+json", body.clone()),
        Ask::Json(body) => (http::Method::PATCH, "application/json-patch+json", body.clone()),
        Ask::Apply(body) => (http::Method::PATCH, "application/apply-patch+yaml", body.clone()),
        Ask::Replace(change) => {
            // What is finalized is the object itself.
            let mut body = match served::get(&who.client, attack.path.trim_end_matches("/finalize")).await {
                Ok(live) => live,
                Err(kube::Error::Api(status)) => return judge(&status, attack.policy),
                Err(error) => return Outcome::Other(error.to_string()),
            };
            merge(&mut body, change);
            (http::Method::PUT, "application/json", body)
        }
        Ask::Delete | Ask::DeleteAll => (http::Method::DELETE, "application/json", Value::Null),
        Ask::Connect(method) => (method.clone(), "application/json", Value::Null),
    };
    let mut path = attack.path.clone();
    let mut ask = |query: &str| path = format!("{path}{}{query}", if path.contains('?') { '&' } else { '?' });
    if let Ask::Apply(_) = attack.ask {
        ask("fieldManager=attack&force=true");
    }
    if dry && !matches!(attack.ask, Ask::Connect(_)) {
        ask("dryRun=All");
    }
    let mut request = http::Request::builder().method(method).uri(path);
    request = request.header(CONTENT_TYPE, kind).header(ACCEPT, "application/json");
    if who.acted {
        request = request.header("impersonate-user", &who.user);
        for group in &who.groups {
            request = request.header("impersonate-group", *group);
        }
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = who.client.request_text(request.body(body).unwrap()).await;
    match answer {
        Ok(_) => Outcome::Through,
        Err(kube::Error::Api(status)) => judge(&status, attack.policy),
        Err(error) => Outcome::Other(error.to_string()),
    }
}

fn judge(status: &Status, policy: &str) -> Outcome {
    // Of the two fences either refuses, and the API server names one.
    let policies = if policy == FENCE { FENCES.to_vec() } else { vec![policy] };
    let by = |policy: &&str| status.message.contains(&format!("ValidatingAdmissionPolicy '{policy}'"));
    if status.code == 403 && status.reason == "Forbidden" && policies.iter().any(by) {
        return Outcome::Refused(status.message.clone());
    }
    let lacks = status.message.contains("User \"") && status.message.contains(" cannot ");
    if status.code == 403
        && (lacks || status.message.contains("attempting to grant RBAC permissions not currently held"))
    {
        return Outcome::NoRight;
    }
    Outcome::Other(format!("{} {}: {}", status.code, status.reason, status.message))
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// What a refusal has to tell: in one line who may do what about it.
fn words(attack: &Attack, level: Level, message: &str) -> Vec<String> {
    let name = level.namespace;
    let run = format!("kubectl delete quarantine {name}");
    let mut wanted = vec![name, REASON, INCIDENT, "recovery lead", &run];
    if attack.policy.ends_with("-guard") {
        // They know of the list of what is quarantined, not of the namespace.
        wanted = vec![name, level.label, "may release", &run];
    } else if attack.policy == WRITER {
        wanted = vec!["only the operator"];
    } else if attack.policy != QUARANTINE {
        wanted.push(level.label);
    }
    // A collection is asked about before its objects: none is known then.
    if attack.policy == QUARANTINE && matches!(attack.ask, Ask::DeleteAll) {
        wanted = vec!["recovery lead"];
    }
    let mut missing: Vec<String> =
        wanted.into_iter().filter(|w| !message.contains(w)).map(str::to_owned).collect();
    if message.contains('\n') {
        missing.push("all in one line".to_owned());
    }
    missing
}

/// How a table went.
#[derive(Debug, Default)]
pub struct Tally {
    pub refused: usize,
    pub no_right: usize,
    /// Skipped, as this account passes there: that list is tested by itself.
    pub exempt: usize,
}

/// Makes every attack as everybody, side by side. Whatever is not refused as it should be is told by name.
pub async fn all_refused(level: Level, whos: &[Who], attacks: &[Attack], dry: bool) -> Tally {
    let pairs = whos.iter().flat_map(|who| attacks.iter().map(move |attack| (who, attack)));
    each_refused(level, pairs, dry).await
}

/// The same, of attacks that have somebody already.
pub async fn each_refused<'a>(
    level: Level,
    pairs: impl Iterator<Item = (&'a Who, &'a Attack)>,
    dry: bool,
) -> Tally {
    let made = stream::iter(pairs)
        .map(|(who, attack)| async move {
            if exemptions::passes(level.label, &who.user, attack) {
                return (who, attack, None);
            }
            (who, attack, Some(make(who, attack, dry).await))
        })
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (who, attack, outcome) in made {
        let case = format!("{} ({}), as {}", attack.name, level.label, who.user);
        match outcome {
            None => tally.exempt += 1,
            Some(Outcome::Refused(message)) => {
                tally.refused += 1;
                let missing = words(attack, level, &message);
                if !missing.is_empty() {
                    wrong.push(format!("{case}: refused, without {missing:?}: {message}"));
                }
            }
            Some(Outcome::NoRight) if who.limited => tally.no_right += 1,
            Some(Outcome::Through) => wrong.push(format!("{case}: it was let through")),
            Some(Outcome::NoRight) => wrong.push(format!("{case}: it lacks the right, so nothing was shown")),
            Some(Outcome::Other(what)) => wrong.push(format!("{case}: {what}")),
        }
    }
    let count = wrong.len();
    wrong.truncate(40);
    assert!(wrong.is_empty(), "{count} attacks were not refused by their policy:\n{}", wrong.join("\n"));
    tally
}

/// A pod that would do harm.
pub fn implant() -> Value {
    json!({"containers": [{"name": "main", "image": "registry.example/implant"}]})
}
