//! Captures Secrets without their values: metadata and a keyed digest of each value. Without the key, readers of the evidence cannot test
//! guesses; with it, values can be compared later.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use resurgam_core::gates::credentials_rotated::record::DIGEST_PREFIX;
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};
use zeroize::{Zeroize, Zeroizing};

use super::pages::pages;
use super::store::hex;
use crate::calls::IoError;

/// Minimum length of the key, so that it cannot be guessed.
const SHORTEST: usize = 32;
/// Beginning of the MAC of a record.
const MAC_PREFIX: &str = "hmac-sha512:";
/// Annotation in which `kubectl apply` stores the whole object, including values.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The key of the digests.
#[derive(Clone)]
pub struct DigestKey(Arc<Zeroizing<Vec<u8>>>);

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey")
    }
}

impl DigestKey {
    /// Reads the key from a file, unmodified.
    ///
    /// # Errors
    /// The file cannot be read, or is too short.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Self::new(std::fs::read(path)?)
    }

    /// Creates a key from bytes.
    ///
    /// # Errors
    /// There are too few bytes.
    pub fn new(bytes: Vec<u8>) -> std::io::Result<Self> {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() < SHORTEST {
            let why = format!("a key of {} bytes is too short: at least {SHORTEST}", bytes.len());
            return Err(std::io::Error::other(why));
        }
        Ok(Self(Arc::new(bytes)))
    }

    /// Returns the digest of a value. Equal values have equal digests, so reused passwords are visible.
    pub(crate) fn digest(&self, value: &[u8]) -> Option<String> {
        // HMAC accepts keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(value);
        Some(format!("{DIGEST_PREFIX}{}", hex(&mac.finalize().into_bytes())))
    }

    /// Returns the MAC of a record of digests. It is of another function than [`Self::digest`]: readers of the evidence have the digest of
    /// whatever a tenant wrote into a Secret, and it must not authenticate a record.
    pub(crate) fn mac(&self, record: &str) -> Option<String> {
        let mut mac = Hmac::<Sha512>::new_from_slice(&self.0).ok()?;
        mac.update(record.as_bytes());
        Some(format!("{MAC_PREFIX}{}", hex(&mac.finalize().into_bytes())))
    }

    /// Returns whether a MAC is that of the record.
    pub(crate) fn is_mac_of(&self, record: &str, mac: &str) -> bool {
        let digits = mac.strip_prefix(MAC_PREFIX).and_then(unhex);
        let ours = Hmac::<Sha512>::new_from_slice(&self.0).ok();
        digits.zip(ours).is_some_and(|(digits, mut ours)| {
            ours.update(record.as_bytes());
            ours.verify_slice(&digits).is_ok()
        })
    }
}

/// Returns the bytes that hex digits stand for.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Returns the Secrets of a namespace: metadata, and a digest of each value.
pub(super) async fn list(client: &Client, namespace: &str, key: &DigestKey) -> Result<Vec<Value>, IoError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let api = &api;
    pages("secrets", |params: ListParams| async move {
        let page = api.list(&params).await?;
        let next = page.metadata.continue_.clone();
        Ok((page.items.into_iter().map(|secret| digested(secret, Some(key))).collect(), next))
    })
    .await
}

/// Returns a Secret without its values: metadata, type, and a digest of each value, or null without a key.
pub(crate) fn digested(secret: Secret, key: Option<&DigestKey>) -> Value {
    let mut object = described(secret.metadata, &digests(key, secret.data));
    if let Some(kind) = secret.type_ {
        object["type"] = json!(kind);
    }
    if secret.immutable == Some(true) {
        object["immutable"] = json!(true);
    }
    object
}

fn digests(
    key: Option<&DigestKey>,
    data: Option<BTreeMap<String, k8s_openapi::ByteString>>,
) -> BTreeMap<String, Option<String>> {
    let data = data.unwrap_or_default().into_iter();
    data.map(|(name, mut value)| {
        let digest = key.and_then(|key| key.digest(&value.0));
        value.0.zeroize();
        (name, digest)
    })
    .collect()
}

fn described(mut metadata: ObjectMeta, digests: &BTreeMap<String, Option<String>>) -> Value {
    if let Some(applied) = metadata.annotations.as_mut().and_then(|all| all.get_mut(LAST_APPLIED)) {
        applied.zeroize();
        "left out of the evidence: it holds the values".clone_into(applied);
    }
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "digests": digests})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(value: &str) -> Secret {
        serde_json::from_value(json!({
            "metadata": {"name": "password", "annotations": {
                LAST_APPLIED: "{\"data\":{\"password\":\"aHVudGVyMg==\"}}", "team": "library",
            }},
            "data": {"password": k8s_openapi::ByteString(value.into())},
        }))
        .unwrap()
    }

    #[test]
    fn digest_distinguishes_values_only_with_the_key() {
        let key = |byte| DigestKey::new(vec![byte; 32]).unwrap();
        let of = |key: &DigestKey, value| digests(Some(key), secret(value).data)["password"].clone().unwrap();
        assert_eq!(of(&key(1), "hunter2"), of(&key(1), "hunter2"));
        assert_ne!(of(&key(1), "hunter2"), of(&key(1), "hunter3"));
        assert_ne!(of(&key(1), "hunter2"), of(&key(2), "hunter2"));
        // RFC 4231, test case 2, with the key padded by zeros as HMAC does anyway.
        let mut jefe = b"Jefe".to_vec();
        jefe.resize(SHORTEST, 0);
        assert_eq!(
            DigestKey::new(jefe).unwrap().digest(b"what do ya want for nothing?").unwrap(),
            "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn mac_is_of_one_record_and_key_and_no_digest_is_one() {
        let (key, other) = (DigestKey::new(vec![1; 32]).unwrap(), DigestKey::new(vec![2; 32]).unwrap());
        let mac = key.mac("record").unwrap();
        assert!(key.is_mac_of("record", &mac));
        let digest = key.digest(b"record").unwrap();
        for (key, record, mac) in [
            (&other, "record", mac.as_str()),
            (&key, "another", mac.as_str()),
            (&key, "record", digest.as_str()),
            (&key, "record", &digest.replace("sha256", "sha512")),
            (&key, "record", &mac[..mac.len() - 2]),
            (&key, "record", "hmac-sha512:"),
            (&key, "record", "hmac-sha512:xyz"),
            (&key, "record", ""),
        ] {
            assert!(!key.is_mac_of(record, mac), "{record} {mac}");
        }
    }

    #[test]
    fn last_applied_annotation_is_dropped() {
        let secret = secret("hunter2");
        let kept = described(secret.metadata, &BTreeMap::new()).to_string();
        assert!(!kept.contains("aHVudGVyMg") && kept.contains("library"), "{kept}");
    }

    #[test]
    fn a_short_key_is_no_key_and_no_key_is_shown() {
        assert!(DigestKey::new(vec![7; 31]).unwrap_err().to_string().contains("31 bytes"));
        assert_eq!(format!("{:?}", DigestKey::new(vec![7; 32]).unwrap()), "DigestKey");
    }
}
