//! The installation: CRDs, policies, isolation lists and namespaces.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::ClusterResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::read::{first_few, why};
use super::schema::{Difference, compare};
use super::{Check, Fact, Outcome};
use crate::api::{self, OPERATOR_NAMESPACE, PROBE_NAMESPACES, RECORDS_NAMESPACE};
use crate::calls::call_opt;
use crate::isolation::list;
use crate::isolation::policies::{self, VERSION, VERSION_ANNOTATION};
use crate::text::count;

const NAMESPACES: Check = Check::fatal("namespaces", "the operator's namespaces are there");
const KINDS: Check = Check::fatal("kinds", "the kinds are installed, and fit this version");
const POLICIES: Check =
    Check::fatal("policies", "the admission policies are in place, as this version writes them");
const LISTS: Check = Check::fatal("isolation-lists", "both isolation lists are there");

/// The checks, in display order.
pub const CHECKS: [Check; 4] = [NAMESPACES, KINDS, POLICIES, LISTS];

/// Maximum number of objects named in a message.
const NAMED: usize = 4;
/// How to restore missing parts of the installation.
const INSTALL: &str = "A cluster administrator installs them (README, Install)";

/// State of a CRD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It does not exist.
    Missing,
    /// It exists, but the API server does not serve it, and why.
    NotEstablished(String),
    /// It is served.
    Served(Difference),
}

/// State of a policy and its binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Equal to this version's.
    InPlace,
    /// Of a newer version.
    Newer(u64),
    /// Of an older version.
    Older(u64),
    /// Modified, of this version or without one.
    Changed,
    /// It does not exist.
    Missing,
}

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Missing namespaces.
    pub missing_namespaces: Fact<Vec<String>>,
    /// State of each CRD, by name.
    pub kinds: Fact<BTreeMap<String, Kind>>,
    /// State of each policy by name: the worse of policy and binding.
    pub policies: Fact<BTreeMap<String, State>>,
    /// Lists that are missing or lack their label, and the number of listed namespaces.
    pub lists: Fact<(Vec<String>, usize)>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let (missing_namespaces, kinds, policies, lists) =
        futures::join!(missing_namespaces(client), kinds(client), policies(client), lists(client));
    Facts { missing_namespaces, kinds, policies, lists }
}

async fn missing_namespaces(client: &Client) -> Fact<Vec<String>> {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut missing = Vec::new();
    for name in [OPERATOR_NAMESPACE, RECORDS_NAMESPACE].into_iter().chain(PROBE_NAMESPACES) {
        let found = call_opt(format!("get namespace {name}"), api.get_metadata(name)).await;
        if found.map_err(|error| why(&error))?.is_none() {
            missing.push(name.to_owned());
        }
    }
    Ok(missing)
}

/// Returns the state of each CRD.
///
/// # Errors
/// Why one could not be read.
pub async fn kinds(client: &Client) -> Fact<BTreeMap<String, Kind>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut kinds = BTreeMap::new();
    for own in api::crds() {
        let name = own.name_any();
        let found = call_opt(format!("get CustomResourceDefinition {name}"), api.get(&name)).await;
        let kind = match found.map_err(|error| why(&error))? {
            None => Kind::Missing,
            Some(installed) => served(&own, &installed),
        };
        kinds.insert(name, kind);
    }
    Ok(kinds)
}

fn served(own: &CustomResourceDefinition, installed: &CustomResourceDefinition) -> Kind {
    let conditions = installed.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut wrong = conditions.filter(|condition| {
        let wanted = ["Established", "NamesAccepted"].contains(&condition.type_.as_str());
        (wanted && condition.status != "True")
            || (condition.type_ == "Terminating" && condition.status == "True")
    });
    match wrong.next() {
        Some(condition) => Kind::NotEstablished(format!(
            "{}={}: {}",
            condition.type_,
            condition.status,
            condition.message.as_deref().unwrap_or_default()
        )),
        None if installed.status.is_none() => Kind::NotEstablished("it was made just now".to_owned()),
        None => Kind::Served(compare(own, installed)),
    }
}

/// Returns the state of each policy.
///
/// # Errors
/// Why one could not be read.
pub async fn policies(client: &Client) -> Fact<BTreeMap<String, State>> {
    let all = policies::all().map_err(|error| format!("the policies of this build do not parse: {error}"))?;
    let states = all.iter().map(|own| async move {
        let (policy, binding) = futures::try_join!(
            state::<ValidatingAdmissionPolicy, _>(client, &own.policy, |policy| policy.spec.as_ref()),
            state::<ValidatingAdmissionPolicyBinding, _>(client, &own.binding, |binding| binding
                .spec
                .as_ref()),
        )?;
        Ok::<_, String>((own.policy.name_any(), policy.max(binding)))
    });
    futures::future::try_join_all(states).await.map(|states| states.into_iter().collect())
}

async fn state<K, S: PartialEq>(client: &Client, own: &K, spec: impl Fn(&K) -> Option<&S>) -> Fact<State>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let name = own.name_any();
    let what = format!("get {} {name}", K::kind(&()));
    let Some(found) = call_opt(what, api.get(&name)).await.map_err(|error| why(&error))? else {
        return Ok(State::Missing);
    };
    let version = found.annotations().get(VERSION_ANNOTATION).and_then(|version| version.parse::<u64>().ok());
    Ok(match version {
        Some(version) if version > VERSION => State::Newer(version),
        Some(version) if version < VERSION => State::Older(version),
        Some(_) if spec(&found) == spec(own) => State::InPlace,
        Some(_) | None => State::Changed,
    })
}

async fn lists(client: &Client) -> Fact<(Vec<String>, usize)> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let (mut missing, mut listed) = (Vec::new(), 0);
    for name in list::CONFIG_MAPS {
        let found = call_opt(format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}"), api.get(name)).await;
        match found.map_err(|error| why(&error))? {
            Some(map) if map.labels().get(list::LABEL).is_some_and(|label| label == "true") => {
                listed = listed.max(list::levels(&map).len());
            }
            Some(_) | None => missing.push(name.to_owned()),
        }
    }
    Ok((missing, listed))
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    vec![
        namespaces_are_there(&facts.missing_namespaces),
        kinds_fit(&facts.kinds),
        policies_are_in_place(&facts.policies),
        lists_are_there(&facts.lists),
    ]
}

fn namespaces_are_there(missing: &Fact<Vec<String>>) -> Outcome {
    match missing {
        Err(why) => NAMESPACES.unknown(why),
        Ok(missing) if missing.is_empty() => NAMESPACES.passes(""),
        Ok(missing) => NAMESPACES.fails(format!("missing: {}. {INSTALL}", first_few(missing, NAMED))),
    }
}

/// Returns whether the installed CRDs fit this binary.
#[must_use]
pub fn kinds_fit(kinds: &Fact<BTreeMap<String, Kind>>) -> Outcome {
    const APPLY: &str = "A cluster administrator installs the chart of this version: helm upgrade --install resurgam charts/resurgam -n resurgam-system";
    let kinds = match kinds {
        Ok(kinds) => kinds,
        Err(why) => return KINDS.unknown(why),
    };
    let (mut wrong, mut newer) = (Vec::new(), Vec::new());
    for (name, kind) in kinds {
        match kind {
            Kind::Missing => wrong.push(format!("{name} is not installed")),
            Kind::NotEstablished(why) => wrong.push(format!("{name} is not served ({why})")),
            Kind::Served(difference) => {
                let Difference { lacking, further, changed } = difference;
                if !lacking.is_empty() {
                    wrong.push(format!("{name} lacks {}", first_few(lacking, NAMED)));
                } else if !changed.is_empty() {
                    wrong.push(format!("{name} differs at {}", first_few(changed, NAMED)));
                } else if !further.is_empty() {
                    newer.push(format!("{name} has {}", first_few(further, NAMED)));
                }
            }
        }
    }
    if !wrong.is_empty() {
        return KINDS.fails(format!("{}. {APPLY}", wrong.join("; ")));
    }
    if !newer.is_empty() {
        return KINDS.warns(format!(
            "{}: they are of a newer version than this command, which shows less than there is. Use the newer command",
            newer.join("; ")
        ));
    }
    KINDS.passes(format!("{} kinds", kinds.len()))
}

fn policies_are_in_place(policies: &Fact<BTreeMap<String, State>>) -> Outcome {
    const PUT_BACK: &str = "The operator writes them, while it runs. Without one, a cluster administrator: resurgam fence | kubectl apply \
                            --server-side -f -";
    let policies = match policies {
        Ok(policies) => policies,
        Err(why) => return POLICIES.unknown(why),
    };
    let (mut missing, mut changed, mut older, mut newer) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, state) in policies {
        match state {
            State::InPlace => {}
            State::Missing => missing.push(name),
            State::Changed => changed.push(name),
            State::Older(version) => older.push((name, version)),
            State::Newer(version) => newer.push((name, version)),
        }
    }
    let mut wrong = Vec::new();
    if missing.len() == policies.len() {
        wrong.push(format!(
            "none of the {} policies is there, so nothing that is isolated is refused",
            policies.len()
        ));
    } else if !missing.is_empty() {
        wrong.push(format!("missing: {}", first_few(&missing, NAMED)));
    }
    if !changed.is_empty() {
        wrong.push(format!("modified: {}", first_few(&changed, NAMED)));
    }
    if let Some((name, version)) = older.first() {
        wrong.push(format!(
            "{} of an older version, such as {name} (version {version}, this is {VERSION})",
            older.len()
        ));
    }
    if !wrong.is_empty() {
        return POLICIES.fails(format!("{}. {PUT_BACK}", wrong.join("; ")));
    }
    match newer.first() {
        Some((name, version)) => POLICIES.warns(format!(
            "{} of a newer version than this command's, such as {name} (version {version}, this is {VERSION}): they are left as they are. \
             Use the newer command",
            newer.len()
        )),
        None => POLICIES.passes(format!("{} policies of version {VERSION}", policies.len())),
    }
}

fn lists_are_there(lists: &Fact<(Vec<String>, usize)>) -> Outcome {
    const BACK: &str = "The operator makes what is missing again, while it runs; so does resurgam quarantine";
    match lists {
        Err(why) => LISTS.unknown(why),
        Ok((missing, 0)) if missing.is_empty() => LISTS.passes("nothing is isolated"),
        Ok((missing, listed)) if missing.is_empty() => LISTS.passes(format!("{} isolated", count(*listed, "namespace"))),
        Ok((missing, _)) if missing.len() == list::CONFIG_MAPS.len() => LISTS.fails(format!(
            "ConfigMaps {} in namespace {OPERATOR_NAMESPACE} are not there: only labels fence, and some guards refuse every write. {BACK}",
            missing.join(" and ")
        )),
        Ok((missing, _)) => LISTS.warns(format!(
            "ConfigMap {OPERATOR_NAMESPACE}/{} is not there, or lacks its label. The other copy holds. {BACK}",
            missing.join(", ")
        )),
    }
}
