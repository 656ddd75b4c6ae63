//! Keys that sign baselines: ed25519, and ECDSA on P-256 with SHA-256, as PEM.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What the encoding of each kind of public key begins with. The key follows.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Bytes of a line of PEM.
const LINE: usize = 64;

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no public key that is supported.
    #[error("it is no public key of ed25519 or ECDSA P-256 in PEM (BEGIN PUBLIC KEY)")]
    Public,
    /// It is no private key that is supported.
    #[error(
        "it is no private key of ed25519 or ECDSA P-256 in PEM (BEGIN PRIVATE KEY): openssl pkcs8 -topk8 -nocrypt converts others"
    )]
    Private,
    /// No signature or key could be made.
    #[error("there is no random number generator")]
    Random,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    point: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
}

impl PublicKey {
    /// Parses the first public key of a PEM text.
    ///
    /// # Errors
    /// [`KeyError::Public`]
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Public)?;
        let key = |kind, prefix: &[u8], length: usize| {
            let point = der.as_ref().strip_prefix(prefix).filter(|point| point.len() == length)?;
            Some(Self { kind, point: point.to_vec() })
        };
        key(Kind::Ed25519, &ED25519_PREFIX, 32)
            .or_else(|| key(Kind::P256, &P256_PREFIX, 65))
            .ok_or(KeyError::Public)
    }

    /// Returns whether the signature over these bytes is of this key.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match self.kind {
            Kind::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.point).verify(bytes, signature).is_ok(),
            Kind::P256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(bytes, signature).is_ok()
            }
        }
    }

    fn der(&self) -> Vec<u8> {
        let prefix = match self.kind {
            Kind::Ed25519 => &ED25519_PREFIX[..],
            Kind::P256 => &P256_PREFIX[..],
        };
        [prefix, &self.point].concat()
    }

    /// Returns the name of the key in signatures: the digest of its encoding.
    #[must_use]
    pub fn id(&self) -> String {
        let hex: String = Sha256::digest(self.der()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }

    /// Returns the key as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }
}

/// A private key.
pub struct SigningKey(Pair);

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Parses the first private key of a PEM text.
    ///
    /// # Errors
    /// [`KeyError::Private`]
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Private)?;
        let der = der.secret_pkcs8_der();
        let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Pair::Ed25519);
        let random = SystemRandom::new();
        let p256 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).map(Pair::P256);
        ed25519.or_else(|_| p256()).map(Self).map_err(|_| KeyError::Private)
    }

    /// Creates an ed25519 key. Returns it as PEM.
    ///
    /// # Errors
    /// [`KeyError::Random`]
    pub fn generate() -> Result<Zeroizing<String>, KeyError> {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ok(Zeroizing::new(pem("PRIVATE KEY", der.as_ref())))
    }

    /// Returns the public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        match &self.0 {
            Pair::Ed25519(pair) => {
                PublicKey { kind: Kind::Ed25519, point: pair.public_key().as_ref().to_vec() }
            }
            Pair::P256(pair) => PublicKey { kind: Kind::P256, point: pair.public_key().as_ref().to_vec() },
        }
    }

    /// Signs these bytes.
    ///
    /// # Errors
    /// [`KeyError::Random`]
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0 {
            Pair::Ed25519(pair) => Ok(pair.sign(bytes).as_ref().to_vec()),
            Pair::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), bytes).map_err(|_| KeyError::Random)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

/// Returns bytes as a PEM text.
fn pem(label: &str, der: &[u8]) -> String {
    // Serialises as base64.
    let text = serde_json::to_value(k8s_openapi::ByteString(der.to_vec())).unwrap_or_default();
    let text = text.as_str().unwrap_or_default();
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem += &String::from_utf8_lossy(line);
        pem += "\n";
    }
    pem + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519`, and its public half by `openssl pkey -pubout`. They sign nothing but tests.
    const OPENSSL: [(&str, &str); 2] = [
        (
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIH59lekU+YT69wglC82jx6cyT0vmIRBWr++5YZ0lhrbJ\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAIdArXq9LUyCLsruAbF33GYJ15lGDPSuTgtylqsklEzs=\n-----END PUBLIC KEY-----\n",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgmcy1RAxPHic2RbCF\ndXpuG+dMBE7OjX6+FqUfZ0VBn1mhRANCAARc8gtgCCz7/jp8ckBdF3/BcciB1WMP\n7ErhSf/8d2ciQA/cWvpLBwWFulW8XL6cf5Gz6X80GxI1IjlMiD5IO9bK\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXPILYAgs+/46fHJAXRd/wXHIgdVj\nD+xK4Un//HdnIkAP3Fr6SwcFhbpVvFy+nH+Rs+l/NBsSNSI5TIg+SDvWyg==\n-----END PUBLIC KEY-----\n",
        ),
    ];

    #[test]
    fn keys_of_openssl_sign_and_verify() {
        for (private, public) in OPENSSL {
            let key = SigningKey::from_pem(private).unwrap();
            let public = PublicKey::from_pem(public).unwrap();
            assert_eq!(key.public(), public);
            let signature = key.sign(b"text").unwrap();
            assert!(public.verifies(b"text", &signature));
            assert!(!public.verifies(b"test", &signature) && !public.verifies(b"text", &signature[1..]));
            assert_eq!(PublicKey::from_pem(&public.to_pem()), Ok(public));
        }
    }

    #[test]
    fn a_generated_key_is_read_back_and_is_another_each_time() {
        let generate = || SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap().public();
        let (one, other) = (generate(), generate());
        assert_ne!(one.id(), other.id());
        assert!(!one.verifies(b"", b""));
    }

    #[test]
    fn whatever_is_no_key_is_refused() {
        let (private, public) = OPENSSL[0];
        for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", private] {
            assert_eq!(PublicKey::from_pem(text), Err(KeyError::Public));
        }
        for text in ["", public] {
            assert_eq!(SigningKey::from_pem(text).unwrap_err(), KeyError::Private);
        }
        assert!(!format!("{:?}", SigningKey::from_pem(private).unwrap()).contains("sign("));
    }
}
