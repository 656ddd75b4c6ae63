//! Reads the GitOps objects that deliver into an isolated namespace, suspends those that may be suspended, and reports the others.

use std::sync::Arc;
use std::time::Instant;

use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::discovery::Discovery;
use kube::{Api, Client, ResourceExt};
use tokio::sync::Mutex;

use super::Guarded;
use crate::api::quarantine::{Deliverer, DelivererState};
use crate::api::{Quarantine, RecoveryPlan, field_manager};
use crate::calls::{IoError, call};
use crate::isolation::controls::identity::SealMark;
use crate::isolation::gitops::{GitOpsAction, GitOpsContext, GitOpsSource, KINDS, bounded, unreadable};

/// GitOps objects read from the cluster, and when the read began. Concurrent passes share one read.
pub(super) type GitOpsCache = Mutex<Option<(Instant, Arc<GitOpsRead>)>>;

/// A GitOps object, and what is needed to patch it.
#[derive(Debug)]
struct WritableSource {
    delivery: GitOpsSource,
    version: Option<String>,
    resource: ApiResource,
}

/// Result of reading all GitOps objects.
#[derive(Debug, Default)]
pub(super) struct GitOpsRead {
    found: Vec<WritableSource>,
    unread: Vec<Deliverer>,
}

/// Attempts if another writer changes an object that is to be suspended, such as the pass of another Quarantine.
const ATTEMPTS: u32 = 4;

/// Suspends what delivers into this Quarantine's namespace where that is allowed, and returns a report of every object. The fence does
/// not depend on this: failures are only reported.
pub(super) async fn suspend_sources(
    client: &Client,
    cache: &GitOpsCache,
    quarantine: &Quarantine,
) -> Vec<Deliverer> {
    let mut attempt = try_once(client, cache, quarantine).await;
    for _ in 1..ATTEMPTS {
        if !attempt.is_stale {
            break;
        }
        attempt = try_once(client, cache, quarantine).await;
    }
    bounded(attempt.reports)
}

/// Result of one attempt.
struct Attempt {
    reports: Vec<Deliverer>,
    /// An object changed after it was read and has to be judged again.
    is_stale: bool,
}

async fn try_once(client: &Client, cache: &GitOpsCache, quarantine: &Quarantine) -> Attempt {
    let name = quarantine.name_any();
    let asked = Instant::now();
    let read = {
        let mut cache = cache.lock().await;
        // A read that began after this call was made is recent enough. An older read may lack newer objects.
        match cache.as_ref().filter(|(began, _)| *began >= asked) {
            Some((_, read)) => read.clone(),
            None => {
                let began = Instant::now();
                let read = Arc::new(read(client).await);
                *cache = Some((began, read.clone()));
                read
            }
        }
    };
    let reaching: Vec<_> = read.found.iter().filter(|found| found.delivery.reaches(&name)).collect();
    if reaching.is_empty() {
        return Attempt { reports: read.unread.clone(), is_stale: false };
    }
    let mut around = match surroundings(client).await {
        Ok(around) => around,
        // Without knowing which other namespaces depend on the objects, none is suspended.
        Err(error) => {
            let why = format!("the other namespaces that it delivers into are unknown: {error}");
            let reports = reaching.iter().map(|f| f.delivery.report(DelivererState::Denied, &why)).collect();
            return Attempt { reports, is_stale: false };
        }
    };
    // The Quarantine at hand is newer than its copy in the list.
    let SealMark { seal, evidence } = SealMark::of(quarantine);
    around.isolated.insert(name.clone(), (seal.clone(), evidence.clone()));
    let mut reports = read.unread.clone();
    let mut is_stale = false;
    for found in reaching {
        let (verdict, message) = found.delivery.judge(&around);
        let (state, message) = match verdict {
            GitOpsAction::Suspended => (DelivererState::Suspended, message),
            GitOpsAction::Leave => (DelivererState::Denied, message),
            GitOpsAction::Suspend => match suspend(client, found, &seal, &evidence).await {
                Ok(()) => (DelivererState::Suspended, message),
                Err(error) => {
                    is_stale |= error.is_conflict();
                    (DelivererState::Denied, format!("could not be suspended: {error}"))
                }
            },
        };
        reports.push(found.delivery.report(state, &message));
    }
    Attempt { reports, is_stale }
}

async fn suspend(client: &Client, found: &WritableSource, seal: &str, evidence: &str) -> Result<(), IoError> {
    let of = &found.delivery;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &of.namespace, &found.resource);
    let patch = Patch::Merge(of.suspend(found.version.as_deref(), seal, evidence));
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let what = format!("suspend {} {}/{}", of.kind, of.namespace, of.name);
    call(what, api.patch_metadata(&of.name, &params, &patch)).await?;
    Ok(())
}

async fn read(client: &Client) -> GitOpsRead {
    let mut read = GitOpsRead::default();
    let groups = KINDS.map(|(group, _)| group);
    let discovery = Discovery::new(client.clone()).filter(&groups).run_aggregated();
    let discovery = match call("discover what delivers", discovery).await {
        Ok(discovery) => discovery,
        Err(error) => {
            read.unread = KINDS.map(|(_, kind)| unreadable(kind, &error.to_string())).into();
            return read;
        }
    };
    for (group, kind) in KINDS {
        let resource =
            discovery.get(group).and_then(|group| group.recommended_kind(kind).map(|(resource, _)| resource));
        // The kind is not installed.
        let Some(resource) = resource else { continue };
        match objects(client, &resource).await {
            Ok(found) => read.found.extend(found),
            Err(error) => read.unread.push(unreadable(kind, &error.to_string())),
        }
    }
    read
}

async fn objects(client: &Client, resource: &ApiResource) -> Result<Vec<WritableSource>, IoError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let (what, params) = (format!("list {} everywhere", resource.plural), ListParams::default());
    let found = call(what, api.list(&params)).await?.items.into_iter().filter_map(|object| {
        let version = object.resource_version();
        let object = serde_json::to_value(object).ok()?;
        let delivery = GitOpsSource::from_object(&resource.kind, &object)?;
        Some(WritableSource { delivery, version, resource: resource.clone() })
    });
    Ok(found.collect())
}

async fn surroundings(client: &Client) -> Result<GitOpsContext, IoError> {
    let (params, quarantines) = (ListParams::default(), Api::<Guarded>::all(client.clone()));
    let plans = Api::<PartialObjectMeta<RecoveryPlan>>::all(client.clone());
    let (quarantines, plans) = futures::try_join!(
        call("list quarantines", quarantines.list(&params)),
        call("list recoveryplans", plans.list(&params)),
    )?;
    let readable = quarantines.items.iter().filter_map(|object| object.0.as_ref().ok());
    Ok(GitOpsContext::new(readable, plans.items.iter().filter_map(ResourceExt::namespace)))
}
