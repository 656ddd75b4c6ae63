//! OCI artifacts of manifests: which the operator may read, what their manifest says, and the login for their registry.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::gates::evidence::digest_of_bytes;

/// Media types of an artifact's manifest.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// Media types of a layer that is an archive: of Flux, of ORAS, and plain ones.
const ARCHIVES: [&str; 4] = [
    "application/vnd.cncf.flux.content.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/tar+gzip",
    "application/x-tar+gzip",
];
/// Media types of a layer that is a YAML file.
const TEXTS: [&str; 4] = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];
/// Media type that ORAS gives a file of which it knows nothing. Its title says what it is.
const UNTYPED: &str = "application/vnd.oci.image.layer.v1.tar";
/// Annotation of a layer with the file's name.
const TITLE: &str = "org.opencontainers.image.title";
/// Ends of the names of files that hold manifests.
const ENDS: [&str; 3] = [".yaml", ".yml", ".json"];

/// Maximum size of a manifest, in bytes.
pub const MANIFEST_LIMIT: usize = 256 << 10;
/// Maximum size of all layers together, as they are stored, in bytes.
pub const LAYERS_LIMIT: usize = 1 << 20;
/// Maximum size of all that is in an archive, in bytes.
pub const UNPACKED_LIMIT: usize = 4 << 20;
/// Maximum number of files in an artifact.
pub const FILES_LIMIT: usize = 1000;
/// Maximum number of layers.
const LAYERS: usize = 64;

/// Reference by digest: `REGISTRY/REPOSITORY@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port if there is one.
    pub registry: String,
    /// Repository.
    pub repository: String,
    /// Digest of the manifest.
    pub digest: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unnamed = || format!("'{text}' is no REGISTRY/REPOSITORY@sha256:…");
        let (name, digest) = text.split_once('@').ok_or_else(unnamed)?;
        let (registry, repository) = name.split_once('/').ok_or_else(unnamed)?;
        if !is_digest(digest) || !is_registry(registry) || !repository.split('/').all(is_part) {
            return Err(unnamed());
        }
        let [registry, repository, digest] = [registry, repository, digest].map(str::to_owned);
        Ok(Self { registry, repository, digest })
    }
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Returns whether it is a host with an optional port. One without a dot and without a port is the first part of a repository.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_host = !host.is_empty()
        && host.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.')
        && host.split('.').all(|label| !label.is_empty());
    is_host && port.map_or(host.contains('.'), |port| port.parse::<u16>().is_ok())
}

/// Returns whether it is one part of a repository's name. `..` is none.
fn is_part(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|end| end.is_some_and(is_inner))
        && text.bytes().all(|c| is_inner(c) || b"._-".contains(&c))
        && !text.contains("..")
}

/// Repositories that plans may read, in the format of `--oci-allow`: `REGISTRY/`, `REGISTRY/PREFIX/` or `REGISTRY/REPOSITORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedRepositories {
    registry: String,
    /// The repository, or what the names of all begin with, which ends with `/` or is empty.
    path: String,
    /// The registry is spoken to without TLS.
    pub is_plain: bool,
}

impl FromStr for AllowedRepositories {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, is_plain) = match text.split_once("://") {
            Some(("http", name)) => (name, true),
            Some(("https", name)) => (name, false),
            Some((scheme, _)) => return Err(format!("{scheme}:// is neither http nor https")),
            None => (text, false),
        };
        let Some((registry, path)) = name.split_once('/') else {
            return Err(format!("write {name}/ for all repositories of a registry"));
        };
        let parts = path.strip_suffix('/').unwrap_or(path);
        if !is_registry(registry) || !(path.is_empty() || parts.split('/').all(is_part)) {
            return Err("it takes REGISTRY/, REGISTRY/PREFIX/ or REGISTRY/REPOSITORY".to_owned());
        }
        Ok(Self { registry: registry.to_owned(), path: path.to_owned(), is_plain })
    }
}

impl AllowedRepositories {
    /// Returns whether a plan may read this artifact.
    #[must_use]
    pub fn includes(&self, reference: &Reference) -> bool {
        let is_within = if self.path.is_empty() || self.path.ends_with('/') {
            reference.repository.starts_with(&self.path)
        } else {
            reference.repository == self.path
        };
        self.registry == reference.registry && is_within
    }
}

/// Returns why bytes are not what their digest says.
#[must_use]
pub fn mismatch(bytes: &[u8], digest: &str) -> Option<String> {
    let found = digest_of_bytes(bytes);
    (found != digest).then(|| format!("the registry answers {digest} with content of digest {found}"))
}

/// One layer of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of its bytes.
    pub digest: String,
    /// Number of its bytes.
    pub size: usize,
    /// Name of the file. `None`: it is an archive of files.
    pub file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciManifest {
    schema_version: i64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Value>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: usize,
    #[serde(default)]
    annotations: Option<Value>,
}

/// Returns the layers that a manifest names: one archive, or YAML files.
///
/// # Errors
/// It is no manifest of an artifact, or has layers that are neither, too many, or too large ones.
pub fn layers(manifest: &[u8]) -> Result<Vec<Layer>, String> {
    let manifest: OciManifest =
        serde_json::from_slice(manifest).map_err(|_| "its manifest is no manifest of an artifact")?;
    if manifest.manifests.is_some() {
        return Err("it is an index of several artifacts: name the digest of one of them".to_owned());
    }
    let is_known = manifest.media_type.as_deref().is_none_or(|type_| MANIFEST_TYPES.contains(&type_));
    if manifest.schema_version != 2 || !is_known {
        return Err("its manifest is no manifest of an artifact".to_owned());
    }
    if manifest.layers.is_empty() || manifest.layers.len() > LAYERS {
        return Err(format!("it has {} layers: 1 to {LAYERS} are read", manifest.layers.len()));
    }
    let layers: Vec<Layer> = manifest.layers.iter().map(layer).collect::<Result<_, _>>()?;
    let size = layers.iter().fold(0_usize, |sum, layer| sum.saturating_add(layer.size));
    if size > LAYERS_LIMIT {
        return Err(format!("it has {size} bytes, and at most {LAYERS_LIMIT} are read"));
    }
    if layers.len() > 1 && layers.iter().any(|layer| layer.file.is_none()) {
        return Err(
            "it has several layers, and one is an archive: push one archive, or YAML files".to_owned()
        );
    }
    Ok(layers)
}

fn layer(of: &Descriptor) -> Result<Layer, String> {
    let Descriptor { media_type, digest, size, annotations } = of;
    if !is_digest(digest) {
        return Err("a layer has no digest of SHA-256".to_owned());
    }
    let title = annotations.as_ref().and_then(|all| all[TITLE].as_str());
    let file = if ARCHIVES.contains(&media_type.as_str()) {
        None
    } else if TEXTS.contains(&media_type.as_str())
        || (media_type == UNTYPED && title.is_some_and(is_manifest))
    {
        Some(title.unwrap_or(digest).to_owned())
    } else {
        return Err(format!(
            "its layer {} of type {media_type} is neither a tar+gzip nor a YAML file",
            title.unwrap_or(digest)
        ));
    };
    Ok(Layer { digest: digest.clone(), size: *size, file })
}

/// Returns whether a file of this name holds manifests. Others in an archive are ignored.
#[must_use]
pub fn is_manifest(path: &str) -> bool {
    ENDS.iter().any(|end| path.ends_with(end))
}

/// Returns user and password for an artifact's registry, base64-encoded, in a Secret's `.dockerconfigjson`. The longest entry that is the
/// beginning of its name counts, as for kubelets.
///
/// # Errors
/// It is malformed, has no such entry, or one without a password. With no part of it.
pub fn login(config: &[u8], reference: &Reference) -> Result<String, String> {
    let malformed = || "its .dockerconfigjson is malformed".to_owned();
    let config: Value = serde_json::from_slice(config).map_err(|_| malformed())?;
    let auths = config["auths"].as_object().ok_or_else(malformed)?;
    let name = format!("{}/{}/", reference.registry, reference.repository);
    let of = |key: &str| {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let key =
            ["/v1", "/v2"].iter().find_map(|end| key.trim_end_matches('/').strip_suffix(end)).unwrap_or(key);
        format!("{}/", key.trim_end_matches('/'))
    };
    let entries = auths.iter().map(|(key, entry)| (of(key), entry)).filter(|(key, _)| name.starts_with(key));
    let (_, entry) = entries
        .max_by_key(|(key, _)| key.len())
        .ok_or_else(|| format!("it has no login for {}", reference.registry))?;
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
    match (text("auth"), text("username"), text("password")) {
        (Some(auth), ..) if STANDARD.decode(auth).is_ok_and(|both| both.contains(&b':')) => {
            Ok(auth.to_owned())
        }
        (None, Some(user), Some(password)) => Ok(STANDARD.encode(format!("{user}:{password}"))),
        _ => Err(format!("its login for {} has no user and password", reference.registry)),
    }
}

/// Challenge of a registry, of its header `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token of somebody who issues them.
    Bearer {
        /// URL of the issuer.
        realm: String,
        /// Name of the registry for the issuer.
        service: Option<String>,
    },
}

/// Reads a challenge. `None`: it asks for what is not known here.
#[must_use]
pub fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, parameters) = header.split_once(' ').unwrap_or((header, ""));
    let parameter = |name: &str| {
        let (_, rest) = parameters.split_once(&format!("{name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service") }),
        _ => None,
    }
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
