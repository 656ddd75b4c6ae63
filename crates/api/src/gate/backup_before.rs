//! Gate `backupBefore` as a plan declares it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DnsLabel, Duration, ObjectName};

/// The recovery point to restore from, in exactly one form. It is complete, and older than the Incident's `compromisedSince`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("[has(self.objects), has(self.volumeSnapshot), has(self.velero)].filter(x, x).size() == 1")
        .message("name exactly one of objects, volumeSnapshot, velero")
)]
pub struct BackupBeforeSpec {
    /// Objects in an S3 bucket. Their time is `LastModified`, by the clock of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<BackupObjects>,
    /// A VolumeSnapshot. Its time is `creationTime` of the bound content, by the clock of the storage system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot: Option<BackupSnapshot>,
    /// A Backup of Velero. Its time is its status, which everybody who may update Backups can write: it passes as an exception only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub velero: Option<VeleroBackup>,
    /// How much older than `compromisedSince` the recovery point has to be. It covers what clocks differ by and, for an object that was
    /// uploaded in parts, how long the upload may have taken: the time of such an object is when its upload began. Default: 0s; objects
    /// in parts then stay Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_by: Option<Duration>,
}

/// Objects in an S3 bucket that make up one recovery point.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupObjects {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// URL of the store, without a path. The gate asks for `ENDPOINT/BUCKET/KEY`. With `http` the answer is not authenticated, and passes
    /// as an exception only. Default: `https://s3.REGION.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = "^https?://[^ /?#]+/?$"))]
    pub endpoint: Option<String>,
    /// Region that requests are signed for. Default: `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9-]+$"))]
    pub region: Option<String>,
    /// Secret with the credentials. Default: none; requests are then anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_from: Option<CredentialsFrom>,
    /// The objects. All have to exist, and the newest counts.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub keys: Vec<BackupObject>,
}

/// Secret with credentials of a store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsFrom {
    /// Secret in the plan's namespace with the keys `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, optionally, `AWS_SESSION_TOKEN`.
    /// They need to read the objects only (`s3:GetObject`, `s3:GetObjectVersion`, `s3:GetObjectRetention`).
    pub secret: ObjectName,
}

/// One object of a recovery point.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupObject {
    /// Key of the object.
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// Version of the object. Default: the current version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9._~-]+$"))]
    pub version_id: Option<String>,
    /// Expected size, in bytes. Default: any but 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub size: Option<i64>,
    /// Expected SHA-256, in hexadecimal. The store has to state it, as it does for objects that were uploaded with this checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// A VolumeSnapshot to restore from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupSnapshot {
    /// Name of the VolumeSnapshot.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the VolumeSnapshot. Optional if the service has one namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
}

/// A Backup of Velero to restore from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VeleroBackup {
    /// Name of the Backup.
    #[schemars(length(min = 1, max = 253))]
    pub backup: String,
    /// Namespace of Velero. Default: `velero`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
}
