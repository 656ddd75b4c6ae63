//! The images of a service: those that specs name, and those that nodes report.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodTemplateSpec};
use kube::Resource;

use super::super::inventory::{Inventory, ObjectRef, is_live};
use super::super::{Question, images};
use super::ImagePolicy;
use crate::api::Phase;
use crate::isolation::controls::workloads::has_not_ended;

/// One image of an object.
pub(super) struct Image {
    pub(super) object: ObjectRef,
    /// What in the object names the image: `container web`, `volume data`.
    pub(super) place: String,
    pub(super) source: ImageSource,
}

/// Source of an image name.
pub(super) enum ImageSource {
    /// A spec names it.
    Specified {
        /// Name of the image.
        name: String,
        /// Whether something is to run it: it is neither at zero, nor a CronJob, nor suspended.
        runs: bool,
    },
    /// A node reports it.
    Running {
        /// Image ID that the runtime reports. Empty until the node does.
        image_id: String,
        /// Whether the container has started.
        started: bool,
        /// Name of the image in the Pod's spec. Empty if the spec has no such container.
        specified: String,
        /// The Pod's node. Empty if it has none.
        node: String,
    },
}

impl Image {
    pub(super) fn is_volume(&self) -> bool {
        self.place.starts_with("volume ")
    }
}

/// Returns the images to check in a phase, in order.
pub(super) fn select(policy: &ImagePolicy, question: &Question, inventory: &Inventory) -> Vec<Image> {
    let mut images = specified(inventory);
    if question.phase != Phase::BeforeRestore {
        images.extend(inventory.pods.iter().filter(|pod| is_live(pod)).flat_map(running));
        // What ended before is history. Of what has run since, such as the Job of a step, nothing else tells what a tag stood for.
        let ended =
            inventory.pods.iter().filter(|pod| !is_live(pod) && !is_older(question, pod)).flat_map(running);
        images.extend(ended.filter(|image| ran_by_tag(policy, image)));
    }
    images.sort_by(|a, b| (&a.object, &a.place).cmp(&(&b.object, &b.place)));
    images
}

/// Returns whether a Pod is older than the isolation of its namespace. Both times are the API server's.
fn is_older(question: &Question, pod: &Pod) -> bool {
    let meta = &pod.metadata;
    let seal = meta.namespace.as_ref().and_then(|namespace| question.seals.get(namespace));
    let isolated_at = seal.and_then(|seal| seal.created_at);
    meta.creation_timestamp.as_ref().zip(isolated_at).is_some_and(|(created, isolated)| created.0 < isolated)
}

/// Returns whether a node reports which image ran under a listed tag.
fn ran_by_tag(policy: &ImagePolicy, image: &Image) -> bool {
    let ImageSource::Running { image_id, specified, .. } = &image.source else { return false };
    !image_id.is_empty() && policy.listed_tag(specified).is_some()
}

/// Adds the images of an object's pod template. `runs`: whether Pods are to run from it.
fn template<K: Resource<DynamicType = ()>>(
    images: &mut Vec<Image>,
    object: &K,
    spec: Option<&PodSpec>,
    runs: bool,
) {
    let object = ObjectRef::of(object);
    // A workload without a template is malformed; an image without a name says so.
    let places = spec.map_or_else(|| vec![("template".to_owned(), String::new())], images::specified);
    images.extend(places.into_iter().map(|(place, name)| Image {
        object: object.clone(),
        place,
        source: ImageSource::Specified { name, runs },
    }));
}

/// Returns the specified images: those of every workload, and of every Pod that no listed workload owns.
fn specified(inventory: &Inventory) -> Vec<Image> {
    let of = |template: &PodTemplateSpec| template.spec.clone();
    let of_job = |spec: &JobSpec| of(&spec.template);
    let owners = inventory.owners();
    let mut images = Vec::new();
    for object in &inventory.deployments {
        template(
            &mut images,
            object,
            object.spec.as_ref().and_then(|spec| of(&spec.template)).as_ref(),
            object.spec.as_ref().is_none_or(|spec| spec.replicas != Some(0)),
        );
    }
    for object in &inventory.stateful_sets {
        template(
            &mut images,
            object,
            object.spec.as_ref().and_then(|spec| of(&spec.template)).as_ref(),
            object.spec.as_ref().is_none_or(|spec| spec.replicas != Some(0)),
        );
    }
    for object in &inventory.daemon_sets {
        template(
            &mut images,
            object,
            object.spec.as_ref().and_then(|spec| of(&spec.template)).as_ref(),
            object.status.as_ref().is_none_or(|status| status.desired_number_scheduled > 0),
        );
    }
    // ReplicaSets of a Deployment are its history. Any client may write another owner, so that one at zero counts, too.
    for object in inventory.replica_sets.iter().filter(|object| !owners.has_owner_of(*object)) {
        let spec = object.spec.as_ref().and_then(|spec| spec.template.as_ref()).and_then(of);
        let runs = object.spec.as_ref().is_none_or(|spec| spec.replicas != Some(0));
        template(&mut images, object, spec.as_ref(), runs);
    }
    for object in &inventory.replication_controllers {
        let spec = object.spec.as_ref().and_then(|spec| spec.template.as_ref()).and_then(of);
        let runs = object.spec.as_ref().is_none_or(|spec| spec.replicas != Some(0));
        template(&mut images, object, spec.as_ref(), runs);
    }
    // What has ended is history too. An unfinished Job was created from its CronJob's spec at that time.
    for object in inventory.jobs.iter().filter(|job| has_not_ended(job)) {
        let suspended = object.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true));
        template(&mut images, object, object.spec.as_ref().and_then(of_job).as_ref(), !suspended);
    }
    for object in &inventory.cron_jobs {
        let spec = object.spec.as_ref().and_then(|spec| spec.job_template.spec.as_ref()).and_then(of_job);
        template(&mut images, object, spec.as_ref(), false);
    }
    for pod in inventory.pods.iter().filter(|pod| is_live(pod)) {
        if !owners.has_owner_of(pod) {
            template(&mut images, pod, pod.spec.as_ref(), true);
        } else {
            let object = ObjectRef::of(pod);
            let volumes = pod.spec.as_ref().map(images::volumes).unwrap_or_default();
            images.extend(volumes.into_iter().map(|(place, name)| Image {
                object: object.clone(),
                place,
                source: ImageSource::Specified { name, runs: true },
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
    let places = pod.spec.as_ref().map(images::containers).unwrap_or_default();
    let mut specified: BTreeMap<String, String> = places.into_iter().collect();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let image = |place: String, image_id: String, started: bool, specified: String| Image {
        object: object.clone(),
        place,
        source: ImageSource::Running { image_id, started, specified, node: node.clone() },
    };
    let mut images = Vec::new();
    for container in reported {
        let (place, started) = (format!("container {}", container.name), has_started(&container));
        let specified = specified.remove(&place).unwrap_or_default();
        images.push(image(place, container.image_id, started, specified));
    }
    let unreported = specified.into_iter();
    images.extend(unreported.map(|(place, specified)| image(place, String::new(), false, specified)));
    images
}

fn has_started(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}
