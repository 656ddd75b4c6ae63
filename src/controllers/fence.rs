//! The admission policies: written at start, watched, put back at once. They refuse by themselves, operator or not; but no policy
//! guards policies, so an administrator can take them away. Then they come back, and it is told.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ClusterResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};
use crate::isolation::policies::{self, Policy};

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

/// What is known of the policies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceState {
    /// `None`: as we wrote them. Else what is amiss.
    pub amiss: Option<String>,
    /// Goes up whenever they were put back: what was seen of the fence before has to be seen again.
    pub epoch: u64,
}

/// Shared by whoever keeps the policies and whoever relies on them.
#[derive(Clone, Debug)]
pub struct Fence(Arc<watch::Sender<FenceState>>);

impl Default for Fence {
    fn default() -> Self {
        let state = FenceState { amiss: Some("not looked at yet".to_owned()), epoch: 0 };
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

    fn amiss(&self, why: &str) {
        self.0.send_if_modified(|state| {
            let changed = state.amiss.as_deref() != Some(why);
            state.amiss = Some(why.to_owned());
            changed
        });
    }

    fn intact(&self, restored: bool) {
        self.0.send_if_modified(|state| {
            let changed = state.amiss.is_some() || restored;
            state.amiss = None;
            state.epoch += u64::from(changed);
            changed
        });
    }
}

/// Writes the policies and their bindings. Tells whether anything had to be written.
///
/// # Errors
/// [`FenceError`], naming the policy.
pub async fn install(client: &Client) -> Result<bool, FenceError> {
    let mut written = false;
    for Policy { policy, binding } in policies::all()? {
        written |= put(client, &policy, |object| object.spec.as_ref()).await?;
        written |= put(client, &binding, |object| object.spec.as_ref()).await?;
    }
    Ok(written)
}

/// Applied where it is missing, replaced where it differs: a field that somebody added to ours, such as a match condition,
/// would survive an apply.
async fn put<K, S: PartialEq>(
    client: &Client,
    wanted: &K,
    spec: impl Fn(&K) -> Option<&S>,
) -> Result<bool, IoError>
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
    match call_opt(what("get"), api.get(&name)).await? {
        None => {
            let params = PatchParams::apply(field_manager::FENCE).force();
            call(what("apply"), api.patch(&name, &params, &Patch::Apply(wanted))).await?;
        }
        Some(live) if spec(&live) == spec(wanted) => return Ok(false),
        Some(live) => {
            let mut wanted = wanted.clone();
            wanted.meta_mut().resource_version = live.resource_version();
            let params = PostParams { dry_run: false, field_manager: Some(field_manager::FENCE.to_owned()) };
            call(what("replace"), api.replace(&name, &params, &wanted)).await?;
        }
    }
    Ok(true)
}

/// Keeps the policies as they are, for ever. Whoever relies on them learns of drift through `fence`.
pub async fn keep(client: Client, fence: Fence) {
    let names: Vec<String> = match policies::all() {
        Ok(all) => all.iter().map(|p| p.policy.name_any()).collect(),
        Err(error) => {
            fence.amiss(&format!("the policies of this build do not parse: {error}"));
            return std::future::pending().await;
        }
    };
    let policies = touched::<ValidatingAdmissionPolicy>(client.clone());
    let bindings = touched::<ValidatingAdmissionPolicyBinding>(client.clone());
    let touched = stream::select(policies, bindings).filter(|name| std::future::ready(names.contains(name)));
    // Several objects arrive at once at start: what has queued up is looked at once.
    let at_start = stream::once(std::future::ready(String::new()));
    let mut wakes = at_start.chain(touched).ready_chunks(64);
    while wakes.next().await.is_some() {
        loop {
            match install(&client).await {
                Ok(written) => {
                    if written {
                        tracing::warn!("admission policies were missing or had changed: put back");
                    }
                    fence.intact(written);
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "admission policies cannot be put in place");
                    fence.amiss(&error.to_string());
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
