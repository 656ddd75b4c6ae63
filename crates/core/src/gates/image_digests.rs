//! Gate `imageDigests`: all images are on the approved list, by digest.
//!
//! Before restore the gate checks the images in the specs; in later phases also the running images as the node's runtime reports them,
//! since a spec does not prove what runs.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod, PodSpec, PodTemplateSpec};
use kube::Resource;
use serde_json::{Value, json};

use super::finding::{Finding, worst};
use super::images::{self, Approved, ListError};
use super::inventory::{Inventory, ObjectRef, is_live};
use super::{Answer, Question, evidence};
use crate::api::gate::ImageDigestsSpec;
use crate::api::{GateReason, Phase};
use crate::isolation::controls::workloads::has_not_ended;

/// Returns the list of approved digests. `list`: the ConfigMap in the plan's namespace that the gate names, if it names one.
///
/// # Errors
/// The verdict Unknown, if the list does not exist or is malformed.
pub fn approved(
    spec: &ImageDigestsSpec,
    plan_namespace: &str,
    list: Option<&ConfigMap>,
) -> Result<Approved, Answer> {
    match (&spec.approved, &spec.approved_from) {
        (Some(digests), None) => images::inline(digests).map_err(|error| no_list("the plan", error)),
        (None, Some(from)) => {
            let what = format!("ConfigMap {plan_namespace}/{}", from.config_map.name);
            let list = list.ok_or_else(|| {
                Answer::unknown(GateReason::ListMissing, format!("{what} of approved digests is missing"))
            })?;
            images::from_config_map(list).map_err(|error| no_list(&what, error))
        }
        _ => Err(Answer::unknown(
            GateReason::Malformed,
            "the gate names not exactly one of approved, approvedFrom",
        )),
    }
}

fn no_list(what: &str, error: ListError) -> Answer {
    match error {
        ListError::Malformed(message) => {
            Answer::unknown(GateReason::MalformedDigest, format!("{what}, {message}"))
        }
        ListError::Empty => {
            Answer::unknown(GateReason::ListEmpty, format!("{what} approves no digest at all"))
        }
    }
}

/// One image of an object.
struct Image {
    object: ObjectRef,
    /// What in the object names the image: `container web`, `volume data`.
    place: String,
    source: ImageSource,
}

/// Source of an image name.
enum ImageSource {
    /// A spec names it.
    Specified(String),
    /// A node reports it. Empty until the node does.
    Running {
        /// Image ID that the runtime reports.
        image_id: String,
        /// Whether the container has started.
        started: bool,
    },
}

type Check = fn(&Image, &Approved) -> Option<Finding>;

/// Checks in order. The first finding of an image counts.
const CHECKS: [Check; 4] = [is_pinned, is_approved, is_reported, running_is_approved];

fn is_pinned(image: &Image, _: &Approved) -> Option<Finding> {
    match &image.source {
        ImageSource::Specified(name) if images::pinned(name).is_none() => {
            Finding::fail(GateReason::NotPinned, format!("'{name}' is not pinned by a sha256 digest"))
        }
        ImageSource::Specified(_) | ImageSource::Running { .. } => None,
    }
}

fn is_approved(image: &Image, approved: &Approved) -> Option<Finding> {
    let ImageSource::Specified(name) = &image.source else { return None };
    let digest = images::pinned(name)?;
    if approved.contains(digest) {
        return None;
    }
    Finding::fail(GateReason::NotApproved, format!("{digest} is not on the approved list"))
}

fn is_reported(image: &Image, _: &Approved) -> Option<Finding> {
    match &image.source {
        ImageSource::Running { image_id, started: false } if image_id.is_empty() => {
            Finding::unknown(GateReason::InProgress, "has not started yet".to_owned())
        }
        ImageSource::Running { image_id, started: true } if image_id.is_empty() => {
            Finding::unknown(GateReason::NoImageID, "its node does not report which image it runs".to_owned())
        }
        ImageSource::Running { image_id, .. } if images::running(image_id).is_none() => Finding::unknown(
            GateReason::MalformedImageID,
            format!("it runs '{image_id}', which holds no sha256 digest"),
        ),
        ImageSource::Specified(_) | ImageSource::Running { .. } => None,
    }
}

fn running_is_approved(image: &Image, approved: &Approved) -> Option<Finding> {
    let ImageSource::Running { image_id, .. } = &image.source else { return None };
    let digest = images::running(image_id)?;
    if approved.contains(digest) {
        return None;
    }
    Finding::fail(
        GateReason::RunningImageNotApproved,
        format!("it runs {digest}, which is not on the approved list"),
    )
}

/// Returns the images to check in a phase, in order.
fn select(phase: Phase, inventory: &Inventory) -> Vec<Image> {
    let mut images = specified(inventory);
    if phase != Phase::BeforeRestore {
        images.extend(inventory.pods.iter().filter(|pod| is_live(pod)).flat_map(running));
    }
    images.sort_by(|a, b| (&a.object, &a.place).cmp(&(&b.object, &b.place)));
    images
}

/// Adds the images of an object's pod template.
fn template<K: Resource<DynamicType = ()>>(images: &mut Vec<Image>, object: &K, spec: Option<&PodSpec>) {
    let object = ObjectRef::of(object);
    // A workload without a template is malformed; an image without a name says so.
    let places = spec.map_or_else(|| vec![("template".to_owned(), String::new())], images::specified);
    images.extend(places.into_iter().map(|(place, image)| Image {
        object: object.clone(),
        place,
        source: ImageSource::Specified(image),
    }));
}

/// Returns the specified images: those of every workload, and of every Pod that no listed workload owns.
fn specified(inventory: &Inventory) -> Vec<Image> {
    let of = |template: &PodTemplateSpec| template.spec.clone();
    let of_job = |spec: &JobSpec| of(&spec.template);
    let owners = inventory.owners();
    let mut images = Vec::new();
    for object in &inventory.deployments {
        template(&mut images, object, object.spec.as_ref().and_then(|spec| of(&spec.template)).as_ref());
    }
    for object in &inventory.stateful_sets {
        template(&mut images, object, object.spec.as_ref().and_then(|spec| of(&spec.template)).as_ref());
    }
    for object in &inventory.daemon_sets {
        template(&mut images, object, object.spec.as_ref().and_then(|spec| of(&spec.template)).as_ref());
    }
    // ReplicaSets of a Deployment are its history.
    for object in inventory.replica_sets.iter().filter(|object| !owners.has_owner_of(*object)) {
        let spec = object.spec.as_ref().and_then(|spec| spec.template.as_ref()).and_then(of);
        template(&mut images, object, spec.as_ref());
    }
    for object in &inventory.replication_controllers {
        let spec = object.spec.as_ref().and_then(|spec| spec.template.as_ref()).and_then(of);
        template(&mut images, object, spec.as_ref());
    }
    // What has ended is history too. An unfinished Job was created from its CronJob's spec at that time.
    for object in inventory.jobs.iter().filter(|job| has_not_ended(job)) {
        template(&mut images, object, object.spec.as_ref().and_then(of_job).as_ref());
    }
    for object in &inventory.cron_jobs {
        let spec = object.spec.as_ref().and_then(|spec| spec.job_template.spec.as_ref()).and_then(of_job);
        template(&mut images, object, spec.as_ref());
    }
    for pod in inventory.pods.iter().filter(|pod| is_live(pod)) {
        if !owners.has_owner_of(pod) {
            template(&mut images, pod, pod.spec.as_ref());
        } else {
            let object = ObjectRef::of(pod);
            let volumes = pod.spec.as_ref().map(images::volumes).unwrap_or_default();
            images.extend(volumes.into_iter().map(|(place, image)| Image {
                object: object.clone(),
                place,
                source: ImageSource::Specified(image),
            }));
        }
    }
    images
}

/// Returns the running images of a Pod: of each container in its spec, and of each that its node reports.
fn running(pod: &Pod) -> Vec<Image> {
    let object = ObjectRef::of(pod);
    let status = pod.status.clone().unwrap_or_default();
    let reported: Vec<ContainerStatus> =
        [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .collect();
    let image = |name: &str, image_id: String, started: bool| Image {
        object: object.clone(),
        place: format!("container {name}"),
        source: ImageSource::Running { image_id, started },
    };
    let known: BTreeSet<&str> = reported.iter().map(|container| container.name.as_str()).collect();
    let mut images: Vec<Image> = reported
        .iter()
        .map(|container| image(&container.name, container.image_id.clone(), has_started(container)))
        .collect();
    if let Some(spec) = &pod.spec {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let names = containers.map(|container| container.name.as_str());
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str());
        let unreported = names.chain(ephemeral).filter(|name| !known.contains(name));
        images.extend(unreported.map(|name| image(name, String::new(), false)));
    }
    images
}

fn has_started(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// Returns the gate's answer for an inventory and the approved digests.
#[must_use]
pub fn judge(approved: &Approved, question: &Question, inventory: &Inventory) -> Answer {
    if let Some(missing) = inventory.nothing_starts(question) {
        return Answer::unknown(GateReason::NothingFound, missing);
    }
    let images = select(question.phase, inventory);
    if images.is_empty() {
        let places = question.namespaces.join(", ");
        if !question.namespaces.is_empty() {
            let message = format!("there is no image to check in namespaces [{places}]");
            let evidence = evidence::digest(&basis(approved, question.phase, &images));
            return Answer::pass(GateReason::NothingToCheck, message, evidence);
        }
        return Answer::unknown(GateReason::NothingFound, format!("no image in namespaces [{places}]"));
    }
    let findings: Vec<(String, Finding)> = images
        .iter()
        .filter_map(|image| {
            let finding = CHECKS.iter().find_map(|check| check(image, approved))?;
            Some((format!("{}, {}", image.object, image.place), finding))
        })
        .collect();
    let evidence = || evidence::digest(&basis(approved, question.phase, &images));
    worst(&findings, evidence).unwrap_or_else(|| {
        let count = images.len();
        Answer::pass(GateReason::Approved, format!("{count} images are on the approved list"), evidence())
    })
}

/// Returns the evidence that the verdict is based on.
fn basis(approved: &Approved, phase: Phase, images: &[Image]) -> Value {
    let seen = |image: &Image| {
        let (field, value) = match &image.source {
            ImageSource::Specified(name) => ("image", name),
            ImageSource::Running { image_id, .. } => ("imageID", image_id),
        };
        json!({
            "kind": image.object.kind,
            "namespace": image.object.namespace,
            "name": image.object.name,
            "uid": image.object.uid,
            "place": image.place,
            field: value,
        })
    };
    json!({
        "gate": "imageDigests",
        "phase": phase.as_str(),
        "approved": approved,
        "images": images.iter().map(seen).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
