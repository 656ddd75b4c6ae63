//! Gate `backupBefore`: asks the store about objects, or reads a VolumeSnapshot and its content, or a Backup of Velero.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use resurgam_core::gates::backup_before::{
    RecoveryPoint, VELERO_NAMESPACE, bound_content, cut_off, judge, snapshot_namespace,
};
use resurgam_core::gates::job_result::volumes::GROUP as SNAPSHOTS;

use super::bucket::{Credentials, Store};
use super::dynamic::{kind, read};
use super::{Answer, Context, Gate, Interest, Question};
use crate::access::Right;
use crate::api::GateReason;
use crate::api::gate::{BackupBeforeSpec, BackupObjects, BackupSnapshot, VeleroBackup};

/// API group of Velero.
const VELERO: &str = "velero.io";

impl Gate for BackupBeforeSpec {
    fn interests(&self, _: &Question) -> Vec<Interest> {
        // A store cannot be watched, and no other controller needs a watch of these kinds: the gate is evaluated at its interval.
        Vec::new()
    }

    fn rights(&self, question: &Question) -> Vec<Right> {
        let mut rights = Vec::new();
        if let Some(from) = self.objects.as_ref().and_then(|objects| objects.credentials_from.as_ref()) {
            rights.push(Right::get::<Secret>(&question.plan_namespace, &from.secret.name));
        }
        if let Some(snapshot) = &self.volume_snapshot
            && let Ok(namespace) = snapshot_namespace(snapshot, question)
        {
            rights.push(Right::new(
                "get",
                SNAPSHOTS,
                "volumesnapshots",
                Some(namespace),
                Some(&snapshot.name),
            ));
            // The storage system's controller chooses its name.
            rights.push(Right::new("get", SNAPSHOTS, "volumesnapshotcontents", None, None));
        }
        if let Some(velero) = &self.velero {
            rights.push(Right::new(
                "get",
                VELERO,
                "backups",
                Some(velero_namespace(velero)),
                Some(&velero.backup),
            ));
        }
        rights
    }

    fn subject(&self) -> String {
        match &self.objects {
            Some(objects) => format!("the store of bucket {}", objects.bucket),
            None => "the API server".to_owned(),
        }
    }

    fn check_inputs<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        async move {
            match &self.objects {
                Some(objects) => credentials(objects, context).await.map(drop),
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move {
            // Nothing is asked about as long as there is nothing to compare with.
            if let Err(unknown) = cut_off(context.question) {
                return unknown;
            }
            match gather(self, context).await {
                Ok(found) => judge(self, context.question, &found),
                Err(unknown) => unknown,
            }
        }
        .boxed()
    }
}

async fn gather(spec: &BackupBeforeSpec, context: Context<'_>) -> Result<RecoveryPoint, Answer> {
    match (&spec.objects, &spec.volume_snapshot, &spec.velero) {
        (Some(objects), None, None) => in_bucket(objects, context).await,
        (None, Some(snapshot), None) => of_volume(snapshot, context).await,
        (None, None, Some(velero)) => {
            let kind = kind(VELERO, "Backup", "backups");
            let backup = read(context, &kind, Some(velero_namespace(velero)), &velero.backup).await?;
            Ok(RecoveryPoint::Velero(backup))
        }
        _ => Err(Answer::unknown(
            GateReason::Malformed,
            "the gate names not exactly one of objects, volumeSnapshot, velero",
        )),
    }
}

async fn in_bucket(objects: &BackupObjects, context: Context<'_>) -> Result<RecoveryPoint, Answer> {
    let credentials = credentials(objects, context).await?;
    let store = Store::new(&context.asker.http, objects, credentials.as_ref())
        .map_err(|error| Answer::unknown(error.reason, error.message))?;
    let found = store.head_all(&objects.keys).await;
    Ok(RecoveryPoint::Objects { encrypted: store.is_encrypted(), objects: found })
}

/// Reads the credentials that a plan names. `None`: it names none.
///
/// # Errors
/// The verdict Unknown. It names the Secret and its keys, and no value.
async fn credentials(objects: &BackupObjects, context: Context<'_>) -> Result<Option<Credentials>, Answer> {
    let Some(from) = &objects.credentials_from else { return Ok(None) };
    let (namespace, name) = (&context.question.plan_namespace, &from.secret.name);
    let what = format!("Secret {namespace}/{name}");
    let secret = context.reads.secret(namespace, name).await?;
    let missing = |why: &str| Answer::unknown(GateReason::CredentialsMissing, format!("{what} {why}"));
    let secret = secret.ok_or_else(|| missing("with the store's credentials is missing"))?;
    let value = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        std::str::from_utf8(&bytes.0).ok().map(|text| text.trim_end_matches('\n').to_owned())
    };
    let of = |key: &str| value(key).ok_or_else(|| missing(&format!("has no text under {key}")));
    let credentials = Credentials {
        id: of("AWS_ACCESS_KEY_ID")?,
        key: of("AWS_SECRET_ACCESS_KEY")?,
        token: value("AWS_SESSION_TOKEN"),
    };
    if !credentials.is_well_formed() {
        return Err(missing("has a value under AWS_… that is empty or cannot stand in a header"));
    }
    Ok(Some(credentials))
}

async fn of_volume(asked: &BackupSnapshot, context: Context<'_>) -> Result<RecoveryPoint, Answer> {
    let namespace = snapshot_namespace(asked, context.question)?;
    let snapshots = kind(SNAPSHOTS, "VolumeSnapshot", "volumesnapshots");
    let snapshot = read(context, &snapshots, Some(namespace), &asked.name).await?;
    let content = match snapshot.as_ref().and_then(bound_content) {
        Some(name) => {
            let contents = kind(SNAPSHOTS, "VolumeSnapshotContent", "volumesnapshotcontents");
            read(context, &contents, None, name).await?
        }
        None => None,
    };
    Ok(RecoveryPoint::Snapshot { snapshot, content })
}

fn velero_namespace(velero: &VeleroBackup) -> &str {
    velero.namespace.as_ref().map_or(VELERO_NAMESPACE, |namespace| &namespace.0)
}
