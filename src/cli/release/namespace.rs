//! One namespace: what is read before its release, the release itself, and the wait for it.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use resurgam_core::release::{self, Records, ReleaseForecast, ReleaseRead, Starts};
use serde_json::json;

use super::{Args, start};
use crate::access::Right;
use crate::api::{ISOLATION_LABEL, Quarantine, RELEASE_REASON_ANNOTATION, RELEASED_BY_ANNOTATION};
use crate::calls::{IoError, call_opt};
use crate::clock;
use crate::isolation::RELEASE_FINALIZER;
use crate::isolation::network::{self, Before};
use crate::isolation::workloads::{self, list_kind};
use crate::reviews::caller_may;

/// Attempts to delete a Quarantine that the operator changes meanwhile.
const ATTEMPTS: usize = 5;

/// The release of one namespace.
pub(super) struct NamespaceRelease {
    /// The namespace.
    pub(super) name: String,
    /// Its Quarantine. `None`: it is released already.
    quarantine: Option<Quarantine>,
    /// What the release does.
    pub(super) forecast: ReleaseForecast,
    /// Why it is not released.
    pub(super) refused: Option<String>,
    /// The namespace is open.
    released: bool,
    /// What was started, if that was asked for.
    pub(super) started: Option<start::Started>,
}

impl NamespaceRelease {
    /// Reads what releasing the namespace does, and whether the caller may.
    ///
    /// # Errors
    /// The Quarantine or the caller's rights could not be read.
    pub(super) async fn read(client: &Client, name: &str, args: &Args) -> Result<Self> {
        let quarantines: Api<Quarantine> = Api::all(client.clone());
        let quarantine = call_opt(format!("get Quarantine {name}"), quarantines.get(name)).await?;
        let mut one = Self {
            name: name.to_owned(),
            quarantine: None,
            forecast: ReleaseForecast { namespace: name.to_owned(), ..ReleaseForecast::default() },
            refused: None,
            released: false,
            started: None,
        };
        let Some(quarantine) = quarantine else {
            let read = read(client, name).await;
            one.forecast.unread.extend(read.inventory.as_ref().err().cloned());
            one.forecast.starts =
                release::starts(&read, Records::All, false, args.fire_missed_runs, clock::now());
            let is_recorded = one.forecast.starts != Starts::default();
            if !args.start || !(is_recorded || start::is_left(&read)) {
                one.refused = Some(format!(
                    "there is no Quarantine {name}: it does not isolate namespace {name}, and nothing there waits to be started"
                ));
            }
            one.released = true;
            return Ok(one);
        };
        one.refused = if let Some(why) = may_not_release(client, name).await? {
            Some(why)
        } else {
            release::claim(&quarantine).filter(|_| !args.even_if_claimed)
        };
        if one.refused.is_none() {
            let read = read(client, name).await;
            one.forecast = release::forecast(&quarantine, &read, args.fire_missed_runs, clock::now());
        }
        one.quarantine = Some(quarantine);
        Ok(one)
    }

    /// Returns whether the namespace has yet to be released.
    pub(super) fn is_isolated(&self) -> bool {
        !self.released
    }

    /// Returns whether the namespace is open.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Returns whether a Quarantine existed when the command began.
    pub(super) fn had_quarantine(&self) -> bool {
        self.quarantine.is_some()
    }

    /// Returns whether everything was done that was asked for.
    pub(super) fn is_complete(&self) -> bool {
        self.released && self.started.as_ref().is_none_or(start::Started::is_complete)
    }

    /// Returns the result in a few words.
    pub(super) fn progress(&self) -> &'static str {
        match (self.released, &self.started) {
            (false, _) => "NOT released",
            (true, None) => "released",
            (true, Some(started)) if started.is_complete() => "released and started",
            (true, Some(_)) => "released, but not all is started",
        }
    }

    /// Records the reason on the Quarantine, and deletes it.
    pub(super) async fn request(&mut self, client: &Client, args: &Args, by: &str) {
        let Some(quarantine) = &self.quarantine else { return };
        let api: Api<Quarantine> = Api::all(client.clone());
        self.refused = match delete(&api, quarantine, args, by).await {
            Ok(refused) => refused,
            Err(error) if error.status().is_some_and(kube::core::Status::is_forbidden) => {
                Some(not_granted(&self.name, &error.to_string()))
            }
            Err(error) => Some(error.to_string()),
        };
    }

    /// Waits until the Quarantine is gone, which is once the operator has opened the namespace.
    pub(super) async fn wait(&mut self, client: &Client, timeout: Duration) {
        let Some(quarantine) = self.quarantine.as_ref().filter(|_| self.refused.is_none()) else { return };
        let api: Api<Quarantine> = Api::all(client.clone());
        let uid = quarantine.uid().unwrap_or_default();
        let gone = await_condition(api, &self.name, conditions::is_deleted(&uid));
        match tokio::time::timeout(timeout, gone).await {
            Ok(Ok(_)) => match is_open(client, &self.name).await {
                Ok(true) => self.released = true,
                Ok(false) => {
                    self.refused = Some(format!(
                        "Quarantine {} is gone, and the namespace still has the label {ISOLATION_LABEL}: see \"Break-glass\" in \
                         docs/isolation.md",
                        self.name
                    ));
                }
                Err(error) => {
                    self.refused =
                        Some(format!("whether namespace {} is open is not known: {error}", self.name));
                }
            },
            Ok(Err(error)) => self.refused = Some(format!("watch Quarantine {}: {error}", self.name)),
            Err(_) => {
                self.refused = Some(format!(
                    "Quarantine {} is deleted, and its operator has not opened the namespace within {} s: kubectl describe quar {}",
                    self.name,
                    timeout.as_secs(),
                    self.name
                ));
            }
        }
    }

    /// Starts what was recorded when it was stopped.
    pub(super) async fn start(&mut self, client: &Client, args: &Args) {
        let uid = self.quarantine.as_ref().and_then(ResourceExt::uid);
        let records = uid.as_deref().map_or(Records::All, Records::Of);
        // What was stopped without a record is known from before the release only.
        let unrecorded = self.forecast.starts.held.iter().filter(|held| !held.by_choice).cloned().collect();
        let read = read(client, &self.name).await;
        let starts = release::starts(&read, records, false, args.fire_missed_runs, clock::now());
        self.started = Some(start::start(client, &self.name, &read, starts, unrecorded).await);
    }
}

/// Returns whether a namespace has no isolation label. One that does not exist is open.
async fn is_open(client: &Client, name: &str) -> Result<bool, IoError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = call_opt(format!("get namespace {name}"), namespaces.get_metadata(name)).await?;
    Ok(found.is_none_or(|found| !found.labels().contains_key(ISOLATION_LABEL)))
}

/// Reads what a release affects.
async fn read(client: &Client, namespace: &str) -> ReleaseRead {
    let (inventory, cronjobs, jobs, accounts, policies) = futures::join!(
        workloads::inventory(client, namespace),
        list_kind::<CronJob>(client, namespace),
        list_kind::<Job>(client, namespace),
        list_kind::<ServiceAccount>(client, namespace),
        network::list(client, namespace, Before::Open),
    );
    let text = |error: IoError| error.to_string();
    ReleaseRead {
        // The inventory lists CronJobs and Jobs as well, and reports what cannot be listed.
        inventory: inventory.map_err(text),
        cronjobs: cronjobs.unwrap_or_default(),
        jobs: jobs.unwrap_or_default(),
        accounts: accounts.map_err(text),
        policies: policies.map_err(text),
    }
}

/// Deletes the Quarantine as it was shown. Returns why not, if a plan has claimed it since.
async fn delete(
    api: &Api<Quarantine>,
    shown: &Quarantine,
    args: &Args,
    by: &str,
) -> Result<Option<String>, IoError> {
    let name = shown.name_any();
    let uid = shown.uid();
    for attempt in 1.. {
        let patch = json!({"metadata": {"uid": uid, "annotations": {
            RELEASE_REASON_ANNOTATION: args.reason, RELEASED_BY_ANNOTATION: by,
        }}});
        let what = format!("record the reason on Quarantine {name}");
        let patched = call_opt(what, api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        // Somebody else has released it.
        let Some(patched) = patched else { return Ok(None) };
        if let Some(why) = release::claim(&patched).filter(|_| !args.even_if_claimed) {
            return Ok(Some(why));
        }
        // Without it the object is gone at once, and nobody opens the namespace.
        if !patched.finalizers().iter().any(|finalizer| finalizer == RELEASE_FINALIZER) {
            return Ok(Some(format!(
                "no operator has taken up Quarantine {name} yet, so that its deletion would leave the namespace isolated: run this again \
                 once kubectl get quar {name} shows what is enforced"
            )));
        }
        let same = Preconditions { uid: uid.clone(), resource_version: patched.resource_version() };
        let params = DeleteParams::default().preconditions(same);
        match call_opt(format!("delete Quarantine {name}"), api.delete(&name, &params)).await {
            Ok(_) => break,
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Returns why the caller may not release a namespace.
async fn may_not_release(client: &Client, name: &str) -> Result<Option<String>, IoError> {
    let may = |verb: &'static str| {
        let right = Right::on_quarantine(verb, Some(name));
        caller_may(client, right.attributes(), format!("ask whether you may {verb} quarantines/{name}"))
    };
    // `never-granted` is held by wildcards only, which are no grant.
    if may("never-granted").await? {
        return Ok(Some(not_granted(name, "your right is a wildcard, which is none")));
    }
    for verb in ["release", "delete"] {
        if !may(verb).await? {
            return Ok(Some(not_granted(name, &format!("you lack {verb}"))));
        }
    }
    Ok(None)
}

fn not_granted(name: &str, why: &str) -> String {
    format!(
        "you may not release namespace {name}: that takes the verbs release and delete on quarantines.resurgam.dev/{name}, by a grant \
         of their own such as ClusterRole resurgam-recovery-lead ({why})"
    )
}
