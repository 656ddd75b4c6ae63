//! Gate `credentialsRotated`: the values of Secrets are not those that were captured, and were changed since the isolation.
//!
//! That a value differs from the captured one is the proof: capture follows the fence, so such a value was written later. The times only
//! disprove: managed fields can be written by whoever may update the Secret, and the date of a certificate or JWT is its issuer's word.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::finding::{Finding, worst};
use super::{Answer, Question, evidence};
use crate::api::GateReason;
use crate::api::gate::{CredentialsRotatedSpec, RotatedSecret};

pub mod changes;
pub mod dates;
pub mod record;

pub use dates::Issued;
pub use record::DigestRecord;

/// Type of Secrets that hold a certificate and its private key.
pub const TLS_TYPE: &str = "kubernetes.io/tls";
/// Keys of a Secret of that type. A new certificate for the old private key is not rotated.
const TLS_KEYS: [&str; 2] = ["tls.crt", "tls.key"];

/// A Secret that the gate checks.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace of the Secret.
    pub namespace: &'a str,
    /// The Secret in the plan.
    pub secret: &'a RotatedSecret,
}

/// A Secret, without its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// UID of the Secret.
    pub uid: String,
    /// Whether it is of type [`TLS_TYPE`].
    pub is_tls: bool,
    /// Its values, by key.
    pub values: BTreeMap<String, ValueFacts>,
}

/// What is known of one value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueFacts {
    /// Whether it is empty.
    pub is_empty: bool,
    /// Keyed digest of the value, as captures have it.
    pub digest: String,
    /// Latest time at which it may have been changed, by the managed fields. `None`: they do not say.
    pub changed_at: Option<Timestamp>,
    /// When it was issued, if it is a certificate or a JWT.
    pub issued: Issued,
}

/// Returns the Secrets that a gate checks.
///
/// # Errors
/// An Unknown: a Secret's namespace is not one of the service's, or is ambiguous.
pub fn targets<'a>(
    spec: &'a CredentialsRotatedSpec,
    question: &'a Question,
) -> Result<Vec<Target<'a>>, Answer> {
    let malformed = |message| Answer::unknown(GateReason::Malformed, message);
    if spec.secrets.is_empty() {
        return Err(malformed("the gate names no Secret".to_owned()));
    }
    let of = |secret: &'a RotatedSecret| {
        let name = &secret.name;
        let namespace = match (&secret.namespace, question.namespaces.as_slice()) {
            (None, [only]) => only,
            (None, _) => {
                let count = question.namespaces.len();
                return Err(malformed(format!("Secret {name} needs a namespace: the service has {count}")));
            }
            (Some(named), all) => all.iter().find(|one| *one == named).ok_or_else(|| {
                malformed(format!("Secret {named}/{name} is in none of the service's namespaces"))
            })?,
        };
        Ok(Target { namespace, secret })
    };
    spec.secrets.iter().map(of).collect()
}

/// Reads the records of captured values of the targets' namespaces. `list`: the ConfigMap that the gate names. `is_authentic` compares
/// the MAC of a record's text.
///
/// # Errors
/// An Unknown: a record is missing, malformed, not authentic, or of another Quarantine.
pub fn records(
    spec: &CredentialsRotatedSpec,
    question: &Question,
    list: Option<&ConfigMap>,
    is_authentic: impl Fn(&str, &str) -> bool,
) -> Result<BTreeMap<String, DigestRecord>, Answer> {
    let what = format!("ConfigMap {}/{}", question.plan_namespace, spec.captured_from.config_map.name);
    let made = "resurgam evidence digests prints it";
    let data = list.and_then(|list| list.data.as_ref()).ok_or_else(|| {
        Answer::unknown(
            GateReason::NothingCaptured,
            format!("{what} of captured digests is missing or empty: {made}"),
        )
    })?;
    let mut records = BTreeMap::new();
    for Target { namespace, .. } in targets(spec, question)? {
        if records.contains_key(namespace) {
            continue;
        }
        let text = data.get(namespace).ok_or_else(|| {
            let message = format!("{what} has no record of namespace {namespace}: {made}");
            Answer::unknown(GateReason::NothingCaptured, message)
        })?;
        let malformed = |why: String| {
            Answer::unknown(GateReason::MalformedCapture, format!("{what}, record of {namespace}: {why}"))
        };
        let (record, mac) = DigestRecord::parse(text).map_err(malformed)?;
        if !is_authentic(&record.text(), &mac) {
            let message = format!(
                "{what}, record of {namespace}: it was changed, or was not made with the operator's --evidence-key"
            );
            return Err(Answer::unknown(GateReason::CaptureNotAuthentic, message));
        }
        if record.namespace != namespace {
            return Err(malformed(format!("it is of namespace {}", record.namespace)));
        }
        let seal = question.seals.get(namespace).filter(|seal| !seal.uid.is_empty());
        if seal.is_none_or(|seal| seal.uid != record.quarantine) {
            let message = format!(
                "{what}, record of {namespace}: it is of Quarantine {}, captured at {}, and not of the present one: make it again",
                record.quarantine, record.at
            );
            return Err(Answer::unknown(GateReason::CaptureStale, message));
        }
        records.insert(namespace.to_owned(), record);
    }
    Ok(records)
}

/// One value that is checked.
struct Checked<'a> {
    target: Target<'a>,
    key: &'a str,
    value: Option<&'a ValueFacts>,
    since: Option<Timestamp>,
    is_certificate: bool,
}

impl fmt::Display for Checked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}, key {}", self.target.namespace, self.target.secret.name, self.key)
    }
}

/// The captured values.
struct Captured<'a> {
    records: &'a BTreeMap<String, DigestRecord>,
    /// Digests of all of them, each with one of its places. A value that is moved to another Secret is not rotated.
    all: BTreeMap<&'a str, (String, &'a DigestRecord)>,
}

type Check = fn(&Checked<'_>, &Captured<'_>) -> Option<Finding>;

/// Checks in order. The first finding of a value counts.
const CHECKS: [Check; 7] =
    [is_there, is_not_empty, is_not_captured, was_captured, is_changed, is_dated, is_issued_since];

fn is_there(checked: &Checked<'_>, _: &Captured<'_>) -> Option<Finding> {
    match checked.value {
        Some(_) => None,
        None => Finding::unknown(GateReason::KeyMissing, "the Secret does not have it"),
    }
}

fn is_not_empty(checked: &Checked<'_>, _: &Captured<'_>) -> Option<Finding> {
    if checked.value?.is_empty {
        return Finding::unknown(GateReason::ValueEmpty, "the value is empty");
    }
    None
}

fn is_not_captured(checked: &Checked<'_>, captured: &Captured<'_>) -> Option<Finding> {
    let (place, record) = captured.all.get(checked.value?.digest.as_str())?;
    Finding::fail(
        GateReason::CapturedValue,
        format!("it has the value of {place} that was captured at {}", record.at),
    )
}

fn was_captured(checked: &Checked<'_>, captured: &Captured<'_>) -> Option<Finding> {
    let secret = checked.target.secret;
    let name = secret.captured_as.as_ref().unwrap_or(&secret.name);
    let record = captured.records.get(checked.target.namespace);
    let secret = record.and_then(|record| record.secrets.get(name));
    if secret.is_some_and(|keys| keys.contains_key(checked.key)) {
        return None;
    }
    let at = record.map_or_else(String::new, |record| format!(" at {}", record.at));
    Finding::unknown(
        GateReason::NothingCaptured,
        format!("nothing was captured of it{at}, so there is nothing to compare with (Secret {name})"),
    )
}

fn is_changed(checked: &Checked<'_>, _: &Captured<'_>) -> Option<Finding> {
    let Some(since) = checked.since else {
        return Finding::unknown(
            GateReason::IsolationTimeUnknown,
            "its namespace has no Quarantine with a time, or the plan's Incident cannot be read",
        );
    };
    match checked.value?.changed_at {
        None => Finding::unknown(
            GateReason::ChangeTimeUnknown,
            "the managed fields of the Secret do not say when it was changed: write it again",
        ),
        Some(at) if at <= since => Finding::fail(
            GateReason::NotChanged,
            format!("it was changed at {at} at the latest, which is not after {since}"),
        ),
        Some(_) => None,
    }
}

fn is_dated(checked: &Checked<'_>, _: &Captured<'_>) -> Option<Finding> {
    match &checked.value?.issued {
        Issued::Malformed(why) => Finding::unknown(GateReason::MalformedCredential, why.clone()),
        Issued::Undated if checked.is_certificate => {
            Finding::unknown(GateReason::MalformedCredential, "it is no certificate")
        }
        Issued::Undated | Issued::At(..) => None,
    }
}

fn is_issued_since(checked: &Checked<'_>, _: &Captured<'_>) -> Option<Finding> {
    let (Issued::At(field, at), Some(since)) = (&checked.value?.issued, checked.since) else { return None };
    if *at > since {
        return None;
    }
    Finding::fail(
        GateReason::IssuedBefore,
        format!("its {field} is {at}, which is not after {since} (some authorities date back by an hour)"),
    )
}

/// Returns the time since which a value must have been changed: the isolation of its namespace or the compromise, whichever is later.
fn since(question: &Question, namespace: &str) -> Option<Timestamp> {
    let isolated_at = question.seals.get(namespace)?.created_at?;
    Some(isolated_at.max(question.compromised_since?))
}

/// Returns the keys that are checked.
fn keys<'a>(secret: &'a RotatedSecret, facts: &'a SecretFacts) -> BTreeSet<&'a str> {
    let mut keys: BTreeSet<&str> = match &secret.keys {
        Some(keys) => keys.iter().map(String::as_str).collect(),
        None => facts.values.keys().map(String::as_str).collect(),
    };
    if facts.is_tls {
        keys.extend(TLS_KEYS);
    }
    keys
}

/// Returns the gate's answer. `secrets`: each target, with the Secret if it exists.
#[must_use]
pub fn judge(
    question: &Question,
    records: &BTreeMap<String, DigestRecord>,
    secrets: &[(Target<'_>, Option<SecretFacts>)],
) -> Answer {
    let captured = Captured { records, all: captured_values(records) };
    let mut findings: Vec<(String, Finding)> = Vec::new();
    let mut checked = Vec::new();
    for (target, facts) in secrets {
        let Target { namespace, secret } = target;
        let name = format!("Secret {namespace}/{}", secret.name);
        let Some(facts) = facts else {
            findings.extend(
                Finding::unknown(GateReason::SecretMissing, "does not exist").map(|finding| (name, finding)),
            );
            continue;
        };
        let keys = keys(secret, facts);
        if keys.is_empty() {
            findings.extend(
                Finding::unknown(GateReason::KeyMissing, "has no values").map(|finding| (name, finding)),
            );
        }
        checked.extend(keys.into_iter().map(|key| Checked {
            target: *target,
            key,
            value: facts.values.get(key),
            since: since(question, namespace),
            is_certificate: facts.is_tls && key == TLS_KEYS[0],
        }));
    }
    findings.extend(checked.iter().filter_map(|checked| {
        let finding = CHECKS.iter().find_map(|check| check(checked, &captured))?;
        Some((checked.to_string(), finding))
    }));
    let evidence = || evidence::digest(&basis(question, records, secrets));
    if let Some(answer) = worst(&findings, evidence) {
        return answer;
    }
    if checked.is_empty() {
        return Answer::unknown(GateReason::NothingFound, "the gate names no Secret");
    }
    let dated =
        checked.iter().filter(|c| c.value.is_some_and(|v| matches!(v.issued, Issued::At(..)))).count();
    let message = format!(
        "{} values of {} Secrets were changed after the isolation and are none of those captured ({dated} with a date of issue after it)",
        checked.len(),
        secrets.len()
    );
    Answer::pass(GateReason::Rotated, message, evidence())
}

fn captured_values(records: &BTreeMap<String, DigestRecord>) -> BTreeMap<&str, (String, &DigestRecord)> {
    let mut all = BTreeMap::new();
    for record in records.values() {
        for (secret, keys) in &record.secrets {
            for (key, digest) in keys {
                let place = format!("Secret {}/{secret}, key {key},", record.namespace);
                all.entry(digest.as_str()).or_insert((place, record));
            }
        }
    }
    all
}

/// Returns the evidence that the verdict is based on. It has keyed digests, and no value.
fn basis(
    question: &Question,
    records: &BTreeMap<String, DigestRecord>,
    secrets: &[(Target<'_>, Option<SecretFacts>)],
) -> Value {
    let secret = |(Target { namespace, secret }, facts): &(Target<'_>, Option<SecretFacts>)| {
        let values = |facts: &SecretFacts| {
            let value = |key: &str| {
                facts.values.get(key).map(|value| {
                    let issued = match &value.issued {
                        Issued::At(field, at) => json!({(*field): at.to_string()}),
                        Issued::Undated | Issued::Malformed(_) => Value::Null,
                    };
                    json!({
                        "digest": value.digest,
                        "changedAt": value.changed_at.map(|at| at.to_string()),
                        "issued": issued,
                    })
                })
            };
            let all = keys(secret, facts).into_iter().map(|key| (key.to_owned(), json!(value(key))));
            Value::Object(all.collect())
        };
        json!({
            "namespace": namespace,
            "name": secret.name,
            "uid": facts.as_ref().map(|facts| &facts.uid),
            "values": facts.as_ref().map(values),
            "since": since(question, namespace).map(|at| at.to_string()),
        })
    };
    let captures: Value =
        records.iter().map(|(namespace, record)| (namespace.clone(), json!(record.capture))).collect();
    json!({
        "gate": "credentialsRotated",
        "phase": question.phase.as_str(),
        "captures": captures,
        "secrets": secrets.iter().map(secret).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
