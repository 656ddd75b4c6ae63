//! The images that Pods run, as entries for a list of approved images.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Resource;
use serde::Serialize;

use super::{NodeImages, containers, pinned, reference, running, tagged, volumes};

/// The images that some Pods run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImagesInUse {
    /// By name and digests.
    pub images: Vec<ImageInUse>,
    /// What could not be resolved, each with its culprit and what to do.
    pub unresolved: Vec<String>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageInUse {
    /// Full name `registry/repository:tag`. `None`: the specs name no tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its digests, the one that a spec pins first.
    pub digests: Vec<String>,
    /// Who runs it: `Deployment ns/name, container c`.
    pub used_by: Vec<String>,
}

impl ImageInUse {
    /// Returns the entry of a list: `NAME:TAG sha256:… [sha256:…]`.
    #[must_use]
    pub fn entry(&self) -> String {
        self.name.iter().chain(&self.digests).map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// Name and digests of an image.
type Key = (Option<String>, Vec<String>);

/// Who runs each image.
type Users = BTreeMap<Key, BTreeSet<String>>;

/// Returns the images that these Pods run, as their statuses report them.
#[must_use]
pub fn in_use(pods: &[Pod], nodes: &NodeImages) -> ImagesInUse {
    let (mut users, mut unresolved) = (Users::new(), BTreeSet::new());
    for pod in pods {
        let owner = owner(pod);
        for (place, image, image_id) in reported(pod) {
            let user = format!("{owner}, {place}");
            match resolve(pod, &place, &image, image_id.as_deref(), nodes) {
                Ok((key, doubt)) => {
                    unresolved.extend(doubt.map(|doubt| format!("{user}: {doubt}")));
                    users.entry(key).or_default().insert(user);
                }
                Err(why) => _ = unresolved.insert(format!("{user}: {why}")),
            }
        }
    }
    let mut of_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, digests) in users.keys() {
        let first = digests.first().map(String::as_str);
        of_name.entry(name.as_deref().unwrap_or_default()).or_default().extend(first);
    }
    for (name, digests) in of_name.into_iter().filter(|(name, of)| !name.is_empty() && of.len() > 1) {
        let digests = digests.into_iter().collect::<Vec<_>>().join(", ");
        unresolved.insert(format!(
            "{name} stands for more than one digest: {digests}. Keep what you can vouch for"
        ));
    }
    let image = |((name, digests), used_by): (_, BTreeSet<String>)| ImageInUse {
        name,
        digests,
        used_by: used_by.into_iter().collect(),
    };
    ImagesInUse {
        images: users.into_iter().map(image).collect(),
        unresolved: unresolved.into_iter().collect(),
    }
}

/// Returns the nodes that could tell whether a digest that runs is the image that its spec pins.
#[must_use]
pub fn nodes_in_doubt(pods: &[Pod]) -> BTreeSet<String> {
    let is_in_doubt = |pod: &&Pod| {
        reported(pod).into_iter().any(|(_, image, id)| {
            let runs = id.as_deref().and_then(running);
            runs.is_some_and(|runs| pinned(&image).is_some_and(|pinned| pinned != runs))
        })
    };
    let node = |pod: &Pod| pod.spec.as_ref()?.node_name.clone();
    pods.iter().filter(is_in_doubt).filter_map(node).collect()
}

/// Returns name and digests of one container's image, and what remains in doubt; or why there is no digest.
fn resolve(
    pod: &Pod,
    place: &str,
    image: &str,
    image_id: Option<&str>,
    nodes: &NodeImages,
) -> Result<(Key, Option<String>), String> {
    let runs = image_id.and_then(running);
    if let Some(digest) = pinned(image) {
        let name = image.split('@').next().filter(|name| reference::has_tag(name)).and_then(tagged);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let other = runs.filter(|runs| runs != digest);
        let mut digests = vec![digest.to_owned()];
        let doubt = match other {
            Some(other) if nodes.are_same(node, digest, &other) => {
                digests.push(other);
                None
            }
            Some(other) => Some(format!(
                "its spec pins {digest}, and it runs {other}. If your registry has both for this image, as its index and the \
                 manifest of a platform, add {other} to that line"
            )),
            None => None,
        };
        return Ok(((name, digests), doubt));
    }
    if place.starts_with("volume ") {
        return Err(format!(
            "'{image}' is by tag, and no node reports what a volume holds: pin it by digest"
        ));
    }
    match (runs, image_id) {
        (Some(runs), _) => Ok(((tagged(image), vec![runs]), None)),
        (None, Some(id)) if !id.is_empty() => {
            Err(format!("'{image}' runs as '{id}', which holds no sha256 digest"))
        }
        (None, _) => Err(format!("'{image}' is by tag, and no node reports a digest for it")),
    }
}

/// Returns place, image and reported image ID of every container and image volume.
fn reported(pod: &Pod) -> Vec<(String, String, Option<String>)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let status = pod.status.clone().unwrap_or_default();
    let all =
        [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
    let ids: BTreeMap<String, String> = all
        .into_iter()
        .flatten()
        .flatten()
        .map(|of: ContainerStatus| (format!("container {}", of.name), of.image_id))
        .collect();
    let containers = containers(spec).into_iter().map(|(place, image)| {
        let id = ids.get(&place).cloned();
        (place, image, id)
    });
    containers.chain(volumes(spec).into_iter().map(|(place, image)| (place, image, None))).collect()
}

/// Returns the workload of a Pod, `KIND namespace/name`. A ReplicaSet of a Deployment has the Deployment's name and the Pod's hash.
fn owner(pod: &Pod) -> String {
    let meta = pod.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let owners = meta.owner_references.iter().flatten();
    let Some(owner) = owners.clone().find(|owner| owner.controller == Some(true)) else {
        return format!("Pod {namespace}/{}", meta.name.as_deref().unwrap_or_default());
    };
    let hash =
        meta.labels.iter().flatten().find(|(key, _)| *key == "pod-template-hash").map(|(_, hash)| hash);
    let deployment = hash
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str()))
        .and_then(|name| name.strip_suffix('-'));
    match deployment {
        Some(name) => format!("Deployment {namespace}/{name}"),
        None => format!("{} {namespace}/{}", owner.kind, owner.name),
    }
}
