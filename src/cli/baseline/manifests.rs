//! Inventories of rendered manifests, with the defaults that an API server fills in: each is created as a trial (dry run).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::api::{DynamicObject, PostParams};
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use kube::{Api, Client};
use resurgam_core::baseline::{Baseline, KindRef, Marks, Object, Source, is_captured, observe, reach};
use serde::Deserialize;
use serde_json::{Value, json};

use super::capture;
use crate::baseline::gather::without_values;
use crate::calls::call;
use crate::isolation::evidence::DigestKey;

/// Whose manifests are wanted.
pub(super) struct Only<'a> {
    /// Namespaces. Empty: all.
    pub(super) namespaces: BTreeSet<String>,
    /// Namespace of objects that name none.
    pub(super) first: Option<&'a str>,
}

impl Only<'_> {
    fn holds(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// Returns the inventory of manifests.
pub(super) async fn capture(
    client: &Client,
    paths: &[PathBuf],
    scratch: &str,
    only: &Only<'_>,
    key: Option<&DigestKey>,
) -> Result<Baseline> {
    let discovery = call("discover kinds", Discovery::new(client.clone()).run_aggregated()).await?;
    let (mut raw, mut namespaces) = (Vec::new(), BTreeSet::new());
    let manifests = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    for mut manifest in manifests.into_iter().flatten() {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
        let what = format!("{kind} {name}");
        let Some((resource, can)) = resolve(&discovery, &manifest) else {
            bail!("{what}: the API server does not serve {} {kind}", manifest["apiVersion"]);
        };
        if !is_captured(&resource.group, &resource.plural) {
            continue;
        }
        let is_namespaced = can.scope == Scope::Namespaced;
        if is_namespaced {
            let of = manifest["metadata"]["namespace"].as_str().or(only.first).map(str::to_owned);
            let Some(of) = of else { bail!("{what} names no namespace: give one with --namespace") };
            if !only.holds(&of) {
                continue;
            }
            namespaces.insert(of.clone());
            manifest["metadata"]["namespace"] = json!(of);
        } else if resource.kind == "Namespace" && resource.group.is_empty() {
            if !only.holds(&name) {
                continue;
            }
            namespaces.insert(name.clone());
        } else if !reach::KINDS.contains(&(resource.group.as_str(), resource.plural.as_str())) {
            continue;
        }
        let defaulted = defaulted(client, &resource, &manifest, is_namespaced.then_some(scratch));
        let mut object = defaulted.await.with_context(|| format!("trying {what} in namespace {scratch}"))?;
        if resource.kind == "Secret" && resource.group.is_empty() {
            object = without_values(object, key);
        }
        raw.push(object);
    }
    for namespace in &namespaces {
        if !raw
            .iter()
            .any(|object| object["kind"] == "Namespace" && object["metadata"]["name"] == **namespace)
        {
            let labels = json!({"kubernetes.io/metadata.name": namespace});
            raw.push(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels},
                "spec": {"finalizers": ["kubernetes"]},
            }));
        }
    }
    let observed = observe(raw, &Marks::default());
    let kinds = kinds(&observed.objects);
    let namespaces: Vec<String> = namespaces.into_iter().collect();
    Ok(capture::baseline(Source::Manifests, namespaces, observed.objects, kinds, key, false))
}

/// Returns the object with its defaults, in its own namespace.
async fn defaulted(
    client: &Client,
    resource: &kube::api::ApiResource,
    manifest: &Value,
    scratch: Option<&str>,
) -> Result<Value> {
    let mut trial = manifest.clone();
    let namespace = manifest["metadata"]["namespace"].clone();
    // A name that is taken, a cluster-wide one in particular, would be refused.
    let name = manifest["metadata"]["name"].clone();
    let api: Api<DynamicObject> = match scratch {
        Some(scratch) => {
            trial["metadata"]["namespace"] = json!(scratch);
            Api::namespaced_with(client.clone(), scratch, resource)
        }
        None => {
            trial["metadata"]["name"] =
                json!(format!("baseline-trial-{}", name.as_str().unwrap_or_default()));
            Api::all_with(client.clone(), resource)
        }
    };
    let params = PostParams { dry_run: true, field_manager: None };
    let object: DynamicObject = serde_json::from_value(trial)?;
    let created = call("create as a trial", api.create(&params, &object)).await?;
    let mut value = serde_json::to_value(created)?;
    value["metadata"]["name"] = name;
    if scratch.is_some() {
        value["metadata"]["namespace"] = namespace;
    }
    if let Some(meta) = value["metadata"].as_object_mut() {
        // Of an object that was never there.
        meta.remove("uid");
    }
    if value["kind"] == "Namespace" {
        let label = value["metadata"]["name"].clone();
        value["metadata"]["labels"]["kubernetes.io/metadata.name"] = label;
    }
    Ok(value)
}

fn resolve(discovery: &Discovery, manifest: &Value) -> Option<(kube::api::ApiResource, ApiCapabilities)> {
    let (version, kind) = (manifest["apiVersion"].as_str()?, manifest["kind"].as_str()?);
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let groups = discovery.groups().filter(|of| of.name() == group);
    let mut served = groups.flat_map(|of| of.versioned_resources(version));
    served.find(|(resource, _)| resource.kind == kind)
}

/// Returns the kinds of these objects.
pub(super) fn kinds(objects: &[Object]) -> Vec<KindRef> {
    let of = |object: &Object| {
        let (group, version) = object.api_version.rsplit_once('/').unwrap_or(("", &object.api_version));
        KindRef {
            group: group.to_owned(),
            plural: plural(&object.kind),
            version: version.to_owned(),
            kind: object.kind.clone(),
        }
    };
    objects.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the plural of a kind by the rules of Kubernetes. Only versions are looked up by it, and kinds that are left out.
pub(super) fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.as_str() {
        "endpoints" => lower,
        _ if lower.ends_with('s') || lower.ends_with('x') || lower.ends_with("ch") => format!("{lower}es"),
        _ => match lower.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
            _ => format!("{lower}s"),
        },
    }
}

/// Reads all objects in a file, or in the files below a folder, in the order of their names.
fn read(path: &Path) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files(path)? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value = Value::deserialize(document).with_context(|| file.display().to_string())?;
            match value {
                Value::Null => {}
                Value::Object(mut list) if list.get("kind") == Some(&json!("List")) => {
                    if let Some(Value::Array(items)) = list.remove("items") {
                        objects.extend(items);
                    }
                }
                Value::Object(_) => objects.push(value),
                _ => bail!("{}: a document is no object", file.display()),
            }
        }
    }
    if objects.is_empty() {
        bail!("there is no manifest in {}", path.display());
    }
    Ok(objects)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("reading {}", path.display());
    if !std::fs::metadata(path).with_context(what)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).with_context(what)? {
        entries.push(entry.with_context(what)?.path());
    }
    entries.sort();
    let mut all = Vec::new();
    for entry in entries {
        let extension = entry.extension().and_then(|of| of.to_str()).unwrap_or_default();
        if entry.is_dir() {
            all.extend(files(&entry)?);
        } else if ["yaml", "yml", "json"].contains(&extension) {
            all.push(entry);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_kubernetes() {
        for (kind, expected) in [
            ("Deployment", "deployments"),
            ("Ingress", "ingresses"),
            ("NetworkPolicy", "networkpolicies"),
            ("Gateway", "gateways"),
            ("Endpoints", "endpoints"),
            ("EndpointSlice", "endpointslices"),
        ] {
            assert_eq!(plural(kind), expected);
        }
    }

    #[test]
    fn every_document_below_a_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("nested");
        std::fs::create_dir(&nested).unwrap();
        let config = |name: &str| format!("kind: ConfigMap\nmetadata: {{name: {name}}}\n");
        std::fs::write(folder.path().join("b.yaml"), format!("{}---\n---\n{}", config("1"), config("2")))
            .unwrap();
        std::fs::write(nested.join("a.json"), r#"{"kind": "List", "items": [{"kind": "Secret"}]}"#).unwrap();
        std::fs::write(folder.path().join("README.md"), "no manifest").unwrap();
        let kinds: Vec<_> =
            read(folder.path()).unwrap().iter().map(|object| object["kind"].clone()).collect();
        assert_eq!(kinds, ["ConfigMap", "ConfigMap", "Secret"]);
        std::fs::write(folder.path().join("c.yaml"), "- a\n").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("c.yaml"));
    }
}
