//! Reads the network policies of all other APIs that the API server serves.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Mutex;

use super::{
    AGGREGATE_LABEL, AcceptedPolicy, NamespaceLabels, ObservedPolicy, OtherPolicies, StandingPolicy,
    allowance,
};
use crate::calls::{IoError, call};

/// How long the list of served kinds is cached: less than [`RECHECK`], so that each read finds new kinds.
const KINDS_AGE: Duration = Duration::from_secs(25);
/// Page size. Each policy may be as large as an object can be.
const PAGE: u32 = 100;
/// Deadline for reading one kind, so that thousands of policies do not delay a pass.
const KIND_DEADLINE: Duration = Duration::from_secs(30);
/// Suffix of the kinds that are read.
const SUFFIX: &str = "NetworkPolicy";
/// Group of the kind that the operator writes itself.
const OWN_GROUP: &str = "networking.k8s.io";
/// Groups whose kinds are expected even while their aggregated API server does not answer.
const GROUPS: [&str; 5] =
    ["cilium.io", "crd.projectcalico.org", "projectcalico.org", "policy.networking.k8s.io", "crd.antrea.io"];
/// The second group serves the objects of the first again, together with NetworkPolicies.
const CALICO: (&str, &str) = ("crd.projectcalico.org", "projectcalico.org");

/// The last read. Concurrent callers share it.
#[derive(Debug, Default)]
pub struct PolicyReader {
    kinds: Mutex<Option<(Instant, Arc<Kinds>)>>,
    read: Mutex<Option<(Instant, Arc<Read>)>>,
}

/// Served kinds of network policies.
#[derive(Debug, Default)]
struct Kinds {
    served: Vec<Kind>,
    unknown: Vec<String>,
}

#[derive(Debug)]
struct Kind {
    resource: ApiResource,
    namespaced: bool,
    can_list: bool,
}

impl Kind {
    /// `ciliumnetworkpolicies.cilium.io`
    fn name(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }
}

/// All policies that may allow traffic.
#[derive(Debug, Default)]
struct Read {
    policies: Vec<ReadPolicy>,
    unknown: Vec<String>,
}

#[derive(Debug)]
struct ReadPolicy {
    policy: StandingPolicy,
    /// `None`: a cluster-wide policy, which is judged for each namespace.
    observed: Option<ObservedPolicy>,
}

/// Returns the policies of other APIs that affect this namespace, not older than `asked`. Policies that cannot be read are `unknown`. If
/// no such kind is served, only the list of kinds is read, at most once a minute.
pub async fn observe(
    client: &Client,
    reader: &PolicyReader,
    namespace: &Namespace,
    accepted: &[AcceptedPolicy],
    asked: Instant,
) -> OtherPolicies {
    let kinds = match reader.kinds(client, asked).await {
        Ok(kinds) => kinds,
        Err(error) => {
            let unknown = format!("{error}. It is tried again");
            return OtherPolicies { unknown: vec![unknown], ..OtherPolicies::default() };
        }
    };
    if kinds.served.is_empty() {
        return OtherPolicies { unknown: kinds.unknown.clone(), ..OtherPolicies::default() };
    }
    let read = reader.read(client, &kinds, asked).await;
    let labels = NamespaceLabels::new(&namespace.name_any(), namespace.labels());
    let mut found = OtherPolicies {
        unknown: kinds.unknown.iter().chain(&read.unknown).cloned().collect(),
        ..OtherPolicies::default()
    };
    for ReadPolicy { policy, observed } in &read.policies {
        let why = match observed {
            Some(observed) => allowance(observed, &labels),
            None => (policy.namespace == namespace.metadata.name).then(|| policy.why.clone()),
        };
        let Some(why) = why else { continue };
        let policy = StandingPolicy { why, ..policy.clone() };
        if accepted.iter().any(|accepted| accepted.covers(&policy)) {
            found.accepted.push(policy);
        } else {
            found.standing.push(policy);
        }
    }
    found.standing.sort();
    found.accepted.sort();
    found
}

impl PolicyReader {
    /// Returns a hash of all policies, including read errors. It changes when they do.
    pub async fn fingerprint(&self, client: &Client) -> u64 {
        let asked = Instant::now();
        let mut hasher = DefaultHasher::new();
        match self.kinds(client, asked).await {
            Ok(kinds) => {
                kinds.unknown.hash(&mut hasher);
                if !kinds.served.is_empty() {
                    let read = self.read(client, &kinds, asked).await;
                    read.unknown.hash(&mut hasher);
                    for ReadPolicy { policy, .. } in &read.policies {
                        (&policy.uid, policy.generation, &policy.why).hash(&mut hasher);
                    }
                }
            }
            // The error text is left out: it may vary, and each change wakes every isolated namespace.
            Err(_) => "unknown".hash(&mut hasher),
        }
        hasher.finish()
    }

    async fn kinds(&self, client: &Client, asked: Instant) -> Result<Arc<Kinds>, IoError> {
        let mut kinds = self.kinds.lock().await;
        if let Some((_, kinds)) =
            kinds.as_ref().filter(|(at, _)| *at >= asked || asked.saturating_duration_since(*at) < KINDS_AGE)
        {
            return Ok(kinds.clone());
        }
        let began = Instant::now();
        let found = Arc::new(discover(client).await?);
        *kinds = Some((began, found.clone()));
        Ok(found)
    }

    async fn read(&self, client: &Client, kinds: &Kinds, asked: Instant) -> Arc<Read> {
        let mut last = self.read.lock().await;
        // An earlier read may lack a policy written since.
        if let Some((_, read)) = last.as_ref().filter(|(began, _)| *began >= asked) {
            return read.clone();
        }
        let began = Instant::now();
        let mut read = Read::default();
        let lists = kinds.served.iter().map(|kind| async move {
            let listed = tokio::time::timeout(KIND_DEADLINE, list(client, kind)).await;
            let late = || IoError::Timeout { what: format!("list {}", kind.name()), after: KIND_DEADLINE };
            (kind, listed.unwrap_or_else(|_| Err(late())))
        });
        for (kind, listed) in futures::future::join_all(lists).await {
            match listed {
                Ok(policies) => read.policies.extend(policies),
                Err(error) => {
                    // The kind may be no longer served.
                    if error.is_not_served() {
                        *self.kinds.lock().await = None;
                    }
                    read.unknown.push(unreadable(kind, &error));
                }
            }
        }
        let read = Arc::new(read);
        *last = Some((began, read.clone()));
        read
    }
}

fn unreadable(kind: &Kind, error: &IoError) -> String {
    if error.status().is_some_and(|status| status.code == 403) {
        return format!(
            "the operator may not list {}. A cluster administrator gives a ClusterRole that may list {} the label \
             {AGGREGATE_LABEL}=true",
            kind.resource.kind,
            kind.name()
        );
    }
    format!("{error}. It is tried again")
}

async fn discover(client: &Client) -> Result<Kinds, IoError> {
    let what = "discover kinds of network policies";
    let list = call(what, client.list_api_groups_aggregated()).await?;
    // An API server without this API answers with another list, which deserializes as empty.
    if list.items.is_empty() {
        let unsupported =
            kube::Error::Discovery(kube::error::DiscoveryError::EmptyApiGroup("any".to_owned()));
        return Err(IoError::Api { what: what.to_owned(), source: Arc::new(unsupported) });
    }
    let mut kinds = Kinds::default();
    let mut seen = BTreeSet::new();
    for group in list.items {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        if name == OWN_GROUP {
            continue;
        }
        for version in group.versions {
            if version.freshness.as_deref() == Some("Stale") && GROUPS.contains(&name.as_str()) {
                kinds.unknown.push(format!(
                    "the API server of {name} does not answer. A cluster administrator repairs its APIService"
                ));
            }
            let number = version.version.unwrap_or_default();
            for resource in version.resources {
                let kind = resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default();
                let plural = resource.resource.unwrap_or_default();
                // A kind that cannot be created is computed from other objects. The preferred version comes first.
                let is_written = resource.verbs.iter().any(|verb| verb == "create");
                if !kind.ends_with(SUFFIX)
                    || !is_written
                    || plural.is_empty()
                    || !seen.insert((name.clone(), plural.clone()))
                {
                    continue;
                }
                kinds.served.push(Kind {
                    resource: ApiResource {
                        api_version: format!("{name}/{number}"),
                        group: name.clone(),
                        version: number.clone(),
                        kind,
                        plural,
                    },
                    namespaced: resource.scope.as_deref() != Some("Cluster"),
                    can_list: resource.verbs.iter().any(|verb| verb == "list"),
                });
            }
        }
    }
    let (stored, served) = CALICO;
    kinds.served.retain(|kind| {
        kind.resource.group != served || !seen.contains(&(stored.to_owned(), kind.resource.plural.clone()))
    });
    for kind in kinds.served.iter().filter(|kind| !kind.can_list) {
        kinds.unknown.push(format!("{} cannot be listed", kind.name()));
    }
    kinds.served.retain(|kind| kind.can_list);
    kinds.unknown.sort();
    kinds.unknown.dedup();
    Ok(kinds)
}

async fn list(client: &Client, kind: &Kind) -> Result<Vec<ReadPolicy>, IoError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource);
    let mut policies = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let answer = call(format!("list {} everywhere", kind.name()), api.list(&page)).await?;
        policies.extend(answer.items.into_iter().filter_map(|object| read(kind, object)));
        match answer.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(policies),
        }
    }
}

/// Reads a policy. `None`: it allows nothing in any namespace.
fn read(kind: &Kind, object: DynamicObject) -> Option<ReadPolicy> {
    let meta = &object.metadata;
    let mut policy = StandingPolicy {
        namespace: meta.namespace.clone().filter(|_| kind.namespaced),
        kind: kind.resource.kind.clone(),
        resource: kind.name(),
        name: object.name_any(),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation,
        why: String::new(),
    };
    let observed = ObservedPolicy {
        group: kind.resource.group.clone(),
        kind: kind.resource.kind.clone(),
        namespace: policy.namespace.clone(),
        object: object.data,
    };
    // Most policies belong to one namespace, and only the outcome is kept of those.
    if let Some(namespace) = &observed.namespace {
        policy.why = allowance(&observed, &NamespaceLabels::new(namespace, &Default::default()))?;
        return Some(ReadPolicy { policy, observed: None });
    }
    Some(ReadPolicy { policy, observed: Some(observed) })
}
