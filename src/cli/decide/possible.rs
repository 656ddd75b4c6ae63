//! What is possible now: which actions answer what is asked, and which of them the caller may.

use anyhow::Result;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::PAGE;
use super::report::{Considered, Possible};
use crate::access::Right;
use crate::api::conditions::{APPLIED, find};
use crate::api::{Action, Decision, GROUP, ServiceRecovery, ServiceRecoveryStatus};
use crate::calls::{IoError, each, list_all};
use crate::reviews::caller_may;

/// Number of reviews at the same time.
const PARALLEL: usize = 4;

/// Returns the actions that answer what is asked, and those that are possible at any time.
pub(super) fn actions(status: &ServiceRecoveryStatus) -> Vec<Action> {
    let asked = status.decision.iter().flat_map(|question| question.actions.clone());
    asked.chain(status.standing_orders.iter().flat_map(|_| [Action::Hold, Action::Abort])).collect()
}

/// Returns which of these actions the caller may carry out on a plan; or that, and why, this is not known.
pub(super) async fn possible(
    client: &Client,
    namespace: &str,
    plan: &str,
    actions: &[Action],
) -> (Vec<Possible>, Option<String>) {
    let reviewed = async {
        // Held by wildcards only, which are no grant.
        if may(client, namespace, plan, "never-granted").await? {
            return Ok(Vec::new());
        }
        let reviews = actions.iter().map(|&action| async move {
            let allowed = may(client, namespace, plan, action.verb()).await?;
            Ok::<_, IoError>(allowed.then_some(action))
        });
        each(PARALLEL, reviews).await
    };
    let reviewed: Result<Vec<Option<Action>>, IoError> = reviewed.await;
    let (granted, error) = match reviewed {
        Ok(granted) => (Some(granted), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let possible = |&action: &Action| {
        let allowed = granted.as_ref().map(|granted| granted.contains(&Some(action)));
        Possible { action: action.as_str(), verb: action.verb(), allowed }
    };
    (actions.iter().map(possible).collect(), error)
}

async fn may(client: &Client, namespace: &str, plan: &str, verb: &'static str) -> Result<bool, IoError> {
    let right = Right::new(verb, GROUP, "recoveryplans", Some(namespace), Some(plan));
    let what = format!("ask whether you may {verb} recoveryplans/{plan} in namespace {namespace}");
    caller_may(client, right.attributes(), what).await
}

/// Returns the Decisions about a service whose status does not say yet what became of them.
pub(super) async fn considered(
    client: &Client,
    namespace: &str,
    record: &ServiceRecovery,
) -> Result<Vec<Considered>, IoError> {
    let decisions: Api<Decision> = Api::namespaced(client.clone(), namespace);
    let what = format!("list Decisions in namespace {namespace}");
    let decisions = list_all(&what, &decisions, ListParams::default(), PAGE).await?;
    let status = record.status.as_ref();
    let since = status.and_then(|status| status.applied_decisions.as_ref()).map(|applied| applied.since.0);
    let is_considered = |decision: &Decision| {
        let spec = &decision.spec;
        let conditions = decision.status.as_ref().map_or(&[][..], |status| &status.conditions);
        // What became of those from before the record began is not known.
        let created = decision.metadata.creation_timestamp.as_ref().map(|at| at.0);
        let is_recent = created.zip(since).is_none_or(|(created, since)| created >= since);
        spec.plan == record.spec.plan_ref.name
            && spec.service == record.spec.service
            && is_recent
            && find(conditions, APPLIED).is_none()
    };
    let mut found: Vec<Considered> = decisions
        .into_iter()
        .filter(is_considered)
        .map(|decision| Considered {
            decision: decision.name_any(),
            action: decision.spec.action.as_str(),
            by: decision.spec.by,
        })
        .collect();
    found.sort_by(|a, b| a.decision.cmp(&b.decision));
    Ok(found)
}
