//! Step `apply`: the manifests that it applies, what it refuses to apply, and whose fields stand in the way.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::core::{DynamicObject, GroupVersionKind, Status};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{StepContext, StepProblem, listed};
use crate::api::step::ApplySpec;
use crate::api::{GROUP, field_manager};
use crate::engine::StepProgress;
use crate::gates::evidence::digest_of_bytes;
use oci::Reference;

pub mod oci;

/// Maximum size of all manifests together, in bytes.
pub const BYTES_LIMIT: usize = 1 << 20;
/// Maximum number of objects.
pub const OBJECTS_LIMIT: usize = 200;
/// Maximum number of objects in a message.
const NAMED: usize = 5;
/// Maximum number of conflicts in a message.
const CONFLICTS: usize = 3;
/// Reason of a cause in the API server's answer, for each field that another manager owns.
const CONFLICT_CAUSE: &str = "FieldManagerConflict";
/// Group of the files that kustomize reads.
const KUSTOMIZE: &str = "kustomize.config.k8s.io";
/// Begins the API server's answer to a manifest that does not fit the schema of its kind.
const MALFORMED: &str = "failed to create typed patch object";

/// One object to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub kind: GroupVersionKind,
    /// Its namespace, one of the service's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The object as it is applied, with its namespace.
    pub body: Value,
}

impl Manifest {
    /// Returns kind, namespace and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind.kind, self.namespace, self.name)
    }
}

/// All objects of a step, in the order in which they are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifests {
    /// The objects.
    pub objects: Vec<Manifest>,
    /// Digest of their text, or of the artifact.
    pub digest: String,
    /// Where they come from.
    pub source: Source,
}

/// Where manifests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// ConfigMaps of the plan's namespace.
    ConfigMaps,
    /// An OCI artifact.
    Artifact,
}

/// Returns why the step can never apply anything.
pub(super) fn problem(spec: &ApplySpec, namespaces: &[String]) -> Option<String> {
    if namespaces.is_empty() {
        return Some("applies manifests, and its service has no namespace".to_owned());
    }
    spec.oci.as_ref().and_then(|artifact| artifact.reference.parse::<Reference>().err())
}

/// Returns the field manager of a step. Each attempt has the same, so that a later one may change what an earlier one applied.
#[must_use]
pub fn manager(context: &StepContext) -> String {
    let StepContext { plan_namespace, plan, service, step, .. } = context;
    let digest = Sha256::digest(format!("{plan_namespace}/{plan}/{service}/{step}"));
    let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{step}-{digits}", field_manager::APPLY_PREFIX)
}

/// Reads manifests one text after the other.
struct Reader<'a> {
    context: &'a StepContext,
    /// All texts with their names, of which the digest is.
    text: String,
    objects: Vec<Manifest>,
}

impl<'a> Reader<'a> {
    fn new(context: &'a StepContext) -> Self {
        Self { context, text: String::new(), objects: Vec::new() }
    }

    /// Reads one text. `title`: what holds it, and `what` with `name`: which part of that it is.
    fn read(&mut self, title: &str, what: &str, name: &str, value: &str) -> Result<(), StepProblem> {
        let unusable = |message: String| Err(StepProblem::Unusable(message));
        self.text.push_str(&format!("{name} {}\n{value}\n", value.len()));
        if self.text.len() > BYTES_LIMIT {
            return unusable(format!("{title}: the manifests have more than {BYTES_LIMIT} bytes"));
        }
        for document in serde_yaml::Deserializer::from_str(value) {
            let place = format!("{title}, {what} {name}, object {}", self.objects.len() + 1);
            // The parser's own message may quote the text.
            let Ok(body) = Value::deserialize(document) else {
                return unusable(format!("{place} is no YAML"));
            };
            if body.is_null() {
                continue;
            }
            if self.objects.len() >= OBJECTS_LIMIT {
                return unusable(format!("{title}: there are more than {OBJECTS_LIMIT} objects"));
            }
            let manifest = manifest(body, &self.context.namespaces)
                .map_err(|why| StepProblem::Unusable(format!("{place}: {why}")))?;
            let is_same = |other: &Manifest| {
                let kinds =
                    (&other.kind.group, &other.kind.kind) == (&manifest.kind.group, &manifest.kind.kind);
                kinds && (&other.namespace, &other.name) == (&manifest.namespace, &manifest.name)
            };
            if self.objects.iter().any(is_same) {
                return unusable(format!("{place}: {} is there twice", manifest.title()));
            }
            self.objects.push(manifest);
        }
        Ok(())
    }
}

/// Returns the objects in the step's ConfigMaps. `maps`: each that the spec names, if it exists.
///
/// # Errors
/// A ConfigMap is missing, a manifest is malformed or is not the step's to apply, there are too many, or their digest is another one.
pub fn manifests(
    spec: &ApplySpec,
    context: &StepContext,
    maps: &[Option<ConfigMap>],
) -> Result<Manifests, StepProblem> {
    let unusable = |message: String| Err(StepProblem::Unusable(message));
    let mut reader = Reader::new(context);
    for (named, map) in spec.config_maps.iter().zip(maps) {
        let title = format!("ConfigMap {}/{}", context.plan_namespace, named.name);
        let Some(map) = map else { return unusable(format!("{title} does not exist")) };
        if let Some(key) = map.binary_data.iter().flat_map(BTreeMap::keys).next() {
            return unusable(format!("{title}: key {key} is binary"));
        }
        for (key, value) in map.data.iter().flatten() {
            reader.read(&title, "key", key, value)?;
        }
    }
    let Reader { objects, text, .. } = reader;
    if maps.len() != spec.config_maps.len() || objects.is_empty() {
        let names: Vec<String> = spec.config_maps.iter().map(|map| map.name.clone()).collect();
        return unusable(format!(
            "ConfigMaps {} in namespace {} hold no manifest",
            listed(&names, NAMED),
            context.plan_namespace
        ));
    }
    let digest = digest_of_bytes(text.as_bytes());
    match &spec.digest {
        Some(approved) if *approved != digest => {
            unusable(format!("the manifests have digest {digest}, and the plan approves {approved}"))
        }
        _ => Ok(Manifests { objects, digest, source: Source::ConfigMaps }),
    }
}

/// Returns the objects in an artifact, in the order of its files' names. `files`: their text by name.
///
/// # Errors
/// A manifest is malformed or is not the step's to apply, there are too many, or none.
pub fn artifact_manifests(
    reference: &Reference,
    context: &StepContext,
    files: &BTreeMap<String, String>,
) -> Result<Manifests, StepProblem> {
    let title = format!("artifact {}/{}", reference.registry, reference.repository);
    let mut reader = Reader::new(context);
    for (name, text) in files {
        reader.read(&title, "file", name, text)?;
    }
    if reader.objects.is_empty() {
        return Err(StepProblem::Unusable(format!(
            "{title} holds no manifest: no file *.yaml, *.yml, *.json"
        )));
    }
    Ok(Manifests { objects: reader.objects, digest: reference.digest.clone(), source: Source::Artifact })
}

/// Returns one object, or why it is not the step's to apply.
fn manifest(mut body: Value, namespaces: &[String]) -> Result<Manifest, String> {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let api_version = text("/apiVersion").ok_or("it has no apiVersion")?;
    let kind = text("/kind").ok_or("it has no kind")?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = GroupVersionKind::gvk(group, version, &kind);
    let name = text("/metadata/name").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("{} has no metadata.name", kind.kind))?;
    let paths = [&kind.group, &kind.version, &name];
    if paths.iter().any(|part| part.contains(['/', '?', '#', '%']) || *part == "." || *part == "..") {
        return Err(format!("'{}' is no name of a {} in {api_version}", name, kind.kind));
    }
    let title = format!("{} {name}", kind.kind);
    if kind.group.is_empty() && kind.kind == "Namespace" || kind.group == GROUP {
        return Err(format!("{title}: a step changes no {}", kind.kind));
    }
    if kind.group.is_empty() && kind.kind == "Secret" {
        return Err(format!(
            "{title}: who may read the manifests would read this Secret: have it created by a step `job`, or by an operator of secrets"
        ));
    }
    if kind.group == KUSTOMIZE {
        return Err(format!("{title} is for kustomize: write what `kustomize build` makes of it"));
    }
    if body.get("items").is_some() && kind.kind.ends_with("List") {
        return Err(format!("{title}: write each object of the list as a document of its own"));
    }
    let namespace = match (text("/metadata/namespace"), namespaces) {
        (Some(named), _) if namespaces.contains(&named) => named,
        (Some(named), _) => {
            return Err(format!("{title} is for namespace {named}, which is none of the service's"));
        }
        (None, [only]) => only.clone(),
        (None, all) => return Err(format!("{title} must name its namespace: one of {}", all.join(", "))),
    };
    let metadata = body.pointer_mut("/metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or_else(|| format!("{title} has no metadata"))?;
    metadata.insert("namespace".to_owned(), Value::from(namespace.clone()));
    for field in ["managedFields", "resourceVersion", "uid"] {
        if metadata.contains_key(field) {
            return Err(format!(
                "{title} has metadata.{field}: it is an object of a cluster, not a manifest"
            ));
        }
    }
    Ok(Manifest { kind, namespace, name, body })
}

/// Answer of the API server to an apply that meets fields of other managers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// All the fields are this program's: what isolation stopped, or what an earlier step wrote. The step may take them.
    Own,
    /// Somebody else owns at least one, as the message says.
    Others(String),
}

/// Reads the conflicts in an answer. `None`: it is none about field managers.
#[must_use]
pub fn conflict(title: &str, status: &Status) -> Option<Conflict> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<_> = causes.filter(|cause| cause.reason == CONFLICT_CAUSE).collect();
    let others: Vec<String> = causes
        .iter()
        .filter_map(|cause| {
            let manager = manager_in(&cause.message);
            let is_own = [field_manager::ISOLATION, field_manager::STEP].map(Some).contains(&manager);
            (!is_own)
                .then(|| format!("{} belongs to '{}'", cause.field, manager.unwrap_or("a manager unknown")))
        })
        .collect();
    match (causes.is_empty(), others.is_empty()) {
        (true, _) => None,
        (false, true) => Some(Conflict::Own),
        (false, false) => Some(Conflict::Others(format!(
            "{title}: {}: take the field out of the manifest, or have its manager give it up",
            listed(&others, CONFLICTS)
        ))),
    }
}

/// Returns whether a manifest has a field that its kind does not have, or a value of another type. The API server calls it an internal
/// error, which trying again would not mend.
#[must_use]
pub fn is_malformed(status: &Status) -> bool {
    status.code == 500 && status.message.starts_with(MALFORMED)
}

/// Returns the field manager that `conflict with "NAME" using …` names.
fn manager_in(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('"')?;
    rest.split_once('"').map(|(name, _)| name)
}

/// Returns the step's message once all is applied.
#[must_use]
pub fn applied(manifests: &Manifests) -> String {
    let names: Vec<String> = manifests.objects.iter().map(Manifest::title).collect();
    let plural = if names.len() == 1 { "object" } else { "objects" };
    let what = match manifests.source {
        Source::ConfigMaps => "manifests",
        Source::Artifact => "artifact",
    };
    format!("{} {plural} applied, {what} {}: {}", names.len(), manifests.digest, listed(&names, NAMED))
}

/// Returns the progress by what is there of each object.
#[must_use]
pub fn judge(manifests: &Manifests, found: &[Option<DynamicObject>], context: &StepContext) -> StepProgress {
    let manager = manager(context);
    let is_applied = |object: &DynamicObject| {
        let mut managers = object.managed_fields().iter();
        managers.any(|entry| {
            entry.manager.as_ref() == Some(&manager) && entry.operation.as_deref() == Some("Apply")
        })
    };
    let pairs = manifests.objects.iter().zip(found.iter().chain(std::iter::repeat(&None)));
    let lost: Vec<String> = pairs
        .filter_map(|(manifest, object)| match object {
            None => Some(format!("{} does not exist", manifest.title())),
            Some(object) if !is_applied(object) => {
                Some(format!("{} has no field of manager {manager}", manifest.title()))
            }
            Some(_) => None,
        })
        .collect();
    if lost.is_empty() {
        return StepProgress::Succeeded;
    }
    StepProgress::Failed(format!(
        "undone after it was applied, by somebody else: {}",
        listed(&lost, CONFLICTS)
    ))
}

#[cfg(test)]
mod tests;
