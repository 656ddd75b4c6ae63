//! Drops all fields of an object that neither gates nor isolation depend on.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec, StatefulSet,
    StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, EphemeralContainer, Namespace, Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec,
    ReplicationController, ReplicationControllerSpec, ServiceAccount, Volume,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ObjectMeta;

use crate::api::{
    RECORDED_ANNOTATION, RELEASED_ANNOTATION, ROLLOUT_ANNOTATION, SEAL_ANNOTATION, WHEN_SCALED_ANNOTATION,
};
use resurgam_core::isolation::controls::pods::MIRROR_ANNOTATION;

/// An object that can be reduced.
pub(crate) trait Reduce {
    /// Returns the object without unused fields.
    fn reduced(self) -> Self;
}

/// Returns the used metadata. The resourceVersion is dropped, so that objects compare equal if no used field changed.
fn metadata(meta: ObjectMeta) -> ObjectMeta {
    let annotations = meta.annotations.map(|mut annotations| {
        let read = [
            SEAL_ANNOTATION,
            RECORDED_ANNOTATION,
            WHEN_SCALED_ANNOTATION,
            RELEASED_ANNOTATION,
            ROLLOUT_ANNOTATION,
            MIRROR_ANNOTATION,
        ];
        annotations.retain(|key, _| read.contains(&key.as_str()));
        annotations
    });
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp,
        deletion_timestamp: meta.deletion_timestamp,
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        finalizers: meta.finalizers,
        labels: meta.labels,
        owner_references: meta.owner_references,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    }
}

fn container(container: Container) -> Container {
    Container { name: container.name, image: container.image, ..Container::default() }
}

/// Keeps images, and whether the pod uses its node's network.
fn pod_spec(spec: PodSpec) -> PodSpec {
    let ephemeral = |container: EphemeralContainer| EphemeralContainer {
        name: container.name,
        image: container.image,
        ..EphemeralContainer::default()
    };
    let volume = |volume: Volume| {
        let image = Some(volume.image?);
        Some(Volume { name: volume.name, image, ..Volume::default() })
    };
    PodSpec {
        containers: spec.containers.into_iter().map(container).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(container).collect()),
        ephemeral_containers: spec.ephemeral_containers.map(|all| all.into_iter().map(ephemeral).collect()),
        volumes: spec
            .volumes
            .map(|all| all.into_iter().filter_map(volume).collect::<Vec<_>>())
            .filter(|all| !all.is_empty()),
        host_network: spec.host_network,
        node_name: spec.node_name,
        ..PodSpec::default()
    }
}

fn template(template: PodTemplateSpec) -> PodTemplateSpec {
    PodTemplateSpec { metadata: None, spec: template.spec.map(pod_spec) }
}

fn job_spec(spec: JobSpec) -> JobSpec {
    JobSpec { suspend: spec.suspend, template: template(spec.template), ..JobSpec::default() }
}

fn container_status(status: ContainerStatus) -> ContainerStatus {
    let state = status.state.map(|state| ContainerState {
        running: state.running.map(|_| ContainerStateRunning::default()),
        terminated: state.terminated.map(|_| ContainerStateTerminated::default()),
        waiting: state
            .waiting
            .map(|waiting| ContainerStateWaiting { reason: waiting.reason, message: waiting.message }),
    });
    ContainerStatus { name: status.name, image_id: status.image_id, state, ..ContainerStatus::default() }
}

fn pod_status(status: PodStatus) -> PodStatus {
    let statuses = |all: Option<Vec<ContainerStatus>>| {
        all.map(|all| all.into_iter().map(container_status).collect::<Vec<_>>())
    };
    let condition = |condition: PodCondition| {
        let is_read = ["Ready", "PodScheduled"].contains(&condition.type_.as_str());
        is_read.then(|| PodCondition {
            type_: condition.type_,
            status: condition.status,
            message: condition.message,
            ..PodCondition::default()
        })
    };
    PodStatus {
        phase: status.phase,
        message: status.message,
        reason: status.reason,
        conditions: status.conditions.map(|all| all.into_iter().filter_map(condition).collect()),
        init_container_statuses: statuses(status.init_container_statuses),
        container_statuses: statuses(status.container_statuses),
        ephemeral_container_statuses: statuses(status.ephemeral_container_statuses),
        ..PodStatus::default()
    }
}

impl Reduce for Deployment {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|spec| DeploymentSpec {
            replicas: spec.replicas,
            selector: spec.selector,
            paused: spec.paused,
            template: template(spec.template),
            ..DeploymentSpec::default()
        });
        Self { metadata: metadata(self.metadata), spec, status: self.status }
    }
}

impl Reduce for StatefulSet {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|spec| StatefulSetSpec {
            replicas: spec.replicas,
            update_strategy: spec.update_strategy,
            persistent_volume_claim_retention_policy: spec.persistent_volume_claim_retention_policy,
            template: template(spec.template),
            ..StatefulSetSpec::default()
        });
        Self { metadata: metadata(self.metadata), spec, status: self.status }
    }
}

impl Reduce for DaemonSet {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|mut spec| {
            let nodes = spec.template.spec.as_mut().and_then(|spec| spec.node_selector.take());
            let mut template = template(spec.template);
            if let Some(spec) = &mut template.spec {
                spec.node_selector = nodes;
            }
            DaemonSetSpec { update_strategy: spec.update_strategy, template, ..DaemonSetSpec::default() }
        });
        Self { metadata: metadata(self.metadata), spec, status: self.status }
    }
}

impl Reduce for ReplicaSet {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|spec| ReplicaSetSpec {
            replicas: spec.replicas,
            template: spec.template.map(template),
            ..ReplicaSetSpec::default()
        });
        Self { metadata: metadata(self.metadata), spec, status: self.status }
    }
}

impl Reduce for ReplicationController {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|spec| ReplicationControllerSpec {
            replicas: spec.replicas,
            template: spec.template.map(template),
            ..ReplicationControllerSpec::default()
        });
        Self { metadata: metadata(self.metadata), spec, status: self.status }
    }
}

impl Reduce for Job {
    fn reduced(self) -> Self {
        let status = self.status.map(|mut status| {
            // A large Job has thousands of pod names here.
            status.uncounted_terminated_pods = None;
            status
        });
        Self { metadata: metadata(self.metadata), spec: self.spec.map(job_spec), status }
    }
}

impl Reduce for CronJob {
    fn reduced(self) -> Self {
        let spec = self.spec.map(|spec| CronJobSpec {
            suspend: spec.suspend,
            job_template: JobTemplateSpec { metadata: None, spec: spec.job_template.spec.map(job_spec) },
            ..CronJobSpec::default()
        });
        Self { metadata: metadata(self.metadata), spec, status: None }
    }
}

impl Reduce for Pod {
    fn reduced(self) -> Self {
        Self {
            metadata: metadata(self.metadata),
            spec: self.spec.map(pod_spec),
            status: self.status.map(pod_status),
        }
    }
}

impl Reduce for ServiceAccount {
    fn reduced(self) -> Self {
        Self { metadata: metadata(self.metadata), ..Self::default() }
    }
}

impl Reduce for NetworkPolicy {
    fn reduced(self) -> Self {
        Self { metadata: metadata(self.metadata), ..self }
    }
}

/// Kept whole: its annotations are used, and writes need its resourceVersion.
impl Reduce for Namespace {
    fn reduced(self) -> Self {
        Self { metadata: ObjectMeta { managed_fields: None, ..self.metadata }, ..Self::default() }
    }
}
