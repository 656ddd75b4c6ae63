//! Reads what delivers into an isolated namespace, suspends what may be, and tells of the rest.

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

/// What was read of the cluster's GitOps objects, and since when. Quarantines that look at the same time share it.
pub(super) type Shelf = Mutex<Option<(Instant, Arc<Read>)>>;

/// One that delivers, and how to write to it.
#[derive(Debug)]
struct Found {
    delivery: GitOpsSource,
    version: Option<String>,
    resource: ApiResource,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    found: Vec<Found>,
    unread: Vec<Deliverer>,
}

/// How often it is looked again because somebody wrote to what was to be suspended, another Quarantine's pass for instance.
const LOOKS: u32 = 4;

/// Looks at everything that delivers into this Quarantine's namespace, suspends what may be, and gives what to tell of each.
/// It isolates nothing: the fence does, and whatever fails here is only told.
pub(super) async fn look(client: &Client, shelf: &Shelf, quarantine: &Quarantine) -> Vec<Deliverer> {
    let mut looked = once(client, shelf, quarantine).await;
    for _ in 1..LOOKS {
        if !looked.stale {
            break;
        }
        looked = once(client, shelf, quarantine).await;
    }
    bounded(looked.told)
}

/// What one look gave.
struct Looked {
    told: Vec<Deliverer>,
    /// Something had changed since it was read: it is to be judged as it is now.
    stale: bool,
}

async fn once(client: &Client, shelf: &Shelf, quarantine: &Quarantine) -> Looked {
    let name = quarantine.name_any();
    let asked = Instant::now();
    let read = {
        let mut shelf = shelf.lock().await;
        // Who waited while another read began has no need of a read of its own. What is older may lack what came since.
        match shelf.as_ref().filter(|(began, _)| *began >= asked) {
            Some((_, read)) => read.clone(),
            None => {
                let began = Instant::now();
                let read = Arc::new(read(client).await);
                *shelf = Some((began, read.clone()));
                read
            }
        }
    };
    let reaching: Vec<_> = read.found.iter().filter(|found| found.delivery.reaches(&name)).collect();
    if reaching.is_empty() {
        return Looked { told: read.unread.clone(), stale: false };
    }
    let mut around = match surroundings(client).await {
        Ok(around) => around,
        // Who else hangs on them is not known: none is touched.
        Err(error) => {
            let why = format!("whom else it carries is not known: {error}");
            let told = reaching.iter().map(|f| f.delivery.report(DelivererState::Denied, &why)).collect();
            return Looked { told, stale: false };
        }
    };
    // Its own isolation is known better than a list does.
    let SealMark { seal, evidence } = SealMark::of(quarantine);
    around.isolated.insert(name.clone(), (seal.clone(), evidence.clone()));
    let mut told = read.unread.clone();
    let mut stale = false;
    for found in reaching {
        let (verdict, message) = found.delivery.judge(&around);
        let (state, message) = match verdict {
            GitOpsAction::Suspended => (DelivererState::Suspended, message),
            GitOpsAction::Leave => (DelivererState::Denied, message),
            GitOpsAction::Suspend => match suspend(client, found, &seal, &evidence).await {
                Ok(()) => (DelivererState::Suspended, message),
                Err(error) => {
                    stale |= error.is_conflict();
                    (DelivererState::Denied, format!("could not be suspended: {error}"))
                }
            },
        };
        told.push(found.delivery.report(state, &message));
    }
    Looked { told, stale }
}

async fn suspend(client: &Client, found: &Found, seal: &str, evidence: &str) -> Result<(), IoError> {
    let of = &found.delivery;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &of.namespace, &found.resource);
    let patch = Patch::Merge(of.suspend(found.version.as_deref(), seal, evidence));
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let what = format!("suspend {} {}/{}", of.kind, of.namespace, of.name);
    call(what, api.patch_metadata(&of.name, &params, &patch)).await?;
    Ok(())
}

async fn read(client: &Client) -> Read {
    let mut read = Read::default();
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
        // Not installed: it delivers nothing.
        let Some(resource) = resource else { continue };
        match objects(client, &resource).await {
            Ok(found) => read.found.extend(found),
            Err(error) => read.unread.push(unreadable(kind, &error.to_string())),
        }
    }
    read
}

async fn objects(client: &Client, resource: &ApiResource) -> Result<Vec<Found>, IoError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let (what, params) = (format!("list {} everywhere", resource.plural), ListParams::default());
    let found = call(what, api.list(&params)).await?.items.into_iter().filter_map(|object| {
        let version = object.resource_version();
        let object = serde_json::to_value(object).ok()?;
        let delivery = GitOpsSource::from_object(&resource.kind, &object)?;
        Some(Found { delivery, version, resource: resource.clone() })
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
