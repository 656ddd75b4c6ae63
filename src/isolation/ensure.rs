//! The admission policies, for who isolates without an operator: those that are missing are made, and none is changed.

use std::fmt::Debug;

use kube::api::PostParams;
use kube::core::ClusterResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::list;
use super::policies::{self, Policy};
use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};

/// What was found of one policy or binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// As this version writes it.
    InPlace,
    /// It was missing, and was made.
    Made,
    /// It is there, and differs from what this version writes: another version's, or changed by somebody.
    Differs,
    /// It is missing, and only a dry-run was made.
    Missing,
    /// It is missing, and not ours to make: only who may read all ConfigMaps may make a policy with one for a parameter.
    /// Isolation holds without it; what it guards is elsewhere.
    NotMade,
}

/// One policy or binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Kind and name.
    pub object: String,
    /// What was found of it.
    pub state: State,
    /// Why it is not as it should be, in the API server's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Found {
    /// The name alone, which a policy and its binding share.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object.rsplit(' ').next().unwrap_or_default()
    }
}

/// Why the policies are not in place.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A policy of ours does not parse: a mistake of this build.
    #[error("the policies of this build do not parse: {0}")]
    Policies(#[from] serde_yaml::Error),
}

/// Sees to it that policies and bindings are there. `dry_run`: the API server only says whether it would let us.
///
/// # Errors
/// [`EnsureError`]: one is missing and cannot be made, or could not be looked at.
pub async fn ensure(client: &Client, dry_run: bool) -> Result<Vec<Found>, EnsureError> {
    let mut all = Vec::new();
    // Without it the guards refuse everything.
    if !dry_run {
        list::ensure(client).await?;
    }
    for Policy { policy, binding } in policies::all()? {
        let guards_elsewhere = policy.spec.as_ref().is_some_and(|spec| spec.param_kind.is_some());
        let not_made = |object: &str, error: IoError| {
            if !guards_elsewhere {
                return Err(error);
            }
            let object = format!("{object} {}", policy.name_any());
            Ok(Found { object, state: State::NotMade, why: Some(error.to_string()) })
        };
        let made = one(client, &policy, |object| object.spec.as_ref(), dry_run).await;
        let made = made.or_else(|error| not_made("ValidatingAdmissionPolicy", error))?;
        let is_missing = made.state == State::NotMade;
        all.push(made);
        if is_missing {
            continue;
        }
        // To bind a policy to its lists takes a right to list them.
        let bound = one(client, &binding, |object| object.spec.as_ref(), dry_run).await;
        all.push(bound.or_else(|error| not_made("ValidatingAdmissionPolicyBinding", error))?);
    }
    Ok(all)
}

async fn one<K, S: PartialEq>(
    client: &Client,
    wanted: &K,
    spec: impl Fn(&K) -> Option<&S>,
    dry_run: bool,
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
    let object = format!("{} {name}", K::kind(&()));
    let found = |state| Ok(Found { object: object.clone(), state, why: None });
    let compare = |live: &K| if spec(live) == spec(wanted) { State::InPlace } else { State::Differs };
    if let Some(live) = call_opt(format!("get {object}"), api.get(&name)).await? {
        return found(compare(&live));
    }
    let params = PostParams { dry_run, field_manager: Some(field_manager::FENCE.to_owned()) };
    match call(format!("create {object}"), api.create(&params, wanted)).await {
        Ok(_) => found(if dry_run { State::Missing } else { State::Made }),
        // Somebody else was faster.
        Err(error) if error.is_conflict() => {
            let live = call(format!("get {object}"), api.get(&name)).await?;
            found(compare(&live))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_and_its_binding_share_a_name() {
        let of = |object: &str| Found { object: object.to_owned(), state: State::Made, why: None };
        let found = ["ValidatingAdmissionPolicy fence", "ValidatingAdmissionPolicyBinding fence"].map(of);
        assert_eq!(found.each_ref().map(Found::name), ["fence"; 2]);
    }
}
