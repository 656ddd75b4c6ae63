//! The admission policies and the ConfigMap that the guards go by: written at start, watched, put back at once. They refuse by
//! themselves, operator or not; but no policy in the API guards policies, so an administrator can take them away. Then they come
//! back, and it is told. Those of a newer version are left as they are.

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

/// Pause before putting the policies back is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Why the policies are not in place.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A policy of ours does not parse: a mistake of this build.
    #[error("the policies of this build do not parse: {0}")]
    Policies(#[from] serde_yaml::Error),
}

/// Shared by whoever keeps the policies and whoever relies on them.
#[derive(Clone, Debug)]
pub struct Fence(Arc<watch::Sender<FenceState>>);

impl Default for Fence {
    fn default() -> Self {
        let state = FenceState { drift: Some("not looked at yet".to_owned()), newer: false, epoch: 0 };
        Self(Arc::new(watch::Sender::new(state)))
    }
}

impl Fence {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> FenceState {
        self.0.borrow().clone()
    }

    /// Tells of changes.
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

/// What came of writing the policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Something was missing or had changed.
    pub written: bool,
    /// Something is of a newer version, and was left as it is.
    pub newer: bool,
}

impl Installed {
    fn add(&mut self, found: Found) {
        self.written |= matches!(found, Found::Missing | Found::Other);
        self.newer |= found == Found::Newer;
    }
}

/// How a policy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Missing,
    AsWritten,
    Newer,
    /// Older, or changed by somebody.
    Other,
}

/// How a policy that is there compares with ours: the version that it bears, and whether it says the same. Pure.
fn compare(version: Option<&str>, same: bool) -> Found {
    match version.and_then(|version| version.parse::<u64>().ok()) {
        Some(version) if version > VERSION => Found::Newer,
        Some(VERSION) if same => Found::AsWritten,
        _ => Found::Other,
    }
}

/// Writes the guards' ConfigMap, if there is none, then the policies and their bindings.
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

/// Applied where it is missing, replaced where it differs: a field that somebody added to ours, such as a match condition,
/// would survive an apply.
async fn put<K, S: PartialEq>(
    client: &Client,
    wanted: &K,
    spec: impl Fn(&K) -> Option<&S>,
) -> Result<Found, IoError>
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
        return Ok(Found::Missing);
    };
    let version = live.annotations().get(VERSION_ANNOTATION).map(String::as_str);
    let found = compare(version, spec(&live) == spec(wanted));
    if found == Found::Other {
        let mut wanted = wanted.clone();
        wanted.meta_mut().resource_version = live.resource_version();
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::FENCE.to_owned()) };
        call(what("replace"), api.replace(&name, &params, &wanted)).await?;
    }
    Ok(found)
}

/// Keeps the policies as they are, for ever. Whoever relies on them learns of drift through `fence`.
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
    let touched = stream::select(touched, vanished(client.clone()));
    // Several objects arrive at once at start: what has queued up is looked at once.
    let at_start = stream::once(std::future::ready(String::new()));
    let mut wakes = at_start.chain(touched).ready_chunks(64);
    while wakes.next().await.is_some() {
        loop {
            match install(&client).await {
                Ok(installed) => {
                    if installed.written {
                        tracing::warn!("admission policies were missing or had changed: put back");
                    }
                    if installed.newer {
                        tracing::warn!(
                            "admission policies of a newer version are in place: left as they are"
                        );
                    }
                    fence.intact(installed);
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "admission policies cannot be put in place");
                    fence.drift(&error.to_string());
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Names of objects that changed, came or went.
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

/// When an isolation list is gone, or may be. What is on it changes often, and is none of the keeper's business.
fn vanished(client: Client) -> impl futures::Stream<Item = String> + Send + Unpin {
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
    fn an_older_or_changed_policy_is_replaced_and_a_newer_one_is_left_alone() {
        let newer = (VERSION + 1).to_string();
        let own = VERSION.to_string();
        for (version, same, expected) in [
            (Some(own.as_str()), true, Found::AsWritten),
            (Some(&own), false, Found::Other),
            (Some(&newer), true, Found::Newer),
            (Some(&newer), false, Found::Newer),
            (Some("0"), true, Found::Other),
            (Some("0"), false, Found::Other),
            (None, true, Found::Other),
            (None, false, Found::Other),
            (Some("newest"), false, Found::Other),
            (Some("-2"), false, Found::Other),
            (Some("99999999999999999999999"), false, Found::Other),
        ] {
            assert_eq!(compare(version, same), expected, "{version:?} {same}");
        }
    }
}
