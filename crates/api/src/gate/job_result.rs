//! Gate `jobResult` as a plan declares it.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Aspect, DnsLabel, Duration};

/// A program that looks at something and says by its exit code what it found: 0 passes, 1 fails, anything else is Unknown. It runs once
/// per attempt, as a Job in an inspection namespace.
///
/// What it writes to `/dev/termination-log` is shown; nothing written there is Unknown.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobResultSpec {
    /// Namespace in which the program runs. Its Quarantine has `purpose: Inspection` and is Ready: no network, and nobody writes there but
    /// the plan's account and the cluster's controllers.
    pub inspection_namespace: DnsLabel,
    /// What of the service the program looks at. That is shown as proved when the gate passes, so name no more than it does.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub looks_at: Vec<Aspect>,
    /// The pod's `spec` (`v1`), with one container, whose exit code counts. Every image is pinned by digest. It gets no token of a
    /// ServiceAccount, and uses nothing of its node.
    #[schemars(schema_with = "pod_spec")]
    pub pod: Map<String, Value>,
    /// Volumes of the service, read-only, as they were when it was sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<InspectedVolume>,
    /// Longest time that the program may run, its pod's start included. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Duration>,
}

/// A volume of the service that the program sees read-only.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InspectedVolume {
    /// Name of the volume in the pod.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The claim of which a snapshot was taken when its namespace was sealed.
    pub from_snapshot_of: SnapshotOf,
    /// Where the container sees the volume.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^/[^:]*$"))]
    pub mount_path: String,
    /// StorageClass that makes a volume of a snapshot. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class: Option<String>,
}

/// A claim of the service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotOf {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim: String,
    /// One of the service's namespaces. Optional if the service has one namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
}

fn pod_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "minProperties": 1,
        "maxProperties": 32,
    })
}
