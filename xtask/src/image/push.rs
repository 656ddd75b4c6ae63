//! Pushes the image to a registry (OCI distribution). Own code, as existing crates depend on chrono, and other tools are a further
//! dependency.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::layout::{Image, MANIFEST};
use super::reference::Reference;

/// Time limit of connecting to the registry.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit of a request, including the upload of a layer.
const REQUEST: Duration = Duration::from_secs(300);

struct Registry<'a> {
    client: Client,
    to: &'a Reference,
    base: Url,
    /// User and password, base64-encoded, if a login exists.
    credentials: Option<String>,
    /// Authorization header, once the registry has requested one.
    authorization: Option<String>,
}

/// Pushes the blobs that the registry lacks, then the manifest by tag, and checks that the registry has it under its digest.
pub(crate) fn push(image: &Image, to: &Reference, plain_http: bool) -> Result<()> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that somebody else was quicker, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let client = Client::builder().connect_timeout(CONNECT).timeout(REQUEST).build()?;
    let scheme = if plain_http { "http" } else { "https" };
    let base = Url::parse(&format!("{scheme}://{}/v2/{}/", to.registry, to.repository))
        .with_context(|| format!("{} is no registry", to.registry))?;
    let mut registry =
        Registry { client, to, base, credentials: credentials(&to.registry)?, authorization: None };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        for (digest, content) in image.blobs.iter().filter(|(digest, _)| **digest != image.digest) {
            registry.blob(digest, content).await.with_context(|| format!("cannot push {digest} to {to}"))?;
        }
        registry.manifest(image).await.with_context(|| format!("cannot push the manifest to {to}"))
    })
}

impl Registry<'_> {
    async fn blob(&mut self, digest: &str, content: &[u8]) -> Result<()> {
        let there = self.base.join(&format!("blobs/{digest}"))?;
        if self.send(Method::HEAD, &there, |request| request).await?.status().is_success() {
            return Ok(());
        }
        let begun = self.send(Method::POST, &self.base.join("blobs/uploads/")?, |request| request).await?;
        let begun = accepted(begun).await?;
        let location = begun.headers().get(LOCATION).context("the registry said nowhere to upload to")?;
        // Relative or absolute, with a query of its own or without.
        let mut upload = begun.url().join(location.to_str()?)?;
        upload.query_pairs_mut().append_pair("digest", digest);
        let sent = self.send(Method::PUT, &upload, |request| {
            request.header(CONTENT_TYPE, "application/octet-stream").body(content.to_vec())
        });
        accepted(sent.await?).await.map(drop)
    }

    async fn manifest(&mut self, image: &Image) -> Result<()> {
        let content = image.blobs.get(&image.digest).context("the image has no manifest")?;
        let tag = self.base.join(&format!("manifests/{}", self.to.tag))?;
        let sent = self
            .send(Method::PUT, &tag, |request| request.header(CONTENT_TYPE, MANIFEST).body(content.clone()));
        accepted(sent.await?).await?;
        let by_digest = self.base.join(&format!("manifests/{}", image.digest))?;
        let found = self.send(Method::GET, &by_digest, |request| request.header(ACCEPT, MANIFEST)).await?;
        let found = accepted(found).await?.bytes().await?;
        ensure!(found == content.as_slice(), "the registry has something else under {}", image.digest);
        Ok(())
    }

    /// Sends a request. If the registry challenges it, authenticates and sends it again.
    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let request = |authorization: &Option<String>| {
            let request = fill(self.client.request(method.clone(), url.clone()));
            // Credentials are for the registry itself, and not for a store that it sends uploads to.
            match authorization.as_ref().filter(|_| url.host_str() == self.base.host_str()) {
                Some(value) => request.header(AUTHORIZATION, value),
                None => request,
            }
        };
        let answer = request(&self.authorization).send().await?;
        if answer.status() != StatusCode::UNAUTHORIZED || url.host_str() != self.base.host_str() {
            return Ok(answer);
        }
        let challenge =
            answer.headers().get(WWW_AUTHENTICATE).context("the registry refused, and asks for nothing")?;
        let authorization = Some(self.authorize(challenge.to_str()?).await?);
        let answer = request(&authorization).send().await?;
        self.authorization = authorization;
        Ok(answer)
    }

    /// Returns the answer to a challenge: the password, or a token obtained with it.
    async fn authorize(&self, challenge: &str) -> Result<String> {
        let basic = self.credentials.as_ref().map(|encoded| format!("Basic {encoded}"));
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return basic.with_context(|| {
                format!("{0} wants a password. Log in first, such as by `skopeo login {0}`", self.to.registry)
            });
        }
        ensure!(
            scheme.eq_ignore_ascii_case("bearer"),
            "the registry asks for {scheme}, which is not known here"
        );
        let parameter = |name: &str| {
            let (_, rest) = parameters.split_once(&format!("{name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let mut realm =
            Url::parse(&parameter("realm").context("the registry names nobody who gives tokens")?)?;
        ensure!(
            realm.scheme() == "https" || self.base.scheme() == "http",
            "the registry wants the password sent without TLS, to {realm}"
        );
        let scope = format!("repository:{}:pull,push", self.to.repository);
        let service = parameter("service").map(|service| ("service", service));
        realm.query_pairs_mut().extend_pairs(service.into_iter().chain([("scope", scope)]));
        let request = self.client.get(realm);
        let request = match basic {
            Some(basic) => request.header(AUTHORIZATION, basic),
            None => request,
        };
        let answer: Value = serde_json::from_slice(&accepted(request.send().await?).await?.bytes().await?)?;
        let token = answer["token"].as_str().or(answer["access_token"].as_str());
        Ok(format!("Bearer {}", token.context("the registry's token server gave no token")?))
    }
}

async fn accepted(answer: Response) -> Result<Response> {
    let (status, url) = (answer.status(), answer.url().clone());
    if status.is_success() {
        return Ok(answer);
    }
    let said: String = answer.text().await.unwrap_or_default().chars().take(500).collect();
    bail!("{} answered {status}: {}", url.host_str().unwrap_or_default(), said.trim())
}

/// Returns base64-encoded user and password for a registry, as `docker login`, `podman login` and `skopeo login` store them.
fn credentials(registry: &str) -> Result<Option<String>> {
    let folder =
        |name: &str, path: &str| std::env::var_os(name).map(|folder| PathBuf::from(folder).join(path));
    let files = [
        std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from),
        folder("DOCKER_CONFIG", "config.json"),
        folder("XDG_RUNTIME_DIR", "containers/auth.json"),
        folder("HOME", ".docker/config.json"),
    ];
    for file in files.into_iter().flatten().filter(|file| file.is_file()) {
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let config: Value =
            serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()))?;
        if let Some(encoded) = config["auths"][registry]["auth"].as_str() {
            return Ok(Some(encoded.to_owned()));
        }
    }
    Ok(None)
}
