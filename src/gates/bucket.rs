//! Asks an S3 store about an object by a HEAD request. `object_store` signs it; the client of `http` gates sends it, so that the same
//! addresses are refused, no redirect is followed, and headers that `object_store` does not return are read.

use std::fmt;

use futures::{StreamExt, stream};
use http::{Method, Request};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use resurgam_core::gates::backup_before::{StoredObject, key_problem};
use resurgam_core::gates::http::EndpointError;

use super::http::{Prober, endpoint_error};
use crate::api::GateReason;
use crate::api::gate::{BackupObject, BackupObjects};

/// Region that requests are signed for unless the plan names one.
const DEFAULT_REGION: &str = "us-east-1";
/// Objects that one evaluation asks about at a time.
const AT_ONCE: usize = 4;

/// Credentials of a store.
pub(super) struct Credentials {
    /// Access key ID.
    pub(super) id: String,
    /// Secret access key.
    pub(super) key: String,
    /// Session token of temporary credentials.
    pub(super) token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Returns whether all values can stand in a header.
    pub(super) fn is_well_formed(&self) -> bool {
        let is_printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_printable(&self.id) && is_printable(&self.key) && self.token.as_deref().is_none_or(is_printable)
    }
}

/// A store, and on whose behalf it is asked.
pub(super) struct Store<'a> {
    prober: &'a Prober,
    endpoint: Url,
    bucket: &'a str,
    region: &'a str,
    credentials: Option<&'a Credentials>,
}

impl<'a> Store<'a> {
    /// Returns the store that a plan names. Sends no request.
    ///
    /// # Errors
    /// The endpoint is not a URL, or gates may not connect to its address.
    pub(super) fn new(
        prober: &'a Prober,
        spec: &'a BackupObjects,
        credentials: Option<&'a Credentials>,
    ) -> Result<Self, EndpointError> {
        let region = spec.region.as_deref().unwrap_or(DEFAULT_REGION);
        let url = spec.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = prober.checked(&url)?;
        if endpoint.path() != "/" || endpoint.query().is_some() || endpoint.fragment().is_some() {
            let message =
                "the endpoint has a path or a query: it is a scheme, a host and, optionally, a port";
            return Err(endpoint_error(GateReason::MalformedUrl, message));
        }
        Ok(Self { prober, endpoint, bucket: &spec.bucket, region, credentials })
    }

    /// Returns whether the store is asked by TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.endpoint.scheme() == "https"
    }

    /// Returns what the store states about each object, in order.
    pub(super) async fn head_all(&self, keys: &[BackupObject]) -> Vec<Result<StoredObject, EndpointError>> {
        let asked: Vec<_> = keys.iter().map(|key| self.head(key)).collect();
        stream::iter(asked).buffered(AT_ONCE).collect().await
    }

    async fn head(&self, object: &BackupObject) -> Result<StoredObject, EndpointError> {
        let url = self.url(object)?;
        let headers = self.signed(&url, object.sha256.is_some())?;
        let (status, answer) = self.prober.head(&url, headers).await?;
        let header = |name: &str| answer.get(name).and_then(|value| value.to_str().ok());
        if status == 200 {
            return Ok(StoredObject::from_headers(header));
        }
        Err(self.refusal(status, header))
    }

    /// Returns the URL of an object, in path style: it works with every store, and with dots in a bucket's name.
    fn url(&self, object: &BackupObject) -> Result<Url, EndpointError> {
        if let Some(why) = key_problem(&object.key) {
            return Err(endpoint_error(GateReason::Malformed, format!("the key {why}")));
        }
        let mut url = self.endpoint.clone();
        url.set_path(&format!("/{}/{}", self.bucket, encoded(&object.key)));
        if let Some(version) = &object.version_id {
            url.set_query(Some(&format!("versionId={}", encoded(version))));
        }
        Ok(url)
    }

    /// Returns the headers of a request. Without credentials it is anonymous.
    fn signed(&self, url: &Url, with_checksum: bool) -> Result<HeaderMap, EndpointError> {
        let malformed = |why: String| endpoint_error(GateReason::Malformed, why);
        let mut request = Request::builder()
            .method(Method::HEAD)
            .uri(url.as_str())
            .body(HttpRequestBody::empty())
            .map_err(|error| {
                malformed(format!("no request can be made of endpoint, bucket and key: {error}"))
            })?;
        if with_checksum {
            request.headers_mut().insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
        }
        if let Some(Credentials { id, key, token }) = self.credentials {
            let credential =
                AwsCredential { key_id: id.clone(), secret_key: key.clone(), token: token.clone() };
            let authorizer = AwsAuthorizer::new(&credential, "s3", self.region);
            // The error is of the provider of cryptography, and holds nothing of the credentials.
            authorizer
                .try_authorize(&mut request, None)
                .map_err(|error| malformed(format!("the request cannot be signed: {error}")))?;
        }
        Ok(request.into_parts().0.headers)
    }

    /// Returns why the store states nothing.
    fn refusal<'h>(&self, status: u16, header: impl Fn(&str) -> Option<&'h str>) -> EndpointError {
        let host = self.endpoint.host_str().unwrap_or_default();
        let is_deleted = header("x-amz-delete-marker") == Some("true");
        let (reason, why) = match status {
            404 | 405 if is_deleted => (
                GateReason::BackupMissing,
                "it was deleted: name the versionId of a version that is left".to_owned(),
            ),
            404 => (GateReason::BackupMissing, "there is no such object, version or bucket (404)".to_owned()),
            401 | 403 => {
                let whose = match self.credentials {
                    Some(_) => "the Secret's credentials are wrong or may not read it",
                    None => "it cannot be read without credentials",
                };
                let or = "or it does not exist and the bucket may not be listed";
                (GateReason::StoreRefused, format!("{whose}, {or} ({status})"))
            }
            300..=400 => {
                let region = header("x-amz-bucket-region").map_or_else(String::new, |region| {
                    format!(", which is {}", region.chars().take(63).collect::<String>())
                });
                let why = format!("the request is not for this endpoint or region{region} ({status})");
                (GateReason::StoreError, why)
            }
            _ => (GateReason::StoreError, format!("the store answers with status {status}")),
        };
        endpoint_error(reason, format!("{host}: {why}"))
    }
}

/// Returns the text as it stands in a signed URL: everything but unreserved characters and `/` as bytes.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(endpoint: &str) -> BackupObjects {
        BackupObjects {
            bucket: "council".into(),
            endpoint: Some(endpoint.into()),
            ..BackupObjects::default()
        }
    }

    #[test]
    fn key_is_kept_in_the_url_as_it_is() {
        let prober = Prober::new(Vec::new()).unwrap();
        let spec = spec("https://s3.example:9000");
        let store = Store::new(&prober, &spec, None).unwrap();
        for (key, version, url) in [
            ("a/base.tar", None, "https://s3.example:9000/council/a/base.tar"),
            ("a b+ü?#%2e&", None, "https://s3.example:9000/council/a%20b%2B%C3%BC%3F%23%252e%26"),
            ("/a//b", Some("v.1~"), "https://s3.example:9000/council//a//b?versionId=v.1~"),
        ] {
            let object = BackupObject {
                key: key.into(),
                version_id: version.map(str::to_owned),
                ..BackupObject::default()
            };
            assert_eq!(store.url(&object).unwrap().as_str(), url);
        }
        let above = BackupObject { key: "../other/secret".into(), ..BackupObject::default() };
        assert_eq!(store.url(&above).unwrap_err().reason, GateReason::Malformed);
    }

    #[test]
    fn endpoint_is_bound_by_the_rules_of_http_gates() {
        let prober = Prober::new(Vec::new()).unwrap();
        for (endpoint, reason) in [
            ("http://127.0.0.1:9000", GateReason::AddressRefused),
            ("https://169.254.169.254", GateReason::AddressRefused),
            ("https://user:password@s3.example", GateReason::CredentialsInUrl),
            ("ftp://s3.example", GateReason::MalformedUrl),
            ("https://s3.example/path", GateReason::MalformedUrl),
            ("https://s3.example?x", GateReason::MalformedUrl),
            ("nowhere", GateReason::MalformedUrl),
        ] {
            let spec = spec(endpoint);
            let Err(error) = Store::new(&prober, &spec, None) else { panic!("{endpoint} is accepted") };
            assert_eq!(error.reason, reason, "{endpoint}: {}", error.message);
            assert!(!error.message.contains("password"), "{}", error.message);
        }
    }

    #[test]
    fn credentials_are_in_the_signature_only() {
        let prober = Prober::new(Vec::new()).unwrap();
        let spec = spec("https://s3.example");
        let credentials =
            Credentials { id: "access".into(), key: "canary-key".into(), token: Some("canary-token".into()) };
        assert!(credentials.is_well_formed());
        assert_eq!(format!("{credentials:?}"), "Credentials");
        let store = Store::new(&prober, &spec, Some(&credentials)).unwrap();
        let url = store.url(&BackupObject { key: "db".into(), ..BackupObject::default() }).unwrap();
        let headers = store.signed(&url, true).unwrap();
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=access/"), "{authorization}");
        assert!(authorization.contains("x-amz-checksum-mode"), "{authorization}");
        assert!(!format!("{headers:?}").contains("canary-key"));
        for malformed in ["", "a b", "a\nb", "ü"] {
            let other = Credentials { id: malformed.into(), key: "k".into(), token: None };
            assert!(!other.is_well_formed(), "{malformed:?}");
        }
    }
}
