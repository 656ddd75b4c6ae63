//! Records of captured values: keyed digests of the Secrets of one namespace, as one capture has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::gates::evidence::canonical_text;

/// Format of a record.
pub const FORMAT: &str = "resurgam.dev/digests/v1";
/// Beginning of the digest of a value.
pub const DIGEST_PREFIX: &str = "hmac-sha256:";
/// Hex digits of such a digest.
const DIGITS: usize = 64;

/// Digests of the values of a namespace's Secrets, from one capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestRecord {
    /// [`FORMAT`].
    pub format: String,
    /// The captured namespace.
    pub namespace: String,
    /// UID of the Quarantine.
    pub quarantine: String,
    /// Digest of the index of the capture.
    pub capture: String,
    /// Time of the capture.
    pub at: String,
    /// By name of the Secret and key.
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
}

/// A record with its MAC, as it is written.
#[derive(Serialize, Deserialize)]
struct Signed {
    #[serde(flatten)]
    record: Value,
    mac: String,
}

impl DigestRecord {
    /// Parses a record. Returns its MAC as well, which is not verified.
    ///
    /// # Errors
    /// The text is no record. The message has no part of it.
    pub fn parse(text: &str) -> Result<(Self, String), String> {
        let signed: Signed =
            serde_json::from_str(text).map_err(|_| "it is no record with a MAC".to_owned())?;
        let record: Self = serde_json::from_value(signed.record)
            .map_err(|_| "it lacks a field of a record, or has another one".to_owned())?;
        if record.format != FORMAT {
            return Err(format!("its format is not {FORMAT}"));
        }
        let is_digest = |digest: &String| {
            digest.strip_prefix(DIGEST_PREFIX).is_some_and(|digits| {
                digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        };
        if !record.secrets.values().flat_map(BTreeMap::values).all(is_digest) {
            return Err("it has a digest that is none".to_owned());
        }
        Ok((record, signed.mac))
    }

    /// Returns the text that the MAC is of: JSON without blanks and with sorted keys.
    #[must_use]
    pub fn text(&self) -> String {
        canonical_text(&json!(self))
    }

    /// Returns the record with its MAC, as [`Self::parse`] reads it.
    #[must_use]
    pub fn signed(&self, mac: String) -> String {
        canonical_text(&json!(Signed { record: json!(self), mac }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_read_as_it_was_written_and_nothing_else_is() {
        let digest = format!("{DIGEST_PREFIX}{}", "0a".repeat(32));
        let record = DigestRecord {
            format: FORMAT.to_owned(),
            namespace: "library".to_owned(),
            quarantine: "uid".to_owned(),
            capture: "sha256:00".to_owned(),
            at: "2026-11-20T00:00:00Z".to_owned(),
            secrets: [("db".to_owned(), [("password".to_owned(), digest.clone())].into())].into(),
        };
        let signed = record.signed("mac".to_owned());
        assert_eq!(DigestRecord::parse(&signed).unwrap(), (record, "mac".to_owned()));
        for (spoiled, why) in [
            (String::new(), "no record"),
            ("[]".to_owned(), "no record"),
            (signed.replace("\"mac\"", "\"key\""), "no record"),
            (signed.replace("\"at\"", "\"on\""), "lacks a field"),
            (signed.replace("\"secrets\"", "\"more\":1,\"secrets\""), "lacks a field"),
            (signed.replace("digests/v1", "digests/v2"), "format"),
            (signed.replace(&digest, "hunter2"), "a digest that is none"),
            (signed.replace("0a0a", "0x0a"), "a digest that is none"),
        ] {
            let error = DigestRecord::parse(&spoiled).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{spoiled}: {error}");
        }
    }
}
