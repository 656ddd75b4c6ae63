//! Network isolation: default-deny both ways. Policies add up, so those that were there are recorded and removed, and restored
//! on release. Each is in the record, and read back, before it is removed: whatever crashes in between, nothing is lost.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};

use super::MANAGED_BY;
use crate::api::{MANAGED_BY_LABEL, OPERATOR_NAMESPACE, SEAL_ANNOTATION, field_manager};
use crate::calls::{IoError, call, call_opt};

/// Denies everything, both ways.
pub const DEFAULT_DENY: &str = "resurgam-default-deny";
/// Allows what a clean room may talk to.
pub const CLEAN_ROOM: &str = "resurgam-clean-room";
/// ConfigMap in the namespace with the policies that were there before.
pub const RECORD: &str = "resurgam-network-record";

/// Why the network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// What was written is not what is read: nothing is removed.
    #[error(
        "ConfigMap {0}/{RECORD} does not hold NetworkPolicy {1} after it was written: nothing was removed"
    )]
    NotRecorded(String, String),
    /// An entry of the record cannot be read: nothing is removed, nothing let out.
    #[error("ConfigMap {0}/{RECORD} holds an unreadable entry {1}: {2}")]
    Unreadable(String, String, String),
}

/// What a clean room may talk to, beside itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    /// Namespaces, both ways.
    pub reachable: Vec<String>,
    /// Holes that it may connect out through.
    pub holes: Vec<NetworkPolicyEgressRule>,
}

/// One recorded policy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Recorded {
    /// UID it had, which tells a crash between recording and removing from a newcomer of the same name.
    uid: String,
    /// What restores it.
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
pub(super) fn pods_of(namespaces: Vec<String>, label: Option<(&str, &str)>) -> NetworkPolicyPeer {
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

/// The record with these policies in it. What is recorded stays: the first of a name is what a release restores; a newcomer
/// of the same name is kept beside it, under its UID, as evidence.
fn recording(
    mut data: BTreeMap<String, String>,
    policies: &[NetworkPolicy],
) -> Result<BTreeMap<String, String>, serde_json::Error> {
    for policy in policies {
        let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
        let entry = serde_json::to_string(&Recorded { uid: uid.clone(), policy: restorable(policy) })?;
        let known = data.get(&name).and_then(|text| serde_json::from_str::<Recorded>(text).ok());
        match known {
            None => data.insert(name, entry),
            Some(known) if known.uid == uid => None,
            Some(_) => data.insert(format!("again-{uid}"), entry),
        };
    }
    Ok(data)
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

/// Is this the record of this seal? One of another seal is ignored.
fn sealed_by(record: &ConfigMap, seal: &str) -> bool {
    record.annotations().get(SEAL_ANNOTATION).map(String::as_str) == Some(seal)
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

/// Makes the namespace's network policies what they are to be, and nothing else. Tells whether anything had to be written.
///
/// # Errors
/// [`NetworkError`]; what was done so far stands, and a next call goes on from there.
pub async fn isolate(
    client: &Client,
    namespace: &str,
    seal: &str,
    room: Option<&Room>,
    before: Before,
) -> Result<bool, NetworkError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let params = match before {
        Before::Open => ListParams::default(),
        Before::Isolated => ListParams::default().match_any(),
    };
    let listing = format!("list networkpolicies in namespace {namespace}");
    // Ours are read one by one, so that what we wrote ourselves is seen for sure.
    let list = call(listing, api.list(&params));
    let (listed, mine) = futures::try_join!(async { Ok::<_, NetworkError>(list.await?) }, async {
        Ok(ours_now(&api).await?)
    })?;
    let wanted = wanted(namespace, room);
    let mut changed = false;
    // Deny first, so that removing an allowance never leaves a moment in which all is allowed.
    for policy in &wanted {
        changed |= put(&api, policy, mine.iter().find(|m| m.name_any() == policy.name_any())).await?;
    }
    let others: Vec<_> = listed.items.into_iter().filter(|policy| !is_ours(policy)).collect();
    if !others.is_empty() {
        record(client, namespace, seal, &others).await?;
    }
    let gone = mine.iter().filter(|policy| !wanted.iter().any(|w| w.name_any() == policy.name_any()));
    for policy in others.iter().chain(gone) {
        remove(&api, policy).await?;
        changed = true;
    }
    Ok(changed)
}

/// The policies of ours that are there.
async fn ours_now(api: &Api<NetworkPolicy>) -> Result<Vec<NetworkPolicy>, IoError> {
    let one = async |name| call_opt(format!("get NetworkPolicy {name}"), api.get(name)).await;
    let (deny, room) = futures::try_join!(one(DEFAULT_DENY), one(CLEAN_ROOM))?;
    Ok(deny.into_iter().chain(room).collect())
}

async fn put(
    api: &Api<NetworkPolicy>,
    policy: &NetworkPolicy,
    live: Option<&NetworkPolicy>,
) -> Result<bool, IoError> {
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    match live {
        Some(live) if live.spec == policy.spec => return Ok(false),
        // Replaced, not applied: a field that somebody added to ours has to go.
        Some(live) => {
            let mut policy = policy.clone();
            policy.metadata.resource_version = live.metadata.resource_version.clone();
            let what = format!("replace NetworkPolicy {namespace}/{name}");
            call(what, api.replace(&name, &params, &policy)).await?;
        }
        None => {
            call(format!("create NetworkPolicy {namespace}/{name}"), api.create(&params, policy)).await?;
        }
    }
    Ok(true)
}

async fn remove(api: &Api<NetworkPolicy>, policy: &NetworkPolicy) -> Result<(), IoError> {
    let same = Preconditions { uid: policy.uid(), resource_version: None };
    let params = DeleteParams::default().preconditions(same);
    let name = policy.name_any();
    let what = format!("delete NetworkPolicy {}/{name}", policy.namespace().unwrap_or_default());
    call_opt(what, api.delete(&name, &params)).await?;
    Ok(())
}

/// Writes the policies into the record and reads it back.
async fn record(
    client: &Client,
    namespace: &str,
    seal: &str,
    policies: &[NetworkPolicy],
) -> Result<(), NetworkError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let what = |verb: &str| format!("{verb} ConfigMap {namespace}/{RECORD}");
    let unreadable = |name: &str, e: serde_json::Error| {
        NetworkError::Unreadable(namespace.into(), name.into(), e.to_string())
    };
    let old = call_opt(what("get"), api.get(RECORD)).await?;
    let known = old.as_ref().filter(|o| sealed_by(o, seal)).and_then(|o| o.data.clone()).unwrap_or_default();
    let data = recording(known.clone(), policies).map_err(|e| unreadable("new", e))?;
    if data != known {
        let new = ConfigMap {
            metadata: ObjectMeta {
                name: Some(RECORD.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
                annotations: Some([(SEAL_ANNOTATION.to_owned(), seal.to_owned())].into()),
                resource_version: old.as_ref().and_then(|o| o.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        match old {
            Some(_) => call(what("replace"), api.replace(RECORD, &params, &new)).await?,
            None => call(what("create"), api.create(&params, &new)).await?,
        };
    }
    let stored = call(what("get"), api.get(RECORD)).await?.data.unwrap_or_default();
    for policy in policies {
        let uid = policy.uid().unwrap_or_default();
        let kept = [policy.name_any(), format!("again-{uid}")].iter().any(|key| {
            let entry = stored.get(key).and_then(|text| serde_json::from_str::<Recorded>(text).ok());
            entry.is_some_and(|e| e.uid == uid && e.policy == restorable(policy))
        });
        if !kept {
            return Err(NetworkError::NotRecorded(namespace.into(), policy.name_any()));
        }
    }
    Ok(())
}

/// Makes a record that was written while there was no Quarantine this seal's own.
///
/// # Errors
/// [`NetworkError`]; then the record is as it was.
pub async fn adopt(client: &Client, namespace: &str, earlier: &str, seal: &str) -> Result<(), NetworkError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = call_opt(format!("get ConfigMap {namespace}/{RECORD}"), api.get(RECORD)).await?;
    let Some(mut record) = found.filter(|record| sealed_by(record, earlier)) else {
        return Ok(());
    };
    record.annotations_mut().insert(SEAL_ANNOTATION.to_owned(), seal.to_owned());
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
    call(format!("adopt ConfigMap {namespace}/{RECORD}"), api.replace(RECORD, &params, &record)).await?;
    Ok(())
}

/// Restores what was recorded under this seal, then takes our policies away, then the record. Each is done before the next
/// begins, and doing it again does no harm.
///
/// # Errors
/// [`NetworkError`]; what was done so far stands, and a next call goes on from there.
pub async fn release(client: &Client, namespace: &str, seal: &str) -> Result<(), NetworkError> {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = call_opt(format!("get ConfigMap {namespace}/{RECORD}"), records.get(RECORD)).await?;
    let ours = found.filter(|record| sealed_by(record, seal));
    for (key, text) in ours.iter().flat_map(|record| record.data.iter().flatten()) {
        let entry: Recorded = serde_json::from_str(text)
            .map_err(|e| NetworkError::Unreadable(namespace.into(), key.clone(), e.to_string()))?;
        let newcomer = entry.policy.name_any() != *key;
        let what = format!("get NetworkPolicy {namespace}/{key}");
        if newcomer || call_opt(what, policies.get(key)).await?.is_some() {
            continue;
        }
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        let what = format!("restore NetworkPolicy {namespace}/{key}");
        call(what, policies.create(&params, &entry.policy)).await?;
    }
    for policy in ours_now(&policies).await? {
        remove(&policies, &policy).await?;
    }
    if let Some(record) = ours {
        let same = Preconditions { uid: record.uid(), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        call_opt(format!("delete ConfigMap {namespace}/{RECORD}"), records.delete(RECORD, &params)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, uid: &str, pods: &str) -> NetworkPolicy {
        NetworkPolicy {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("library".into()),
                uid: Some(uid.into()),
                resource_version: Some("1".into()),
                ..ObjectMeta::default()
            },
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(LabelSelector {
                    match_labels: Some([("app".to_owned(), pods.to_owned())].into()),
                    match_expressions: None,
                }),
                ..NetworkPolicySpec::default()
            }),
        }
    }

    fn read(data: &BTreeMap<String, String>, key: &str) -> Recorded {
        serde_json::from_str(&data[key]).unwrap()
    }

    #[test]
    fn what_is_recorded_is_never_overwritten() {
        let first = recording(BTreeMap::new(), &[policy("allow", "u1", "web")]).unwrap();
        // A crash between recording and removing: the same object again.
        assert_eq!(recording(first.clone(), &[policy("allow", "u1", "changed")]).unwrap(), first);
        // A newcomer of the same name: both are kept, the first is what a release restores.
        let both = recording(first, &[policy("allow", "u2", "evil")]).unwrap();
        assert_eq!(read(&both, "allow").uid, "u1");
        assert_eq!(read(&both, "again-u2").policy.spec, policy("allow", "u2", "evil").spec);
    }

    #[test]
    fn what_is_restored_is_what_it_was_but_for_what_the_api_server_refuses() {
        let mut before = policy("allow", "u1", "web");
        before.metadata.labels = Some([("team".to_owned(), "library".to_owned())].into());
        before.metadata.annotations = Some([("why".to_owned(), "opening hours".to_owned())].into());
        before.metadata.owner_references = Some(vec![Default::default()]);
        let entry = read(&recording(BTreeMap::new(), std::slice::from_ref(&before)).unwrap(), "allow");
        before.metadata.uid = None;
        before.metadata.resource_version = None;
        assert_eq!(entry.policy, before);
    }

    #[test]
    fn ours_are_those_of_our_names_and_a_record_is_of_one_seal() {
        for (name, expected) in [(DEFAULT_DENY, true), (CLEAN_ROOM, true), ("allow", false), ("", false)] {
            assert_eq!(is_ours(&policy(name, "u1", "web")), expected, "{name}");
        }
        let mut record = ConfigMap::default();
        assert!(!sealed_by(&record, "seal"));
        record.annotations_mut().insert(SEAL_ANNOTATION.to_owned(), "seal".to_owned());
        assert!(sealed_by(&record, "seal") && !sealed_by(&record, "another"));
    }

    #[test]
    fn a_clean_room_reaches_itself_and_what_is_reachable_only() {
        let room =
            Room { reachable: vec!["library-db".to_owned(), "library-web".to_owned()], holes: Vec::new() };
        let all = wanted("library-web", Some(&room));
        let called = |policy: &NetworkPolicy| (policy.namespace().unwrap(), policy.name_any());
        let named = |name: &str| ("library-web".to_owned(), name.to_owned());
        assert_eq!(all.iter().map(called).collect::<Vec<_>>(), [named(DEFAULT_DENY), named(CLEAN_ROOM)]);
        assert!(all.iter().all(|policy| policy.labels()[MANAGED_BY_LABEL] == MANAGED_BY));
        let of = |namespaces: &[&str]| {
            let names = namespaces.iter().map(|&name| name.to_owned()).collect();
            pods_of(names, None)
        };
        let spec = all[1].spec.clone().unwrap();
        let egress = spec.egress.unwrap();
        assert_eq!(egress.len(), 1);
        assert_eq!(egress[0].to, Some(vec![of(&["library-db", "library-web"])]));
        // In comes the operator too, and of its namespace nobody else.
        let operator = NetworkPolicyPeer {
            pod_selector: Some(LabelSelector {
                match_labels: Some([("app.kubernetes.io/name".to_owned(), "resurgam".to_owned())].into()),
                match_expressions: None,
            }),
            ..of(&["resurgam-system"])
        };
        let ingress = spec.ingress.unwrap();
        assert_eq!(ingress.len(), 1);
        assert_eq!(ingress[0].from, Some(vec![of(&["library-db", "library-web"]), operator]));
        assert_eq!(wanted("library-web", None).len(), 1);
        let deny = wanted("library-web", None)[0].spec.clone().unwrap();
        assert_eq!((deny.ingress, deny.egress), (None, None));
    }

    #[test]
    fn whatever_a_record_holds_what_it_held_is_still_in_it() {
        let sound = json!({"allow": json!({"uid": "u1", "policy": policy("allow", "u1", "web")}).to_string(), "other": "none"});
        let readable = crate::fuzz::Readable::default();
        bolero::check!().with_iterations(crate::fuzz::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
            let Some(before) = readable.read::<BTreeMap<String, String>>(crate::fuzz::spoiled(&sound, bytes))
            else {
                return;
            };
            let data = recording(before.clone(), &[policy("allow", "u2", "web"), policy("new", "u3", "web")])
                .unwrap();
            for (key, text) in
                before.iter().filter(|(_, text)| serde_json::from_str::<Recorded>(text).is_ok())
            {
                assert_eq!(data.get(key), Some(text));
            }
        });
    }
}
