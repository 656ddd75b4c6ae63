//! DSSE envelopes: a payload with signatures over it and its type. The caller verifies signatures, as the core has no cryptography.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

/// Type of the payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.resurgam.baseline+json";
/// Maximum number of signatures.
const MAX_SIGNATURES: usize = 16;

/// A signed payload, as <https://github.com/secure-systems-lab/dsse> has it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Type of the payload.
    pub payload_type: String,
    /// The payload.
    pub payload: ByteString,
    /// Signatures over the payload and its type.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Signature {
    /// Which key may have made it. A hint: it is not signed.
    #[serde(default)]
    pub keyid: String,
    /// The signature.
    pub sig: ByteString,
}

/// Why an envelope is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It cannot be read: truncated, malformed, or of another type.
    #[error("{0}")]
    Malformed(String),
    /// Too few of the keys have signed it.
    #[error("{0}")]
    NotSigned(String),
}

impl Envelope {
    /// Returns an envelope without signatures.
    #[must_use]
    pub fn new(payload: Vec<u8>) -> Self {
        Self { payload_type: PAYLOAD_TYPE.to_owned(), payload: ByteString(payload), signatures: Vec::new() }
    }

    /// Parses an envelope. No signature is verified.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`]
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let all: Self = serde_json::from_slice(bytes)
            .map_err(|error| EnvelopeError::Malformed(format!("it is no DSSE envelope: {error}")))?;
        if all.payload_type != PAYLOAD_TYPE {
            let is = super::shortened(&all.payload_type, 64);
            return Err(EnvelopeError::Malformed(format!("its payload is '{is}', not {PAYLOAD_TYPE}")));
        }
        if all.signatures.len() > MAX_SIGNATURES {
            let count = all.signatures.len();
            let message = format!("it has {count} signatures, more than {MAX_SIGNATURES}");
            return Err(EnvelopeError::Malformed(message));
        }
        Ok(all)
    }

    /// Returns the bytes that are signed.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let (kind, payload) = (&self.payload_type, &self.payload.0);
        let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Returns the payload, if at least `wanted` different keys have signed it.
    ///
    /// # Errors
    /// [`EnvelopeError::NotSigned`]
    pub fn open<K: PartialEq>(
        &self,
        keys: &[K],
        wanted: usize,
        verifies: impl Fn(&K, &[u8], &[u8]) -> bool,
    ) -> Result<&[u8], EnvelopeError> {
        let bytes = self.signed_bytes();
        let mut distinct: Vec<&K> = Vec::new();
        keys.iter().for_each(|key| {
            if !distinct.contains(&key) {
                distinct.push(key);
            }
        });
        let has_signed =
            |key: &&&K| self.signatures.iter().any(|signature| verifies(key, &bytes, &signature.sig.0));
        let signed = distinct.iter().filter(has_signed).count();
        let wanted = wanted.max(1);
        if signed >= wanted {
            return Ok(&self.payload.0);
        }
        let made = self.signatures.len();
        let message = match (made, signed) {
            (0, _) => "it has no signature".to_owned(),
            (_, 0) => {
                format!(
                    "none of its {made} signatures verifies with one of the {} public keys",
                    distinct.len()
                )
            }
            _ => {
                format!("{signed} of the {} public keys have signed it, and {wanted} have to", distinct.len())
            }
        };
        Err(EnvelopeError::NotSigned(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for a signature: the key, and the length of what it is over.
    fn signed(payload: &str, keys: &[u8]) -> Envelope {
        let mut envelope = Envelope::new(payload.into());
        let length = envelope.signed_bytes().len();
        envelope.signatures = keys
            .iter()
            .map(|key| Signature { keyid: String::new(), sig: ByteString(format!("{key} {length}").into()) })
            .collect();
        envelope
    }

    fn verifies(key: &u8, bytes: &[u8], signature: &[u8]) -> bool {
        format!("{key} {}", bytes.len()).as_bytes() == signature
    }

    #[test]
    fn signed_bytes_are_those_of_dsse() {
        let envelope = Envelope {
            payload_type: "http://example.com/HelloWorld".into(),
            ..Envelope::new(b"hello world".to_vec())
        };
        assert_eq!(
            envelope.signed_bytes(),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world".to_vec(),
            "the protocol's own example"
        );
    }

    #[test]
    fn only_enough_signatures_of_different_keys_open_it() {
        for (by, keys, wanted, opens) in [
            (&[1][..], &[1][..], 1, true),
            (&[1], &[2, 1], 1, true),
            (&[1, 2], &[1, 2], 2, true),
            (&[], &[1], 1, false),
            (&[3], &[1, 2], 1, false),
            (&[1], &[], 1, false),
            (&[1], &[1, 2], 2, false),
            // One key counts once, however often it has signed or is listed.
            (&[1, 1], &[1, 1], 2, false),
            (&[], &[], 0, false),
        ] {
            let outcome = signed("x", by).open(keys, wanted, verifies).is_ok();
            assert_eq!(outcome, opens, "{by:?} {keys:?} {wanted}");
        }
        let mut flipped = signed("x", &[1]);
        flipped.payload.0.push(b'y');
        assert!(flipped.open(&[1], 1, verifies).is_err());
    }

    #[test]
    fn whatever_is_no_envelope_is_malformed() {
        let envelope = serde_json::to_vec(&signed("x", &[1])).unwrap();
        assert!(Envelope::parse(&envelope).is_ok());
        let other = Envelope { payload_type: "text/plain".into(), ..signed("x", &[1]) };
        let many = signed("x", &[1; MAX_SIGNATURES + 1]);
        for bytes in [
            envelope[..envelope.len() / 2].to_vec(),
            Vec::new(),
            b"{}".to_vec(),
            serde_json::to_vec(&other).unwrap(),
            serde_json::to_vec(&many).unwrap(),
        ] {
            assert!(matches!(Envelope::parse(&bytes), Err(EnvelopeError::Malformed(_))));
        }
    }
}
