//! Installs the admission policies and the guards' ConfigMap at startup, watches them, and restores them after drift. They refuse writes
//! even while no operator runs. No policy in the API can protect policies, so an administrator can delete them; they are restored, and
//! the drift is reported. Policies of a newer version are left alone.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ClusterResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::api::{OPERATOR_NAMESPACE, field_manager};
use crate::calls::{IoError, call, call_opt};
use crate::isolation::list;
use crate::isolation::pass::FenceState;
use crate::isolation::policies::{self, Policy, VERSION, VERSION_ANNOTATION};

/// Pause before a failed restoration is retried.
const RETRY: Duration = Duration::from_secs(2);

/// Why the policies are not in place.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A built-in policy does not parse: a bug of this build.
    #[error("the policies of this build do not parse: {0}")]
    Policies(#[from] serde_yaml::Error),
}

/// State of the policies, shared by their keeper and the controllers that report it.
#[derive(Clone, Debug)]
pub struct Fence(Arc<watch::Sender<FenceState>>);

impl Default for Fence {
    fn default() -> Self {
        let state = FenceState { drift: Some("not looked at yet".to_owned()), newer: false, epoch: 0 };
        Self(Arc::new(watch::Sender::new(state)))
    }
}

impl Fence {
    /// Returns the current state.
    #[must_use]
    pub fn state(&self) -> FenceState {
        self.0.borrow().clone()
    }

    /// Subscribes to changes of the state.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<FenceState> {
        self.0.subscribe()
    }

    fn drift(&self, why: &str) {
        self.0.send_if_modified(|state| {
            let changed = state.drift.as_deref() != Some(why);
            state.drift = Some(why.to_owned());
            changed
        });
    }

    fn intact(&self, installed: Installed) {
        self.0.send_if_modified(|state| {
            let changed = state.drift.is_some() || installed.written || state.newer != installed.newer;
            state.drift = None;
            state.newer = installed.newer;
            state.epoch += u64::from(changed);
            changed
        });
    }
}

/// Result of installing the policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Something was missing or differed.
    pub written: bool,
    /// Something belongs to a newer version and was left alone.
    pub newer: bool,
}

impl Installed {
    fn add(&mut self, found: Comparison) {
        self.written |= matches!(found, Comparison::Missing | Comparison::Other);
        self.newer |= found == Comparison::Newer;
    }
}

/// How an installed policy compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Missing,
    AsWritten,
    Newer,
    /// An older version, or modified by another writer.
    Other,
}

/// Compares an installed policy with ours. `version`: the version that it carries; `same`: whether the specs are equal. Pure.
fn compare(version: Option<&str>, same: bool) -> Comparison {
    match version.and_then(|version| version.parse::<u64>().ok()) {
        Some(version) if version > VERSION => Comparison::Newer,
        Some(VERSION) if same => Comparison::AsWritten,
        _ => Comparison::Other,
    }
}

/// Writes the guards' ConfigMap if it is missing, then the policies and their bindings.
///
/// # Errors
/// [`FenceError`], naming the policy.
pub async fn install(client: &Client) -> Result<Installed, FenceError> {
    let mut installed = Installed { written: list::ensure(client).await?, newer: false };
    for Policy { policy, binding } in policies::all()? {
        installed.add(put(client, &policy, |object| object.spec.as_ref()).await?);
        installed.add(put(client, &binding, |object| object.spec.as_ref()).await?);
    }
    Ok(installed)
}

/// Creates a missing object and replaces one that differs. An apply would keep fields that another writer added, such as a match
/// condition.
async fn put<K, S: PartialEq>(
    client: &Client,
    wanted: &K,
    spec: impl Fn(&K) -> Option<&S>,
) -> Result<Comparison, IoError>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let name = wanted.name_any();
    let what = |verb: &str| format!("{verb} {} {name}", K::kind(&()));
    let Some(live) = call_opt(what("get"), api.get(&name)).await? else {
        let params = PatchParams::apply(field_manager::FENCE).force();
        call(what("apply"), api.patch(&name, &params, &Patch::Apply(wanted))).await?;
        return Ok(Comparison::Missing);
    };
    let version = live.annotations().get(VERSION_ANNOTATION).map(String::as_str);
    let found = compare(version, spec(&live) == spec(wanted));
    if found == Comparison::Other {
        let mut wanted = wanted.clone();
        wanted.meta_mut().resource_version = live.resource_version();
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::FENCE.to_owned()) };
        call(what("replace"), api.replace(&name, &params, &wanted)).await?;
    }
    Ok(found)
}

/// Keeps the policies installed. Never returns. Publishes drift through `fence`.
pub async fn keep(client: Client, fence: Fence) {
    let names: Vec<String> = match policies::all() {
        Ok(all) => all.iter().map(|p| p.policy.name_any()).collect(),
        Err(error) => {
            fence.drift(&format!("the policies of this build do not parse: {error}"));
            return std::future::pending().await;
        }
    };
    let policies = touched::<ValidatingAdmissionPolicy>(client.clone());
    let bindings = touched::<ValidatingAdmissionPolicyBinding>(client.clone());
    let touched = stream::select(policies, bindings).filter(|name| std::future::ready(names.contains(name)));
    let touched = stream::select(touched, list_deletions(client.clone()));
    // Several objects arrive at once at startup; the queued ones are handled together.
    let at_start = stream::once(std::future::ready(String::new()));
    let mut wakes = at_start.chain(touched).ready_chunks(64);
    while wakes.next().await.is_some() {
        loop {
            match install(&client).await {
                Ok(installed) => {
                    if installed.written {
                        tracing::warn!("admission policies were missing or modified; restored");
                    }
                    if installed.newer {
                        tracing::warn!("admission policies of a newer version are installed; not modified");
                    }
                    fence.intact(installed);
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "admission policies not installed; will retry");
                    fence.drift(&error.to_string());
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Returns a stream of the names of changed objects.
fn touched<K>(client: Client) -> impl futures::Stream<Item = String> + Send + Unpin
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + 'static,
{
    watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .filter_map(|object| async move { object.ok().map(|object| object.name_any()) })
        .boxed()
}

/// Returns a stream of deletions of isolation lists. Their content changes often and is managed elsewhere.
fn list_deletions(client: Client) -> impl futures::Stream<Item = String> + Send + Unpin {
    let only = watcher::Config::default().labels(&format!("{}=true", list::LABEL));
    watcher(Api::<ConfigMap>::namespaced(client, OPERATOR_NAMESPACE), only)
        .default_backoff()
        .filter_map(|event| {
            let gone = matches!(event, Ok(watcher::Event::Delete(_) | watcher::Event::InitDone));
            std::future::ready(gone.then(|| list::CONFIG_MAPS[0].to_owned()))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_or_modified_policy_is_replaced_and_newer_is_kept() {
        let newer = (VERSION + 1).to_string();
        let own = VERSION.to_string();
        for (version, same, expected) in [
            (Some(own.as_str()), true, Comparison::AsWritten),
            (Some(&own), false, Comparison::Other),
            (Some(&newer), true, Comparison::Newer),
            (Some(&newer), false, Comparison::Newer),
            (Some("0"), true, Comparison::Other),
            (Some("0"), false, Comparison::Other),
            (None, true, Comparison::Other),
            (None, false, Comparison::Other),
            (Some("newest"), false, Comparison::Other),
            (Some("-2"), false, Comparison::Other),
            (Some("99999999999999999999999"), false, Comparison::Other),
        ] {
            assert_eq!(compare(version, same), expected, "{version:?} {same}");
        }
    }
}
