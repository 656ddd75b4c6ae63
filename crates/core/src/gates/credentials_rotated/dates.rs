//! When a credential was issued: `notBefore` of an X.509 certificate, `iat` of a JWT. Nothing is verified: it is the issuer's word, and it
//! can only disprove.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Beginning of a certificate in PEM, with any label.
const PEM: &[u8] = b"-----BEGIN ";
/// Labels of certificates in PEM.
const LABELS: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
/// First byte of a certificate in DER.
const SEQUENCE: u8 = 0x30;
/// Maximum length of a JWT, in bytes.
const JWT_LIMIT: usize = 64 << 10;

/// When a credential was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issued {
    /// The value is no certificate and no JWT, or the JWT does not say.
    Undated,
    /// The field that says so, and what it says.
    At(&'static str, Timestamp),
    /// It is a certificate or JWT that cannot be read. The message has no part of the value.
    Malformed(String),
}

/// Returns when a value was issued. Of several certificates the first counts: a server's own, before those of its authorities.
#[must_use]
pub fn issued(value: &[u8]) -> Issued {
    if value.windows(PEM.len()).any(|window| window == PEM) {
        return in_pem(value);
    }
    if value.first() == Some(&SEQUENCE)
        && let Ok((_, certificate)) = X509Certificate::from_der(value)
    {
        return not_before(&certificate);
    }
    jwt(value)
}

fn in_pem(value: &[u8]) -> Issued {
    let malformed = || Issued::Malformed("it holds a certificate in PEM that cannot be read".to_owned());
    for block in Pem::iter_from_buffer(value) {
        let Ok(block) = block else {
            // A private key of another format is none of our business.
            return if names_certificate(value) { malformed() } else { Issued::Undated };
        };
        if LABELS.contains(&block.label.as_str()) {
            return match block.parse_x509() {
                Ok(certificate) => not_before(&certificate),
                Err(_) => malformed(),
            };
        }
    }
    if names_certificate(value) { malformed() } else { Issued::Undated }
}

/// Returns whether a line begins a certificate.
fn names_certificate(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    LABELS.iter().any(|label| text.contains(&format!("-----BEGIN {label}-----")))
}

fn not_before(certificate: &X509Certificate<'_>) -> Issued {
    match Timestamp::from_second(certificate.validity().not_before.timestamp()) {
        Ok(at) => Issued::At("notBefore", at),
        Err(_) => Issued::Malformed("its notBefore is out of range".to_owned()),
    }
}

/// Returns `iat` if the value is a JWT: three parts in base64, the first two of them JSON objects, and the first with `alg`.
fn jwt(value: &[u8]) -> Issued {
    let Some(text) = std::str::from_utf8(value).ok().map(str::trim).filter(|text| text.len() <= JWT_LIMIT)
    else {
        return Issued::Undated;
    };
    let parts: Vec<&str> = text.split('.').collect();
    let [header, payload, _] = parts.as_slice() else { return Issued::Undated };
    let object = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
    };
    if object(header).is_none_or(|header| header.get("alg").is_none()) {
        return Issued::Undated;
    }
    let Some(payload) = object(payload) else {
        return Issued::Malformed("it is a JWT whose payload cannot be read".to_owned());
    };
    let Some(iat) = payload.get("iat") else { return Issued::Undated };
    // Fractions of seconds are permitted, and cut.
    #[allow(clippy::cast_possible_truncation, reason = "the cast saturates, and the bounds are checked next")]
    let seconds = iat.as_i64().or_else(|| iat.as_f64().map(|seconds| seconds as i64));
    match seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        Some(at) => Issued::At("iat", at),
        None => Issued::Malformed("it is a JWT whose iat is no time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> (String, Vec<u8>) {
        let mut params = rcgen::CertificateParams::new(vec!["library.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(year, 11, 20);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    fn said(value: &[u8]) -> String {
        match issued(value) {
            Issued::Undated => "undated".to_owned(),
            Issued::At(field, at) => format!("{field} {at}"),
            Issued::Malformed(why) => why,
        }
    }

    #[test]
    fn first_certificate_says_when_it_was_issued() {
        let ((new, der), (old, _)) = (certificate(2026), certificate(2020));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let spoiled = new.replacen("MII", "AAA", 1);
        assert_ne!(spoiled, new);
        for (value, expected) in [
            (new.as_str(), "notBefore 2026-11-20T00:00:00Z"),
            (&format!("{new}{old}"), "notBefore 2026-11-20T00:00:00Z"),
            (&format!("{old}{new}"), "notBefore 2020-11-20T00:00:00Z"),
            (&format!("{key}{new}"), "notBefore 2026-11-20T00:00:00Z"),
            (&format!("Bag Attributes\n{old}"), "notBefore 2020-11-20T00:00:00Z"),
            (key, "undated"),
            (&spoiled, "it holds a certificate in PEM that cannot be read"),
            (&new[..new.len() / 2], "it holds a certificate in PEM that cannot be read"),
            (
                "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
                "it holds a certificate in PEM that cannot be read",
            ),
        ] {
            assert_eq!(said(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(said(&der), "notBefore 2026-11-20T00:00:00Z");
        assert_eq!(said(&der[..40]), "undated");
    }

    #[test]
    fn jwt_says_when_it_was_issued_and_nothing_is_verified() {
        let header = r#"{"alg":"none"}"#;
        let time = "iat 2026-11-20T00:00:00Z";
        for (value, expected) in [
            (token(header, r#"{"iat":1795132800}"#), time),
            (token(header, r#"{"iat":1795132800.75}"#) + "\n", time),
            (token(header, "{}"), "undated"),
            (token(header, r#"{"iat":"2026"}"#), "it is a JWT whose iat is no time"),
            (token(header, r#"{"iat":1e300}"#), "it is a JWT whose iat is no time"),
            (token(header, "[]"), "it is a JWT whose payload cannot be read"),
            (token("{}", r#"{"iat":1795132800}"#), "undated"),
            ("a.b.c".to_owned(), "undated"),
            (token(header, "{}") + ".more", "undated"),
            ("hunter2".to_owned(), "undated"),
            (String::new(), "undated"),
        ] {
            assert_eq!(said(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(said(&[0xff, 0xfe]), "undated");
    }

    #[test]
    fn whatever_a_value_is_it_has_a_date_or_none() {
        let (pem, der) = certificate(2026);
        let sound = [pem.into_bytes(), der, token(r#"{"alg":"none"}"#, r#"{"iat":1}"#).into_bytes()];
        bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<(u8, u16, Vec<u8>)>().for_each(
            |(which, at, bytes)| {
                let mut value = sound[usize::from(*which) % sound.len()].clone();
                let at = usize::from(*at) % value.len();
                value.splice(at..(at + bytes.len()).min(value.len()), bytes.iter().copied());
                let _ = (issued(&value), issued(bytes));
            },
        );
    }
}
