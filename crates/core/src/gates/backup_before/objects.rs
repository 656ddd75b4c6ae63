//! Objects in a bucket: what their store states, and whether that is a recovery point from before the compromise.

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use serde_json::{Value, json};

use super::{Limit, Proof};
use crate::api::GateReason;
use crate::api::gate::{BackupObject, BackupObjects};
use crate::gates::Answer;
use crate::gates::finding::{Finding, worst};
use crate::gates::http::EndpointError;

/// Maximum length of a text from the store, in characters.
const TEXT_LIMIT: usize = 64;

/// What a store states about an object, as its answer to a HEAD request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredObject {
    /// Version, if the bucket keeps versions.
    pub version: Option<String>,
    /// When this version was written or, of an upload in parts, begun.
    pub last_modified: Option<Timestamp>,
    /// Size, in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the whole object, in hexadecimal.
    pub sha256: Option<String>,
    /// Whether the object was uploaded in parts.
    pub in_parts: bool,
    /// Until when nobody may delete or replace this version, and by which rule.
    pub retention: Option<String>,
}

impl StoredObject {
    /// Reads an answer's headers. `header` returns the value of a header by its name in lower case.
    pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |name: &str| header(name).map(|value| value.chars().take(TEXT_LIMIT).collect::<String>());
        let etag = header("etag").unwrap_or_default().trim_matches('"');
        let mode = text("x-amz-object-lock-mode").zip(text("x-amz-object-lock-retain-until-date"));
        let hold = header("x-amz-object-lock-legal-hold") == Some("ON");
        Self {
            // Of a bucket that does not keep versions, some stores say "null".
            version: header("x-amz-version-id").filter(|version| *version != "null").map(str::to_owned),
            last_modified: header("last-modified")
                .and_then(|at| rfc2822::parse(at).ok())
                .map(|at| at.timestamp()),
            size: header("content-length").and_then(|size| size.parse().ok()),
            sha256: header("x-amz-checksum-sha256").and_then(hexadecimal),
            in_parts: etag.rsplit_once('-').is_some_and(|(_, parts)| parts.parse::<u32>().is_ok()),
            retention: mode
                .map(|(mode, until)| format!("{mode} until {until}"))
                .or_else(|| hold.then(|| "legal hold".to_owned())),
        }
    }
}

/// Returns a digest in Base64 as hexadecimal. `None`: it is no SHA-256, such as a digest of the digests of parts.
fn hexadecimal(base64: &str) -> Option<String> {
    let bytes: ByteString = serde_json::from_value(Value::from(base64)).ok()?;
    (bytes.0.len() == 32).then(|| bytes.0.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns why a key cannot be asked for. `None`: it can. A path with such parts names another object once it is in a URL.
#[must_use]
pub fn key_problem(key: &str) -> Option<&'static str> {
    let mut parts = key.split('/');
    if key.is_empty() {
        Some("is empty")
    } else if parts.any(|part| matches!(part, "." | "..")) {
        Some("has a part . or .., which a URL does not keep")
    } else if key.chars().any(char::is_control) {
        Some("has a control character")
    } else {
        None
    }
}

type Check = fn(&BackupObject, &StoredObject, &Limit) -> Option<Finding>;

/// Checks in order. The first finding of an object counts.
const CHECKS: [Check; 6] = [is_version, has_size, has_digest, has_time, has_end, is_older];

pub(super) fn judge(
    asked: &BackupObjects,
    limit: &Limit,
    encrypted: bool,
    found: &[Result<StoredObject, EndpointError>],
) -> Result<Proof, Answer> {
    if asked.keys.is_empty() || asked.keys.len() != found.len() {
        return Err(Answer::unknown(GateReason::Malformed, "the gate names no object"));
    }
    let pairs = || asked.keys.iter().zip(found);
    let findings: Vec<(String, Finding)> = pairs()
        .filter_map(|(key, found)| {
            let finding = match found {
                Ok(object) => CHECKS.iter().find_map(|check| check(key, object, limit)),
                Err(error) => Finding::unknown(error.reason, error.message.clone()),
            };
            finding.map(|finding| (format!("{}/{}", asked.bucket, key.key), finding))
        })
        .collect();
    if let Some(answer) = worst(&findings, String::new) {
        return Err(answer);
    }
    let objects = pairs().filter_map(|(key, found)| found.as_ref().ok().map(|found| (key, found)));
    let newest = objects.clone().max_by_key(|(_, object)| object.last_modified);
    let Some((key, Some(at), object)) = newest.map(|(key, object)| (key, object.last_modified, object))
    else {
        return Err(Answer::unknown(GateReason::Malformed, "the gate names no object"));
    };
    let version = object.version.as_ref().map_or_else(
        || "the bucket keeps no versions".to_owned(),
        |version| format!("version {}", version.chars().take(TEXT_LIMIT).collect::<String>()),
    );
    // The store tells it only to whom it grants that.
    let locked = objects.clone().filter(|(_, object)| object.retention.is_some()).count();
    let retention = match (locked, &object.retention) {
        (0, _) => "no retention stated".to_owned(),
        (_, Some(retention)) if locked == found.len() => format!("locked, {retention}"),
        _ => format!("{locked} of {} locked", found.len()),
    };
    let message = format!(
        "{} complete, the newest, {}/{}, of {at}, older than {}; {version}; {retention}",
        if found.len() == 1 { "1 object is".to_owned() } else { format!("{} objects are", found.len()) },
        asked.bucket,
        key.key,
        limit.since,
    );
    let exception = (!encrypted).then(|| {
        format!("bucket {}: the store answered by http, which whoever is on the way can forge", asked.bucket)
    });
    Ok(Proof { message, exception })
}

/// Returns what was judged, for the evidence.
pub(super) fn facts(encrypted: bool, found: &[Result<StoredObject, EndpointError>]) -> Value {
    let fact = |found: &Result<StoredObject, EndpointError>| match found {
        Ok(object) => json!({
            "version": object.version,
            "lastModified": object.last_modified.map(|at| at.to_string()),
            "size": object.size,
            "sha256": object.sha256,
            "inParts": object.in_parts,
            "retention": object.retention,
        }),
        Err(error) => json!({"unknown": error.reason.as_str()}),
    };
    json!({"encrypted": encrypted, "objects": found.iter().map(fact).collect::<Vec<_>>()})
}

fn is_version(asked: &BackupObject, object: &StoredObject, _: &Limit) -> Option<Finding> {
    let wanted = asked.version_id.as_ref()?;
    if object.version.as_ref() == Some(wanted) {
        return None;
    }
    let got = object.version.as_deref().unwrap_or("none");
    let got: String = got.chars().take(TEXT_LIMIT).collect();
    Finding::unknown(
        GateReason::StoreError,
        format!("the store answers for version {got}, and not for {wanted}"),
    )
}

fn has_size(asked: &BackupObject, object: &StoredObject, _: &Limit) -> Option<Finding> {
    let Some(size) = object.size else {
        return Finding::unknown(GateReason::StoreError, "the store does not state its size");
    };
    if size == 0 {
        return Finding::fail(GateReason::BackupEmpty, "is empty");
    }
    let wanted = asked.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(size);
    if size == wanted {
        return None;
    }
    Finding::fail(GateReason::BackupDiffers, format!("has {size} bytes, and not {wanted}"))
}

fn has_digest(asked: &BackupObject, object: &StoredObject, _: &Limit) -> Option<Finding> {
    let wanted = asked.sha256.as_ref()?;
    match &object.sha256 {
        Some(got) if got == wanted => None,
        Some(got) => Finding::fail(GateReason::BackupDiffers, format!("has SHA-256 {got}, and not {wanted}")),
        None => Finding::unknown(
            GateReason::ChecksumUnknown,
            "the store does not state the SHA-256 of the whole object, as it was uploaded without one",
        ),
    }
}

fn has_time(_: &BackupObject, object: &StoredObject, _: &Limit) -> Option<Finding> {
    if object.last_modified.is_some() {
        return None;
    }
    Finding::unknown(GateReason::BackupTimeUnknown, "the store does not state when it was written")
}

fn has_end(_: &BackupObject, object: &StoredObject, limit: &Limit) -> Option<Finding> {
    let at = object.last_modified?;
    // One that began too late ended too late.
    if !object.in_parts || limit.older_by.is_some() || limit.exceeded_by(at).is_some() {
        return None;
    }
    Finding::unknown(
        GateReason::UploadEndUnknown,
        format!(
            "was uploaded in parts from {at} on, and the store does not state until when: the plan's author sets olderBy to the \
             longest time that an upload takes"
        ),
    )
}

fn is_older(_: &BackupObject, object: &StoredObject, limit: &Limit) -> Option<Finding> {
    Finding::fail(GateReason::BackupTooNew, limit.exceeded_by(object.last_modified?)?)
}
