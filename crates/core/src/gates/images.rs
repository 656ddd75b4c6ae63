//! Image names: those that workloads specify, those that Pods run, and the list of approved digests.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};

/// Approved digests, each `sha256:` and 64 hexadecimal digits in lower case.
pub type Approved = BTreeSet<String>;

/// Why a list of approved digests cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum ListError {
    /// It contains an entry that is not a digest, with its position.
    Malformed(String),
    /// It is empty.
    Empty,
}

/// Returns whether the text is `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Parses the list in a gate's spec.
pub fn inline(digests: &[String]) -> Result<Approved, ListError> {
    if let Some((index, digest)) = digests.iter().enumerate().find(|(_, digest)| !is_digest(digest)) {
        return Err(ListError::Malformed(format!("approved[{index}]: '{digest}' is no sha256 digest")));
    }
    some(digests.iter().cloned().collect())
}

/// Parses the list in a ConfigMap: every value holds digests, one per line; `#` begins a comment.
pub fn from_config_map(config_map: &ConfigMap) -> Result<Approved, ListError> {
    if let Some(key) = config_map.binary_data.iter().flat_map(BTreeMap::keys).next() {
        return Err(ListError::Malformed(format!("key {key} is binary")));
    }
    let mut approved = Approved::new();
    for (key, value) in config_map.data.iter().flatten() {
        for (index, line) in value.lines().enumerate() {
            let digest = line.split('#').next().unwrap_or_default().trim();
            if digest.is_empty() {
                continue;
            }
            if !is_digest(digest) {
                let line = index + 1;
                return Err(ListError::Malformed(format!(
                    "key {key}, line {line}: '{digest}' is no sha256 digest"
                )));
            }
            approved.insert(digest.to_owned());
        }
    }
    some(approved)
}

fn some(approved: Approved) -> Result<Approved, ListError> {
    if approved.is_empty() { Err(ListError::Empty) } else { Ok(approved) }
}

/// Returns the digest that pins an image: `repository[:tag]@sha256:…`. `None`: it is named by tag only, which may change its meaning.
pub fn pinned(image: &str) -> Option<&str> {
    let (repository, digest) = image.rsplit_once('@')?;
    (!repository.is_empty() && is_digest(digest)).then_some(digest)
}

/// Returns the digest in an image ID of the runtime: `repository@sha256:…` or `sha256:…`, with or without `docker-pullable://`.
pub fn running(image_id: &str) -> Option<&str> {
    let id = image_id.split_once("://").map_or(image_id, |(_, id)| id);
    let digest = id.rsplit_once('@').map_or(id, |(_, digest)| digest);
    is_digest(digest).then_some(digest)
}

/// Returns every image in a Pod's spec, with the container that names it.
pub fn specified(spec: &PodSpec) -> Vec<(String, String)> {
    let image = |image: &Option<String>| image.clone().unwrap_or_default();
    let mut images: Vec<(String, String)> = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        images.push((format!("container {}", container.name), image(&container.image)));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        images.push((format!("container {}", container.name), image(&container.image)));
    }
    images.extend(volumes(spec));
    images
}

/// Returns every image that a Pod mounts as a volume. No status reports the digest that was mounted.
pub fn volumes(spec: &PodSpec) -> Vec<(String, String)> {
    let image = |volume: &k8s_openapi::api::core::v1::Volume| {
        let source = volume.image.as_ref()?;
        Some((format!("volume {}", volume.name), source.reference.clone().unwrap_or_default()))
    };
    spec.volumes.iter().flatten().filter_map(image).collect()
}

#[cfg(test)]
mod tests;
