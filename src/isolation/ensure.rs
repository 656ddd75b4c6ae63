//! Installs missing admission policies without the operator. Existing ones are not changed.

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

/// PolicyState of one policy or binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PolicyState {
    /// Equal to this version's.
    InPlace,
    /// It was missing, and was created.
    Made,
    /// It differs from this version's: another version, or modified by another writer.
    Differs,
    /// It is missing, and this was a dry-run.
    Missing,
    /// It is missing, and the caller may not create it: a policy with ConfigMaps as parameters requires the right to read all ConfigMaps.
    /// Isolation does not depend on it.
    NotMade,
}

/// One policy or binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnsuredPolicy {
    /// Kind and name.
    pub object: String,
    /// The state of the object.
    pub state: PolicyState,
    /// The API server's error, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl EnsuredPolicy {
    /// Returns the name without the kind. A policy and its binding have the same name.
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
    /// A built-in policy does not parse: a bug of this build.
    #[error("the policies of this build do not parse: {0}")]
    Policies(#[from] serde_yaml::Error),
}

/// Creates missing policies and bindings. `dry_run`: only asks the API server whether that would succeed.
///
/// # Errors
/// [`EnsureError`]: one is missing and cannot be created, or cannot be read.
pub async fn ensure(client: &Client, dry_run: bool) -> Result<Vec<EnsuredPolicy>, EnsureError> {
    let mut all = Vec::new();
    // Without the ConfigMap, the guards refuse everything.
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
            Ok(EnsuredPolicy { object, state: PolicyState::NotMade, why: Some(error.to_string()) })
        };
        let made = ensure_one(client, &policy, |object| object.spec.as_ref(), dry_run).await;
        let made = made.or_else(|error| not_made("ValidatingAdmissionPolicy", error))?;
        let is_missing = made.state == PolicyState::NotMade;
        all.push(made);
        if is_missing {
            continue;
        }
        // Binding a policy to its lists requires the right to list them.
        let bound = ensure_one(client, &binding, |object| object.spec.as_ref(), dry_run).await;
        all.push(bound.or_else(|error| not_made("ValidatingAdmissionPolicyBinding", error))?);
    }
    Ok(all)
}

async fn ensure_one<K, S: PartialEq>(
    client: &Client,
    wanted: &K,
    spec: impl Fn(&K) -> Option<&S>,
    dry_run: bool,
) -> Result<EnsuredPolicy, IoError>
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
    let found = |state| Ok(EnsuredPolicy { object: object.clone(), state, why: None });
    let compare =
        |live: &K| if spec(live) == spec(wanted) { PolicyState::InPlace } else { PolicyState::Differs };
    if let Some(live) = call_opt(format!("get {object}"), api.get(&name)).await? {
        return found(compare(&live));
    }
    let params = PostParams { dry_run, field_manager: Some(field_manager::FENCE.to_owned()) };
    match call(format!("create {object}"), api.create(&params, wanted)).await {
        Ok(_) => found(if dry_run { PolicyState::Missing } else { PolicyState::Made }),
        // Another writer was faster.
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
        let of =
            |object: &str| EnsuredPolicy { object: object.to_owned(), state: PolicyState::Made, why: None };
        let found = ["ValidatingAdmissionPolicy fence", "ValidatingAdmissionPolicyBinding fence"].map(of);
        assert_eq!(found.each_ref().map(EnsuredPolicy::name), ["fence"; 2]);
    }
}
