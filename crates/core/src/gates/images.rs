//! Images: what workloads specify, what Pods run, and the list of approved digests.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};

/// Approved digests, each `sha256:` and 64 hexadecimal digits in lower case.
pub type Approved = BTreeSet<String>;

/// Why there is no list of approved digests.
#[derive(Debug, PartialEq, Eq)]
pub enum NoList {
    /// What is no digest, and where it stands.
    Malformed(String),
    /// It approves nothing.
    Empty,
}

/// Is it `sha256:` and 64 hexadecimal digits in lower case?
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The list a plan holds itself.
pub fn inline(digests: &[String]) -> Result<Approved, NoList> {
    if let Some((index, digest)) = digests.iter().enumerate().find(|(_, digest)| !is_digest(digest)) {
        return Err(NoList::Malformed(format!("approved[{index}]: '{digest}' is no sha256 digest")));
    }
    some(digests.iter().cloned().collect())
}

/// The list in a ConfigMap: every value holds digests, one a line; `#` begins a comment.
pub fn from_config_map(config_map: &ConfigMap) -> Result<Approved, NoList> {
    if let Some(key) = config_map.binary_data.iter().flat_map(BTreeMap::keys).next() {
        return Err(NoList::Malformed(format!("key {key} is binary")));
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
                return Err(NoList::Malformed(format!(
                    "key {key}, line {line}: '{digest}' is no sha256 digest"
                )));
            }
            approved.insert(digest.to_owned());
        }
    }
    some(approved)
}

fn some(approved: Approved) -> Result<Approved, NoList> {
    if approved.is_empty() { Err(NoList::Empty) } else { Ok(approved) }
}

/// The digest an image is pinned by: `repository[:tag]@sha256:…`. None: a tag can come to mean something else.
pub fn pinned(image: &str) -> Option<&str> {
    let (repository, digest) = image.rsplit_once('@')?;
    (!repository.is_empty() && is_digest(digest)).then_some(digest)
}

/// The digest in what a runtime says it runs: `repository@sha256:…` or `sha256:…`, perhaps after `docker-pullable://`.
pub fn running(image_id: &str) -> Option<&str> {
    let id = image_id.split_once("://").map_or(image_id, |(_, id)| id);
    let digest = id.rsplit_once('@').map_or(id, |(_, digest)| digest);
    is_digest(digest).then_some(digest)
}

/// Every image of a Pod's spec, with what in it asks for the image.
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

/// Every image that a Pod mounts as a volume. No status says by digest what was mounted.
pub fn volumes(spec: &PodSpec) -> Vec<(String, String)> {
    let image = |volume: &k8s_openapi::api::core::v1::Volume| {
        let source = volume.image.as_ref()?;
        Some((format!("volume {}", volume.name), source.reference.clone().unwrap_or_default()))
    };
    spec.volumes.iter().flatten().filter_map(image).collect()
}

#[cfg(test)]
mod tests;
