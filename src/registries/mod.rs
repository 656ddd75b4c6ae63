//! Reads OCI artifacts from the registries that the operator allows.
//!
//! The reference comes from the plan's author, the connection is the operator's. So only allowed repositories are read, by digest, within
//! bounds and a deadline. A registry may send a client elsewhere, to a store or to whom issues tokens: only by https, and to no address that
//! `http` gates may not reach either. No login and no part of an answer appears in a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use resurgam_core::gates::http::EndpointError;
use resurgam_core::steps::apply::oci::{
    AllowedRepositories, Challenge, LAYERS_LIMIT, Layer, MANIFEST_LIMIT, MANIFEST_TYPES, Reference,
    challenge, layers, mismatch,
};
use serde_json::Value;

use crate::api::GateReason;
use crate::gates::{AskerError, checked_client, checked_url, request_failure, unchecked_client};

mod unpack;

/// Deadline for one artifact.
const DEADLINE: Duration = Duration::from_secs(30);
/// Maximum number of redirects of one request.
const REDIRECTS: usize = 4;
/// Maximum size of an answer with a token, in bytes.
const TOKEN_LIMIT: usize = 64 << 10;

/// Why an artifact is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// It cannot be read before somebody changes something.
    #[error("{0}")]
    Refused(String),
    /// The registry does not answer now, and may do so later.
    #[error("{0}")]
    Unavailable(String),
}

fn refused(why: impl Into<String>) -> ArtifactError {
    ArtifactError::Refused(why.into())
}

/// The registries that steps may read from.
#[derive(Debug)]
pub struct Registries {
    allowed: Vec<AllowedRepositories>,
    /// For allowed registries, wherever they are.
    own: Client,
    /// For where they send a client.
    elsewhere: Client,
    http_allow: Arc<[IpNet]>,
    deadline: Duration,
}

impl Registries {
    /// Creates a reader of `allowed` repositories. `http_allow`: as for `http` gates.
    ///
    /// # Errors
    /// TLS cannot be set up, for instance because the machine has no certificate authorities.
    pub fn new(allowed: Vec<AllowedRepositories>, http_allow: Vec<IpNet>) -> Result<Self, AskerError> {
        let http_allow: Arc<[IpNet]> = http_allow.into();
        Ok(Self {
            allowed,
            own: unchecked_client()?,
            elsewhere: checked_client(&http_allow)?,
            http_allow,
            deadline: DEADLINE,
        })
    }

    /// Returns what allows an artifact.
    ///
    /// # Errors
    /// The operator does not allow it.
    pub fn allowed(&self, reference: &Reference) -> Result<&AllowedRepositories, ArtifactError> {
        let Reference { registry, repository, .. } = reference;
        self.allowed.iter().find(|allowed| allowed.includes(reference)).ok_or_else(|| {
            refused(format!(
                "the operator does not read {registry}/{repository}: who runs it allows that by --oci-allow {registry}/{repository}, or a prefix of it that ends with /"
            ))
        })
    }

    /// Returns the files with manifests in an artifact, by name. `login`: user and password, base64-encoded.
    ///
    /// # Errors
    /// [`ArtifactError`], with the registry.
    pub async fn files(
        &self,
        reference: &Reference,
        login: Option<&str>,
    ) -> Result<BTreeMap<String, String>, ArtifactError> {
        let is_plain = self.allowed(reference)?.is_plain;
        let scheme = if is_plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/{}/", reference.registry, reference.repository))
            .map_err(|error| refused(format!("{}: {error}", reference.registry)))?;
        let mut session = Session { registries: self, reference, base, login, authorization: None };
        let read = tokio::time::timeout(self.deadline, session.files()).await;
        read.unwrap_or_else(|_| {
            let why = format!("not read from {} within {} s", reference.registry, self.deadline.as_secs());
            Err(ArtifactError::Unavailable(why))
        })
    }
}

/// Requests for one artifact.
struct Session<'a> {
    registries: &'a Registries,
    reference: &'a Reference,
    /// URL of the repository.
    base: Url,
    login: Option<&'a str>,
    /// Header, once the registry has asked for it.
    authorization: Option<HeaderValue>,
}

impl Session<'_> {
    async fn files(&mut self) -> Result<BTreeMap<String, String>, ArtifactError> {
        let digest = &self.reference.digest;
        let manifest = self.get(&format!("manifests/{digest}"), digest, MANIFEST_LIMIT).await?;
        let mut files = BTreeMap::new();
        for Layer { digest, size, file } in layers(&manifest).map_err(ArtifactError::Refused)? {
            let bytes = self.get(&format!("blobs/{digest}"), &digest, size.min(LAYERS_LIMIT)).await?;
            match file {
                None => files = unpack::unpack(&bytes).map_err(ArtifactError::Refused)?,
                Some(name) => {
                    let text = String::from_utf8(bytes).map_err(|_| refused(format!("{name} is no text")))?;
                    if files.insert(name.clone(), text).is_some() {
                        return Err(refused(format!("{name} is there twice")));
                    }
                }
            }
        }
        Ok(files)
    }

    /// Returns a manifest or blob, whose digest is verified.
    async fn get(&mut self, path: &str, digest: &str, limit: usize) -> Result<Vec<u8>, ArtifactError> {
        let url = self.base.join(path).map_err(|error| refused(format!("{path}: {error}")))?;
        let answer = self.answer(url).await?;
        let bytes = self.body(answer, limit).await?;
        match mismatch(&bytes, digest) {
            Some(why) => Err(refused(why)),
            None => Ok(bytes),
        }
    }

    /// Returns the answer that holds the content, after a login and redirects.
    async fn answer(&mut self, mut url: Url) -> Result<Response, ArtifactError> {
        for _ in 0..=REDIRECTS {
            let mut answer = self.send(&url).await?;
            if answer.status() == StatusCode::UNAUTHORIZED
                && self.is_own(&url)
                && self.authorization.is_none()
            {
                self.authorization = Some(self.authorize(&answer).await?);
                answer = self.send(&url).await?;
            }
            if !answer.status().is_redirection() {
                return self.successful(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| refused(format!("{} sends nowhere that is a URL", self.host(&url))))?;
            self.may_follow(&url)?;
        }
        Err(refused(format!("{} redirects more than {REDIRECTS} times", self.reference.registry)))
    }

    /// Checks where the registry sends: to itself, or elsewhere by https.
    fn may_follow(&self, url: &Url) -> Result<(), ArtifactError> {
        if self.is_own(url) {
            return Ok(());
        }
        let registry = &self.reference.registry;
        if url.scheme() != "https" {
            return Err(refused(format!("{registry} sends to {}, which is not https", self.host(url))));
        }
        let checked = checked_url(url.as_str(), &self.registries.http_allow);
        checked.map(drop).map_err(|error| refused(format!("{registry} sends elsewhere: {}", error.message)))
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    fn host<'u>(&self, url: &'u Url) -> &'u str {
        url.host_str().unwrap_or("the registry")
    }

    fn client(&self, url: &Url) -> &Client {
        if self.is_own(url) { &self.registries.own } else { &self.registries.elsewhere }
    }

    async fn send(&self, url: &Url) -> Result<Response, ArtifactError> {
        let mut request = self.client(url).get(url.clone()).header(ACCEPT, MANIFEST_TYPES.join(", "));
        // The login is for the registry itself, and not for a store that it sends to.
        if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_own(url)) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.send().await.map_err(|error| self.failure(url, error))
    }

    /// Returns why a request failed.
    fn failure(&self, url: &Url, error: reqwest::Error) -> ArtifactError {
        let EndpointError { reason, message } = request_failure(url, &error.without_url());
        // Trying again would not help.
        match reason {
            GateReason::AddressRefused => ArtifactError::Refused(message),
            _ => ArtifactError::Unavailable(message),
        }
    }

    fn successful(&self, answer: Response) -> Result<Response, ArtifactError> {
        let registry = &self.reference.registry;
        let status = answer.status();
        let host = answer.url().host_str().unwrap_or(registry).to_owned();
        match status.as_u16() {
            200 => Ok(answer),
            401 | 403 if self.login.is_some() => {
                Err(refused(format!("{host} answers {status}: the login of pullSecret may not read it")))
            }
            401 | 403 => Err(refused(format!("{host} answers {status}: it wants a login, by pullSecret"))),
            404 => Err(refused(format!("{host} answers {status}: it is not there"))),
            408 | 429 | 500.. => Err(ArtifactError::Unavailable(format!("{host} answers {status}"))),
            _ => Err(refused(format!("{host} answers {status}"))),
        }
    }

    /// Reads an answer of up to `limit` bytes.
    async fn body(&self, mut answer: Response, limit: usize) -> Result<Vec<u8>, ArtifactError> {
        let url = answer.url().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.failure(&url, error))? {
            if bytes.len() + chunk.len() > limit {
                return Err(refused(format!("{} answers with more than {limit} bytes", self.host(&url))));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Returns the header that answers a challenge: the login, or a token obtained with it.
    async fn authorize(&self, answer: &Response) -> Result<HeaderValue, ArtifactError> {
        let registry = &self.reference.registry;
        let header = answer.headers().get(WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
        let basic = self.login.map(|login| header_value("Basic", login)).transpose()?;
        let (realm, service) = match header.and_then(challenge) {
            Some(Challenge::Basic) => {
                return basic.ok_or_else(|| refused(format!("{registry} wants a login: name a pullSecret")));
            }
            Some(Challenge::Bearer { realm, service }) => (realm, service),
            None => {
                return Err(refused(format!("{registry} wants a login of a kind that is not known here")));
            }
        };
        let mut url =
            Url::parse(&realm).map_err(|_| refused(format!("{registry} names nobody who issues tokens")))?;
        self.may_follow(&url)?;
        let scope = format!("repository:{}:pull", self.reference.repository);
        let service = service.map(|service| ("service", service));
        url.query_pairs_mut().extend_pairs(service.into_iter().chain([("scope", scope)]));
        let mut request = self.client(&url).get(url.clone());
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let answer = request.send().await.map_err(|error| self.failure(&url, error))?;
        let body = self.body(self.successful(answer)?, TOKEN_LIMIT).await?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = body["token"].as_str().or(body["access_token"].as_str());
        let token = token.ok_or_else(|| refused(format!("{} issues no token", self.host(&url))))?;
        header_value("Bearer", token)
    }
}

/// Returns a header that no log prints.
fn header_value(scheme: &str, secret: &str) -> Result<HeaderValue, ArtifactError> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {secret}"))
        .map_err(|_| refused("the login has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
