//! Image names: those that workloads specify, those that Pods run, and the list of approved images.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Volume};
use serde::Serialize;

mod in_use;
mod node_images;
mod reference;

pub use in_use::{ImageInUse, ImagesInUse, in_use, nodes_in_doubt};
pub use node_images::NodeImages;
pub use reference::{is_digest, pinned, running, tagged};

/// The approved images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Approved {
    /// Every digest of the list.
    digests: BTreeSet<String>,
    /// The digests that each tag may stand for, by the full name `registry/repository:tag`.
    tags: BTreeMap<String, BTreeSet<String>>,
    /// The first digest of each entry that names a tag, by that name. No part of a verdict.
    #[serde(skip)]
    first: BTreeMap<String, BTreeSet<String>>,
}

/// Why a list of approved images cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum ListError {
    /// It contains an invalid entry, with its position.
    Malformed(String),
    /// It is empty.
    Empty,
}

impl Approved {
    /// Returns whether the list has this digest, under whatever name.
    #[must_use]
    pub fn contains(&self, digest: &str) -> bool {
        self.digests.contains(digest)
    }

    /// Returns the digests that a tag may stand for. `None`: the list does not name the tag. `tag`: as [`tagged`] returns it.
    #[must_use]
    pub fn of_tag(&self, tag: &str) -> Option<&BTreeSet<String>> {
        self.tags.get(tag)
    }

    /// Returns the first digest of each entry that names a tag, which is what the tag is to be replaced by. More than one: entries disagree.
    #[must_use]
    pub fn first_of_tag(&self, tag: &str) -> Option<&BTreeSet<String>> {
        self.first.get(tag)
    }

    fn from_entries(entries: Vec<Entry>) -> Result<Self, ListError> {
        let mut approved = Self::default();
        // An entry without a name says which digests are one image, whatever tags stand for it.
        let mut unnamed: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            approved.digests.extend(entry.digests.iter().cloned());
            match &entry.tag {
                Some(tag) => {
                    approved.first.entry(tag.clone()).or_default().insert(entry.first.clone());
                    approved.tags.entry(tag.clone()).or_default().extend(entry.digests.iter().cloned());
                }
                None => {
                    for digest in &entry.digests {
                        unnamed.entry(digest.clone()).or_default().push(index);
                    }
                }
            }
        }
        for digests in approved.tags.values_mut() {
            let same = digests.iter().filter_map(|digest| unnamed.get(digest)).flatten();
            let same: BTreeSet<usize> = same.copied().collect();
            digests.extend(
                same.into_iter().filter_map(|index| entries.get(index)).flat_map(|e| e.digests.clone()),
            );
        }
        if approved.digests.is_empty() { Err(ListError::Empty) } else { Ok(approved) }
    }
}

/// One entry of a list: the digests of one image, and the tag that stands for it.
struct Entry {
    tag: Option<String>,
    /// The digest that was written first.
    first: String,
    digests: BTreeSet<String>,
}

impl Entry {
    /// Parses `[NAME:TAG] sha256:… [sha256:…]`, or `NAME:TAG@sha256:… [sha256:…]`. `None`: the text is blank.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let mut words = text.split_whitespace();
        let Some(first) = words.next() else { return Ok(None) };
        let (mut digests, mut written) = (BTreeSet::new(), None);
        let tag = if is_digest(first) {
            digests.insert(first.to_owned());
            written = Some(first.to_owned());
            None
        } else if first.starts_with("sha256:") {
            return Err(format!("'{first}' is no sha256 digest"));
        } else {
            let (name, digest) =
                first.split_once('@').map_or((first, None), |(name, digest)| (name, Some(digest)));
            let tag =
                tagged(name).ok_or_else(|| format!("'{name}' is neither a sha256 digest nor an image"))?;
            if let Some(digest) = digest {
                if !is_digest(digest) {
                    return Err(format!("'{digest}' is no sha256 digest"));
                }
                digests.insert(digest.to_owned());
                written = Some(digest.to_owned());
            }
            // `NAME@sha256:…` names no tag, not even `latest`.
            (digest.is_none() || reference::has_tag(name)).then_some(tag)
        };
        for word in words {
            if !is_digest(word) {
                return Err(format!("'{word}' is no sha256 digest"));
            }
            digests.insert(word.to_owned());
            written.get_or_insert_with(|| word.to_owned());
        }
        let written = written.ok_or_else(|| format!("no sha256 digest follows '{first}'"))?;
        Ok(Some(Self { tag, first: written, digests }))
    }
}

/// Parses the list in a gate's spec.
pub fn inline(approved: &[String]) -> Result<Approved, ListError> {
    let mut entries = Vec::new();
    for (index, text) in approved.iter().enumerate() {
        let entry = Entry::parse(text)
            .and_then(|entry| entry.ok_or_else(|| "it is blank".to_owned()))
            .map_err(|why| ListError::Malformed(format!("approved[{index}]: {why}")))?;
        entries.push(entry);
    }
    Approved::from_entries(entries)
}

/// Parses the list in a ConfigMap: every value holds entries, one per line; `#` begins a comment.
pub fn from_config_map(config_map: &ConfigMap) -> Result<Approved, ListError> {
    if let Some(key) = config_map.binary_data.iter().flat_map(BTreeMap::keys).next() {
        return Err(ListError::Malformed(format!("key {key} is binary")));
    }
    let mut entries = Vec::new();
    for (key, value) in config_map.data.iter().flatten() {
        for (index, line) in value.lines().enumerate() {
            let text = line.split('#').next().unwrap_or_default();
            let entry = Entry::parse(text).map_err(|why| {
                let line = index + 1;
                ListError::Malformed(format!("key {key}, line {line}: {why}"))
            })?;
            entries.extend(entry);
        }
    }
    Approved::from_entries(entries)
}

/// Returns every image in a Pod's spec, with the container that names it.
pub fn specified(spec: &PodSpec) -> Vec<(String, String)> {
    let mut images = containers(spec);
    images.extend(volumes(spec));
    images
}

/// Returns the image of every container in a Pod's spec, with `container NAME`.
pub fn containers(spec: &PodSpec) -> Vec<(String, String)> {
    let image = |image: &Option<String>| image.clone().unwrap_or_default();
    let mut images: Vec<(String, String)> = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        images.push((format!("container {}", container.name), image(&container.image)));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        images.push((format!("container {}", container.name), image(&container.image)));
    }
    images
}

/// Returns every image that a Pod mounts as a volume. No status reports the digest that was mounted.
pub fn volumes(spec: &PodSpec) -> Vec<(String, String)> {
    let image = |volume: &Volume| {
        let source = volume.image.as_ref()?;
        Some((format!("volume {}", volume.name), source.reference.clone().unwrap_or_default()))
    };
    spec.volumes.iter().flatten().filter_map(image).collect()
}

#[cfg(test)]
mod tests;
