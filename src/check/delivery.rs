//! GitOps and backup tools, as far as API groups show. For information only.

use kube::Client;

use super::read::why;
use super::{Check, Fact, Outcome};
use crate::calls::call;

const FLUX: Check =
    Check::warning("flux", "Flux delivers here, and is suspended or refused where a namespace is isolated");
const ARGO_CD: Check = Check::warning(
    "argo-cd",
    "Argo CD delivers here, and is suspended or refused where a namespace is isolated",
);
const VELERO: Check = Check::warning("velero", "Velero is here, and restores only where it is granted that");

/// The checks, in display order.
pub const CHECKS: [Check; 3] = [FLUX, ARGO_CD, VELERO];

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// API groups that are served.
    pub groups: Fact<Vec<String>>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let groups = call("list API groups", client.list_api_groups()).await;
    Facts {
        groups: groups
            .map(|list| list.groups.into_iter().map(|group| group.name).collect())
            .map_err(|error| why(&error)),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    const SUSPENDED: &str = "it is suspended unless another namespace depends on it";
    let groups = match &facts.groups {
        Ok(groups) => groups,
        Err(why) => return CHECKS.iter().map(|check| check.unknown(why)).collect(),
    };
    let found = |check: Check, wanted: &[&str], then: &str| match groups
        .iter()
        .find(|group| wanted.contains(&group.as_str()))
    {
        Some(group) => check.passes(format!("{group} is served; {then}")),
        None => check.does_not_apply("it is not installed"),
    };
    vec![
        found(FLUX, &["kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"], SUSPENDED),
        found(ARGO_CD, &["argoproj.io"], SUSPENDED),
        found(
            VELERO,
            &["velero.io"],
            "its account needs recover, by name, on the Quarantine of each namespace that it restores into",
        ),
    ]
}
