//! Step `pinImages`: which images of the service's workloads are replaced by their approved digests.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::scale::has_controller;
use super::{StepContext, StepProblem, listed};
use crate::api::step::PinImagesSpec;
use crate::gates::images::{self, Approved, ListError};
use crate::isolation::controls::workloads::{Kind, Lists};

/// Maximum number of images in a message.
const NAMED: usize = 4;

/// Returns why the step can never pin an image.
pub(super) fn problem(spec: &PinImagesSpec, namespaces: &[String]) -> Option<String> {
    if namespaces.is_empty() {
        return Some("pins images, and its service has no namespace".to_owned());
    }
    let entries = spec.approved.as_ref()?;
    images::inline(entries).err().map(|error| format!("has no usable list: {}", described(&error)))
}

fn described(error: &ListError) -> String {
    match error {
        ListError::Malformed(message) => message.clone(),
        ListError::Empty => "it approves no digest at all".to_owned(),
    }
}

/// Returns the approved images. `list`: the ConfigMap in the plan's namespace that the spec names, if it names one and that exists.
///
/// # Errors
/// The list is missing, malformed or empty.
pub fn approved(
    spec: &PinImagesSpec,
    context: &StepContext,
    list: Option<&ConfigMap>,
) -> Result<Approved, StepProblem> {
    let (title, parsed) = match (&spec.approved, &spec.approved_from) {
        (Some(entries), None) => ("the plan".to_owned(), images::inline(entries)),
        (None, Some(from)) => {
            let title = format!("ConfigMap {}/{}", context.plan_namespace, from.config_map.name);
            let Some(list) = list else {
                return Err(StepProblem::Unusable(format!("{title} of approved digests does not exist")));
            };
            (title, images::from_config_map(list))
        }
        _ => {
            let message = "the step names not exactly one of approved, approvedFrom";
            return Err(StepProblem::Unusable(message.to_owned()));
        }
    };
    parsed.map_err(|error| StepProblem::Unusable(format!("{title}: {}", described(&error))))
}

/// The patch of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// Kind of the workload.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// JSON patch: for each image a `test` of what was read, and its replacement.
    pub patch: Value,
    /// What it replaces, for messages.
    pub changes: Vec<String>,
}

impl Pin {
    /// Returns kind, namespace and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// The pod template of a workload.
struct Template {
    kind: Kind,
    namespace: String,
    name: String,
    /// JSON pointer of the pod's spec.
    at: &'static str,
    object: Value,
}

/// Returns the patches to write. All are decided before any is written: one image that is not approved fails the whole step. `found`: per
/// namespace, everything in it that starts pods.
///
/// # Errors
/// Images are not approved, with all their names, or a namespace has no workload at all.
pub fn decide(approved: &Approved, found: Vec<Lists>) -> Result<Vec<Pin>, StepProblem> {
    let templates: Vec<Template> = found.into_iter().flat_map(templates).collect();
    let (mut pins, mut refused) = (Vec::new(), Vec::new());
    for template in templates {
        let Template { kind, namespace, name, at, object } = template;
        let title = format!("{kind} {namespace}/{name}");
        let (mut patch, mut changes) = (Vec::new(), Vec::new());
        for (pointer, place, image) in images_of(&object, at) {
            match pinned(approved, &image) {
                Ok(None) => {}
                Ok(Some(to)) => {
                    patch.push(json!({"op": "test", "path": pointer, "value": image}));
                    patch.push(json!({"op": "replace", "path": pointer, "value": to}));
                    changes.push(format!("{title}, {place}: {to}"));
                }
                Err(why) => refused.push(format!("{title}, {place}: {why}")),
            }
        }
        if !patch.is_empty() {
            pins.push(Pin { kind, namespace, name, patch: Value::Array(patch), changes });
        }
    }
    if refused.is_empty() {
        return Ok(pins);
    }
    Err(StepProblem::Unusable(format!("images without an approved digest: {}", listed(&refused, NAMED))))
}

/// Returns the pinned name of an image. `Ok(None)`: it is pinned to an approved digest.
fn pinned(approved: &Approved, image: &str) -> Result<Option<String>, String> {
    if let Some(digest) = images::pinned(image) {
        let is_approved = approved.contains(digest);
        return if is_approved { Ok(None) } else { Err(format!("'{image}' is not on the approved list")) };
    }
    let Some(tag) = images::tagged(image) else {
        return Err(format!("'{image}' is no name of an image"));
    };
    let first: Vec<&String> = approved.first_of_tag(&tag).into_iter().flatten().collect();
    match first.as_slice() {
        [] => Err(format!("the approved list has no entry '{tag} sha256:…'")),
        [digest] => Ok(Some(format!("{image}@{digest}"))),
        [one, other, ..] => Err(format!("the approved list has two images for '{tag}': {one} and {other}")),
    }
}

/// Returns the templates of a namespace. Not of ReplicaSets and other workloads that a controller owns, which follow it, nor of Jobs, whose
/// template nobody can change.
fn templates(lists: Lists) -> Vec<Template> {
    let Lists { deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs, jobs: _ } = lists;
    const POD: &str = "/spec/template/spec";
    let mut all = Vec::new();
    all.extend(deployments.iter().filter_map(|of| template(Kind::Deployment, of, POD)));
    all.extend(statefulsets.iter().filter_map(|of| template(Kind::StatefulSet, of, POD)));
    all.extend(replicasets.iter().filter_map(|of| template(Kind::ReplicaSet, of, POD)));
    all.extend(controllers.iter().filter_map(|of| template(Kind::ReplicationController, of, POD)));
    all.extend(daemonsets.iter().filter_map(|of| template(Kind::DaemonSet, of, POD)));
    let of_cron_job = "/spec/jobTemplate/spec/template/spec";
    all.extend(cronjobs.iter().filter_map(|of| template(Kind::CronJob, of, of_cron_job)));
    all
}

fn template<K>(kind: Kind, object: &K, at: &'static str) -> Option<Template>
where
    K: kube::Resource<DynamicType = ()> + serde::Serialize,
{
    let meta = object.meta();
    if has_controller(meta) {
        return None;
    }
    let (namespace, name) = (meta.namespace.clone()?, meta.name.clone()?);
    Some(Template { kind, namespace, name, at, object: serde_json::to_value(object).ok()? })
}

/// Returns every image of a pod's spec: its JSON pointer, the place for messages, and its name.
fn images_of(object: &Value, at: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (list, what, field) in [
        ("initContainers", "container", "image"),
        ("containers", "container", "image"),
        ("volumes", "volume", "image/reference"),
    ] {
        let items = object.pointer(&format!("{at}/{list}")).and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let image = item.pointer(&format!("/{field}"));
            // A container without an image is refused by name; a volume without one holds something else.
            if image.is_none() && what == "volume" {
                continue;
            }
            let image = image.and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = item["name"].as_str().unwrap_or_default();
            found.push((format!("{at}/{list}/{index}/{field}"), format!("{what} {name}"), image));
        }
    }
    found
}

/// Returns the step's message once all is written.
#[must_use]
pub fn changed(pins: &[Pin]) -> String {
    let changes: Vec<String> = pins.iter().flat_map(|pin| pin.changes.clone()).collect();
    match changes.len() {
        0 => "every image was pinned to an approved digest already".to_owned(),
        1 => format!("1 image pinned: {}", listed(&changes, NAMED)),
        count => format!("{count} images pinned: {}", listed(&changes, NAMED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn list(entries: &[String]) -> Approved {
        images::inline(entries).unwrap()
    }

    fn lists(images: &[&str]) -> Lists {
        let containers: Vec<Value> = images
            .iter()
            .enumerate()
            .map(|(index, image)| json!({"name": format!("c{index}"), "image": image}))
            .collect();
        let deployment = json!({
            "metadata": {"name": "api", "namespace": "shop"},
            "spec": {"selector": {}, "template": {"spec": {"containers": containers}}},
        });
        Lists { deployments: vec![serde_json::from_value(deployment).unwrap()], ..Lists::default() }
    }

    fn refused(approved: &Approved, image: &str) -> String {
        decide(approved, vec![lists(&[image])]).unwrap_err().to_string()
    }

    #[test]
    fn tag_is_replaced_by_its_approved_digest() {
        let approved = list(&[format!("registry.example/web:1 {} {}", digest('b'), digest('a'))]);
        let pinned_already = format!("registry.example/web@{}", digest('a'));
        let pins = decide(&approved, vec![lists(&[&pinned_already, "registry.example/web:1"])]).unwrap();
        let to = format!("registry.example/web:1@{}", digest('b'));
        let path = "/spec/template/spec/containers/1/image";
        let patch = json!([
            {"op": "test", "path": path, "value": "registry.example/web:1"},
            {"op": "replace", "path": path, "value": to},
        ]);
        assert_eq!(
            (pins.len(), &pins[0].patch, pins[0].title()),
            (1, &patch, "Deployment shop/api".to_owned())
        );
        assert_eq!(changed(&pins), format!("1 image pinned: Deployment shop/api, container c1: {to}"));
        assert_eq!(decide(&approved, vec![lists(&[&to])]).unwrap(), [], "pinning again changes nothing");
        assert_eq!(changed(&[]), "every image was pinned to an approved digest already");
    }

    #[test]
    fn image_without_approved_digest_is_named_and_nothing_is_pinned() {
        let approved = list(&[
            format!("registry.example/web:1 {}", digest('a')),
            format!("registry.example/twice:1 {}", digest('b')),
            format!("registry.example/twice:1 {}", digest('c')),
        ]);
        let found = lists(&["registry.example/web:1", "registry.example/db:7"]);
        let error = decide(&approved, vec![found]).unwrap_err().to_string();
        assert_eq!(
            error,
            "images without an approved digest: Deployment shop/api, container c1: the approved list has no entry \
             'registry.example/db:7 sha256:…'"
        );
        let other = refused(&approved, &format!("registry.example/web@{}", digest('d')));
        assert!(other.contains("is not on the approved list"), "{other}");
        assert!(refused(&approved, "registry.example/twice:1").contains("two images"), "ambiguous");
        assert!(refused(&approved, "").contains("'' is no name of an image"), "a container without an image");
    }

    #[test]
    fn every_kind_of_template_is_pinned_but_what_a_controller_owns() {
        let approved = list(&[format!("registry.example/web:1 {}", digest('a'))]);
        let pod = || {
            json!({
                "initContainers": [{"name": "i", "image": "registry.example/web:1"}],
                "containers": [{"name": "c", "image": "registry.example/web:1"}],
                "volumes": [{"name": "v", "image": {"reference": "registry.example/web:1"}}, {"name": "e", "emptyDir": {}}],
            })
        };
        let meta = json!({"name": "x", "namespace": "shop"});
        let mut owned = meta.clone();
        owned["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "api", "uid": "u", "controller": true}]);
        let of = |meta: &Value| json!({"metadata": meta, "spec": {"selector": {}, "serviceName": "", "template": {"spec": pod()}}});
        fn parse<K: serde::de::DeserializeOwned>(value: Value) -> Vec<K> {
            vec![serde_json::from_value(value).unwrap()]
        }
        let job = json!({"spec": {"template": {"spec": pod()}}});
        let lists = Lists {
            deployments: parse(of(&meta)),
            statefulsets: parse(of(&meta)),
            replicasets: [parse(of(&owned)), parse(of(&meta))].concat(),
            controllers: parse(json!({"metadata": meta, "spec": {"template": {"spec": pod()}}})),
            daemonsets: parse(of(&meta)),
            cronjobs: parse(json!({"metadata": meta, "spec": {"schedule": "@daily", "jobTemplate": job}})),
            jobs: parse(of(&meta)),
        };
        let pins = decide(&approved, vec![lists]).unwrap();
        let counts: Vec<(Kind, usize)> = pins.iter().map(|pin| (pin.kind, pin.changes.len())).collect();
        let all = [
            Kind::Deployment,
            Kind::StatefulSet,
            Kind::ReplicaSet,
            Kind::ReplicationController,
            Kind::DaemonSet,
            Kind::CronJob,
        ];
        assert_eq!(counts, all.map(|kind| (kind, 3)));
        let path = |pin: &Pin| pin.patch[5]["path"].as_str().unwrap().to_owned();
        assert_eq!(path(&pins[0]), "/spec/template/spec/volumes/0/image/reference");
        assert_eq!(path(&pins[5]), "/spec/jobTemplate/spec/template/spec/volumes/0/image/reference");
    }

    #[test]
    fn list_that_is_missing_or_malformed_pins_nothing() {
        let context = StepContext { plan_namespace: "recovery".to_owned(), ..StepContext::default() };
        let from = |list: Option<&ConfigMap>| {
            let spec: PinImagesSpec =
                serde_json::from_value(json!({"approvedFrom": {"configMap": {"name": "approved"}}})).unwrap();
            approved(&spec, &context, list).unwrap_err().to_string()
        };
        assert_eq!(from(None), "ConfigMap recovery/approved of approved digests does not exist");
        let map = |text: &str| ConfigMap {
            data: Some([("images".to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        };
        assert_eq!(from(Some(&map("# none"))), "ConfigMap recovery/approved: it approves no digest at all");
        assert!(from(Some(&map("web:1"))).contains("key images, line 1: no sha256 digest follows"));
        let namespaces = ["shop".to_owned()];
        let inline = PinImagesSpec { approved: Some(vec!["web:1".to_owned()]), ..PinImagesSpec::default() };
        assert!(super::problem(&inline, &namespaces).unwrap().starts_with("has no usable list: approved[0]"));
        assert!(super::problem(&PinImagesSpec::default(), &[]).unwrap().contains("no namespace"));
    }
}
