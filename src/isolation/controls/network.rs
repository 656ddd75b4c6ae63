//! Network isolation: default-deny both ways. Policies add up, so each that allows is made to select no pod, in place, and selects
//! what it did again on release. Nothing has to be recorded for that, nothing can be lost, and no finalizer, owner or name of a
//! policy keeps it from being neutralised.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, VersionMatch};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{MANAGED_BY_LABEL, OPERATOR_NAMESPACE, field_manager};
use crate::calls::{IoError, call, call_opt, each, list_all};
use crate::isolation::MANAGED_BY;
use crate::isolation::records::{Kind, Record, RecordError};

/// Denies everything, both ways.
pub const DEFAULT_DENY: &str = "resurgam-default-deny";
/// Allows what a clean room may talk to.
pub const CLEAN_ROOM: &str = "resurgam-clean-room";
/// Label key of the two requirements by which a neutralised policy selects no pod: it is to exist, and not to exist. The write
/// fence lets who may isolate write just that.
pub const NEUTRALISED: &str = "resurgam.dev/isolated";
/// Policies written at a time.
const PARALLEL: usize = 8;
/// Policies listed at a time: each may be as large as an object gets.
const PAGE: u32 = 50;
/// How often a policy that changed in between is read afresh.
const ATTEMPTS: usize = 5;
/// Names that a message lists.
const LISTED: usize = 3;

/// Why the network is not as it should be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// What was too large to be neutralised in place could not be recorded: it was left.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a clean room may talk to, beside itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    /// Namespaces, both ways.
    pub reachable: Vec<String>,
    /// Holes that it may connect out through.
    pub holes: Vec<NetworkPolicyEgressRule>,
}

/// A policy that was too large to be neutralised in place, as it is restored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Recorded {
    policy: NetworkPolicy,
}

/// The policies that are to be there; `room`: what a clean room may talk to, its own namespace included anyway. The operator may
/// connect to it, as `http` gates are asked from there.
#[must_use]
pub fn wanted(namespace: &str, room: Option<&Room>) -> Vec<NetworkPolicy> {
    let both = Some(vec!["Ingress".to_owned(), "Egress".to_owned()]);
    let mut all = vec![ours(
        namespace,
        DEFAULT_DENY,
        NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: both.clone(),
            ..NetworkPolicySpec::default()
        },
    )];
    if let Some(room) = room {
        let mut names = room.reachable.clone();
        names.push(namespace.to_owned());
        names.sort();
        names.dedup();
        let peer = pods_of(names, None);
        let operator =
            pods_of(vec![OPERATOR_NAMESPACE.to_owned()], Some(("app.kubernetes.io/name", "resurgam")));
        let to =
            |peer| NetworkPolicyEgressRule { to: Some(vec![peer]), ..NetworkPolicyEgressRule::default() };
        all.push(ours(
            namespace,
            CLEAN_ROOM,
            NetworkPolicySpec {
                pod_selector: Some(LabelSelector::default()),
                policy_types: both,
                ingress: Some(vec![NetworkPolicyIngressRule {
                    from: Some(vec![peer.clone(), operator]),
                    ..NetworkPolicyIngressRule::default()
                }]),
                egress: Some([vec![to(peer)], room.holes.clone()].concat()),
            },
        ));
    }
    all
}

/// Pods of these namespaces: all, or those with a label.
pub(in crate::isolation) fn pods_of(
    namespaces: Vec<String>,
    label: Option<(&str, &str)>,
) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(namespaces),
            }]),
            match_labels: None,
        }),
        pod_selector: label.map(|(key, value)| LabelSelector {
            match_expressions: None,
            match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        }),
        ip_block: None,
    }
}

fn ours(namespace: &str, name: &str, spec: NetworkPolicySpec) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    }
}

fn is_ours(policy: &NetworkPolicy) -> bool {
    matches!(policy.metadata.name.as_deref(), Some(DEFAULT_DENY | CLEAN_ROOM))
}

/// The requirements that no pod meets.
fn nothing() -> [LabelSelectorRequirement; 2] {
    ["Exists", "DoesNotExist"].map(|operator| LabelSelectorRequirement {
        key: NEUTRALISED.to_owned(),
        operator: operator.to_owned(),
        values: None,
    })
}

fn requirements(policy: &NetworkPolicy) -> Vec<LabelSelectorRequirement> {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    selector.and_then(|selector| selector.match_expressions.clone()).unwrap_or_default()
}

/// Does a policy select no pod, by our requirements?
#[must_use]
pub fn is_neutralised(policy: &NetworkPolicy) -> bool {
    let there = requirements(policy);
    nothing().iter().all(|nothing| there.contains(nothing))
}

/// A policy that selects what it did before it was neutralised.
pub(super) fn without_marks(mut policy: NetworkPolicy) -> NetworkPolicy {
    let selector = policy.spec.as_mut().and_then(|spec| spec.pod_selector.as_mut());
    if let Some(requirements) = selector.and_then(|selector| selector.match_expressions.as_mut()) {
        requirements.retain(|requirement| requirement.key != NEUTRALISED);
    }
    policy
}

/// The merge patch that neutralises a policy as it was read, or with `back` undoes that. `None`: nothing to do.
fn change(policy: &NetworkPolicy, back: bool) -> Option<serde_json::Value> {
    let mut requirements = requirements(policy);
    let before = requirements.clone();
    requirements.retain(|requirement| requirement.key != NEUTRALISED);
    if !back {
        requirements.extend(nothing());
    }
    let metadata = json!({"uid": policy.metadata.uid, "resourceVersion": policy.metadata.resource_version});
    let requirements = if requirements.is_empty() { json!(null) } else { json!(requirements) };
    let changed = if back { before.iter().any(|r| r.key == NEUTRALISED) } else { !is_neutralised(policy) };
    changed
        .then(|| json!({"metadata": metadata, "spec": {"podSelector": {"matchExpressions": requirements}}}))
}

fn restorable(policy: &NetworkPolicy) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ObjectMeta {
            name: policy.metadata.name.clone(),
            namespace: policy.metadata.namespace.clone(),
            labels: policy.metadata.labels.clone(),
            annotations: policy.metadata.annotations.clone(),
            owner_references: policy.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec: policy.spec.clone(),
    }
}

/// How a namespace was before its network is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Anybody may have written a policy until just now: the list has to be the latest.
    Open,
    /// The fence was up: what a few accounts may write wakes us again. The API server's cache will do for the list, which
    /// otherwise waits up to a tenth of a second until it knows that it is current.
    Isolated,
}

/// What was read of a namespace's network policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Those of ours that are wanted and are not as wanted.
    pub missing: Vec<String>,
    /// Those that still select pods and are not wanted.
    pub allowing: Vec<String>,
}

impl Observed {
    /// Compares what is there with what is wanted.
    #[must_use]
    pub fn new(there: &[NetworkPolicy], wanted: &[NetworkPolicy]) -> Self {
        let name = |policy: &NetworkPolicy| policy.metadata.name.clone().unwrap_or_default();
        let is_wanted = |policy: &NetworkPolicy| wanted.iter().any(|w| name(w) == name(policy));
        let is_there =
            |wanted: &NetworkPolicy| there.iter().any(|p| name(p) == name(wanted) && is_as(p, wanted));
        Self {
            missing: wanted.iter().filter(|w| !is_there(w)).map(name).collect(),
            allowing: there.iter().filter(|p| !is_wanted(p) && !is_neutralised(p)).map(name).collect(),
        }
    }

    /// Is everything denied that is to be?
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.allowing.is_empty()
    }

    /// What keeps it from holding, for people.
    #[must_use]
    pub fn message(&self) -> String {
        let list = |names: &[String]| {
            let more = names.len().saturating_sub(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
        };
        match (self.missing.is_empty(), self.allowing.is_empty()) {
            (true, true) => "denied both ways".to_owned(),
            (false, true) => format!("NetworkPolicy {} is not in place", list(&self.missing)),
            (true, false) => format!("NetworkPolicy {} still allows traffic", list(&self.allowing)),
            (false, false) => format!(
                "NetworkPolicy {} is not in place, and {} still allows traffic",
                list(&self.missing),
                list(&self.allowing)
            ),
        }
    }
}

/// Is a policy that is there what is wanted, and does nothing of its metadata take it away?
fn is_as(there: &NetworkPolicy, wanted: &NetworkPolicy) -> bool {
    let meta = &there.metadata;
    there.spec == wanted.spec
        && meta.deletion_timestamp.is_none()
        && meta.owner_references.as_ref().is_none_or(Vec::is_empty)
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
}

/// How fresh a list has to be.
enum Version {
    /// The latest there is.
    Latest,
    /// Whatever the API server's cache holds.
    Any,
    /// At least as fresh as this resource version. The API server's cache is waited for until it is, which is sooner than it takes it
    /// to know that it is the latest.
    AtLeast(String),
}

impl Before {
    fn version(self) -> Version {
        match self {
            Self::Open => Version::Latest,
            Self::Isolated => Version::Any,
        }
    }
}

/// Reads the namespace's network policies, page by page.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn list(client: &Client, namespace: &str, before: Before) -> Result<Vec<NetworkPolicy>, IoError> {
    list_at(client, namespace, before.version()).await
}

async fn list_at(client: &Client, namespace: &str, version: Version) -> Result<Vec<NetworkPolicy>, IoError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let what = format!("list networkpolicies in namespace {namespace}");
    match version {
        Version::Latest => list_all(&what, &api, ListParams::default(), PAGE).await,
        Version::Any => Ok(call(what, api.list(&ListParams::default().match_any())).await?.items),
        Version::AtLeast(version) => {
            let fresh = ListParams::default().at(&version).matching(VersionMatch::NotOlderThan);
            list_all(&what, &api, fresh, PAGE).await
        }
    }
}

/// What came of isolating a network.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Something was not as it should be, and was written.
    pub changed: bool,
    /// What is there, where nothing had to be written: it has been read, then.
    pub there: Option<Vec<NetworkPolicy>>,
}

/// Makes the namespace's network policies what they are to be, as far as it gets. `uid`: the namespace's, under which is recorded
/// what is too large to be neutralised in place.
///
/// # Errors
/// The first [`NetworkError`]; all else that could be done was done, and a next call goes on from there.
pub async fn isolate(
    client: &Client,
    namespace: &str,
    uid: &str,
    room: Option<&Room>,
    before: Before,
) -> Result<Written, NetworkError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let wanted = wanted(namespace, room);
    let mut written = Written::default();
    let mut failed = None;
    let mut latest = None;
    // Deny first, so that neutralising an allowance never leaves a moment in which all is allowed, and before anything is read
    // that somebody may have made too large to be read.
    for policy in &wanted {
        match put(&api, policy, before).await {
            Ok(Some(version)) => (written.changed, latest) = (true, Some(version)),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(NetworkError::from(error))),
        }
    }
    let at_least = latest.map_or(before.version(), Version::AtLeast);
    match list_at(client, namespace, at_least).await {
        Err(error) => failed = failed.or(Some(error.into())),
        Ok(there) => {
            let is_wanted = |p: &NetworkPolicy| wanted.iter().any(|w| w.name_any() == p.name_any());
            let others = there.iter().filter(|p| !is_wanted(p) && !is_neutralised(p)).cloned();
            match each(PARALLEL, others.map(|policy| neutralise(client, uid, policy))).await {
                Ok(changed) => written.changed |= changed.contains(&true),
                Err(error) => failed = failed.or(Some(error)),
            }
            written.there = (!written.changed).then_some(there);
        }
    }
    failed.map_or(Ok(written), Err)
}

/// Writes a policy of ours, unless it is as it should be. Returns its version, where it was written.
async fn put(
    api: &Api<NetworkPolicy>,
    policy: &NetworkPolicy,
    before: Before,
) -> Result<Option<String>, IoError> {
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let version = |policy: NetworkPolicy| policy.metadata.resource_version;
    let mut written = None;
    for attempt in 1.. {
        // Of a namespace that was open it is not asked first: none is there, as a rule.
        let live = match before {
            Before::Open if attempt == 1 => None,
            Before::Open | Before::Isolated => {
                call_opt(format!("get NetworkPolicy {namespace}/{name}"), api.get(&name)).await?
            }
        };
        let Some(live) = live else {
            match call(format!("create NetworkPolicy {namespace}/{name}"), api.create(&params, policy)).await
            {
                Ok(made) => return Ok(version(made)),
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => continue,
                Err(error) => {
                    // A webhook or a quota may refuse even what is there already.
                    let there =
                        call_opt(format!("get NetworkPolicy {namespace}/{name}"), api.get(&name)).await;
                    return match there {
                        Ok(Some(there)) if is_as(&there, policy) => Ok(written),
                        Ok(_) | Err(_) => Err(error),
                    };
                }
            }
        };
        if is_as(&live, policy) {
            return Ok(written);
        }
        // Replaced, not applied: what somebody added to ours has to go, finalizers and owners included. One that was being
        // deleted goes with its last finalizer, and is made again.
        let mut policy = policy.clone();
        policy.metadata.resource_version = live.metadata.resource_version.clone();
        let what = format!("replace NetworkPolicy {namespace}/{name}");
        match call_opt(what, api.replace(&name, &params, &policy)).await {
            Err(error) if !error.is_conflict() || attempt == ATTEMPTS => return Err(error),
            Ok(now) => written = now.and_then(version).or(live.metadata.resource_version),
            Err(_) => written = live.metadata.resource_version,
        }
    }
    Ok(written)
}

/// Makes a policy that allows select no pod. One of our own names is no tenant's: it is removed.
async fn neutralise(client: &Client, uid: &str, mut policy: NetworkPolicy) -> Result<bool, NetworkError> {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    for attempt in 1.. {
        let Some(patch) = change(&policy, false) else { break };
        let what = format!("neutralise NetworkPolicy {namespace}/{name}");
        let error = match call_opt(what, api.patch(&name, &params, &Patch::Merge(patch))).await {
            Ok(_) => break,
            Err(error) => error,
        };
        if is_too_large(&error) {
            record(client, &namespace, uid, &policy).await?;
            remove(&api, &policy).await?;
            return Ok(true);
        }
        if !error.is_conflict() || attempt == ATTEMPTS {
            return Err(error.into());
        }
        match call_opt(format!("get NetworkPolicy {namespace}/{name}"), api.get(&name)).await? {
            Some(now) => policy = now,
            None => return Ok(false),
        }
    }
    // Selecting nothing it does no harm: whether it can be removed is not this control's concern.
    if is_ours(&policy)
        && let Err(error) = remove(&api, &policy).await
    {
        tracing::debug!(%error, "neutralised, and not removed");
    }
    Ok(true)
}

/// There is no room left in it for two requirements more.
fn is_too_large(error: &IoError) -> bool {
    error
        .status()
        .is_some_and(|s| s.code == 413 || s.message.contains("too large") || s.message.contains("Too long"))
}

async fn remove(api: &Api<NetworkPolicy>, policy: &NetworkPolicy) -> Result<(), IoError> {
    let same = Preconditions { uid: policy.uid(), resource_version: None };
    let params = DeleteParams::default().preconditions(same);
    let name = policy.name_any();
    let what = format!("delete NetworkPolicy {}/{name}", policy.namespace().unwrap_or_default());
    call_opt(what, api.delete(&name, &params)).await?;
    Ok(())
}

/// Keeps a policy that has to be removed.
async fn record(
    client: &Client,
    namespace: &str,
    uid: &str,
    policy: &NetworkPolicy,
) -> Result<(), RecordError> {
    let entry = Recorded { policy: restorable(policy) };
    let record = Record { client, kind: Kind::Network, namespace, seal: uid };
    record.add(&BTreeMap::from([(policy.name_any(), entry)])).await
}

/// Lets every policy select what it did, then takes ours away. Each can be done again without harm.
///
/// # Errors
/// [`NetworkError`]; what was done so far stands, and a next call goes on from there.
pub async fn release(client: &Client, namespace: &str, uid: &str) -> Result<(), NetworkError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let there = list(client, namespace, Before::Open).await?;
    for policy in there.iter().filter(|policy| !is_ours(policy)) {
        let Some(patch) = change(policy, true) else { continue };
        let what = format!("restore NetworkPolicy {namespace}/{}", policy.name_any());
        call_opt(what, api.patch(&policy.name_any(), &params, &Patch::Merge(patch))).await?;
    }
    let record = Record { client, kind: Kind::Network, namespace, seal: uid };
    for (name, recorded) in record.read::<Recorded>().await? {
        if there.iter().any(|policy| policy.name_any() == name) {
            continue;
        }
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        call(format!("restore NetworkPolicy {namespace}/{name}"), api.create(&params, &recorded.policy))
            .await?;
    }
    for policy in there.iter().filter(|policy| is_ours(policy)) {
        remove(&api, policy).await?;
    }
    record.forget().await?;
    Ok(())
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
