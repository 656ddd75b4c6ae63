//! What a Quarantine is to enforce, from live reads.

use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};

use super::Context;
use crate::api::{Claim, Quarantine, RecoveryPlan, ServiceRecovery};
use crate::calls::{IoError, call_opt};
use crate::controllers::dependencies::read_dependencies;
use crate::isolation::target::{PlanState, Target, loosens, target};
use crate::plan::Plan;
use crate::plan::loosening::{Allowance, Dependency, allowance};

/// Asks what is to be enforced, reading the claimant, and its plan and dependencies if that would loosen anything, live.
/// `label`: what the namespace bears as ours.
pub(super) async fn decide(
    context: &Context,
    quarantine: &Quarantine,
    label: Option<&str>,
) -> Result<(Target, PlanState), IoError> {
    let status = quarantine.status.as_ref();
    let Some(claim) = status.and_then(|s| s.claimed_by.as_ref()) else {
        return Ok((target(quarantine, None, PlanState::Gone), PlanState::Gone));
    };
    let api: Api<ServiceRecovery> = Api::namespaced(context.client.clone(), &claim.plan_namespace);
    let recovery = read(&api, &claim.service_recovery()).await?;
    let granted = target(quarantine, recovery.as_ref(), PlanState::Alive);
    let careful = target(quarantine, recovery.as_ref(), PlanState::Gone);
    // Nothing is loosened any more for what is being deleted.
    if granted == careful || quarantine.metadata.deletion_timestamp.is_some() {
        return Ok((careful, PlanState::Gone));
    }
    // Once the label says so it is let in, or out, whether or not somebody lived to tell: what falls then takes that back no more.
    let is_granted = granted.level.label() == label;
    let plan = match plan(context, &api, claim, is_granted).await? {
        // Whatever is heard, it would loosen nothing.
        PlanState::Unheard if !loosens(status.and_then(|s| s.isolation), granted.level) => PlanState::Waits,
        plan => plan,
    };
    Ok((target(quarantine, recovery.as_ref(), plan), plan))
}

/// I1: it was asked for when every dependency stood. Any time may have passed since then, and any of them have fallen.
async fn plan(
    context: &Context,
    records: &Api<ServiceRecovery>,
    claim: &Claim,
    is_granted: bool,
) -> Result<PlanState, IoError> {
    let plans: Api<DeserializeGuard<RecoveryPlan>> =
        Api::namespaced(context.client.clone(), &claim.plan_namespace);
    let what = format!("get RecoveryPlan {}/{}", claim.plan_namespace, claim.plan);
    let Some(found) = call_opt(what, plans.get(&claim.plan)).await? else { return Ok(PlanState::Gone) };
    let meta = kube::Resource::meta(&found);
    if meta.uid.as_deref() != Some(&claim.plan_uid) || meta.deletion_timestamp.is_some() {
        return Ok(PlanState::Gone);
    }
    if is_granted {
        return Ok(PlanState::Alive);
    }
    let Ok(found) = found.0 else { return Ok(PlanState::Waits) };
    let plan = Plan::from_object(&found);
    // It was taken out of the plan meanwhile: nobody knows any more what it depends on.
    let Some(&service) = plan.index.get(&claim.service) else { return Ok(PlanState::Waits) };
    let dependencies = plan.dependencies_of(service);
    let found = read_dependencies(records, &plan, &dependencies, &context.options.heard).await?;
    Ok(match allowance(found.iter().map(Dependency::from)) {
        Allowance::Allowed => PlanState::Alive,
        Allowance::Unknown(_) => PlanState::Unheard,
        Allowance::Refused(_) => PlanState::Waits,
    })
}

async fn read(records: &Api<ServiceRecovery>, name: &str) -> Result<Option<ServiceRecovery>, IoError> {
    call_opt(format!("get ServiceRecovery {name}"), records.get(name)).await
}

/// Right before anything is let in or out: is it still what is wanted, and the Quarantine still as it was read?
pub(super) async fn still_wanted(
    context: &Context,
    quarantine: &Quarantine,
    wanted: &Target,
    label: Option<&str>,
) -> Result<bool, IoError> {
    let (api, name) = (Api::<Quarantine>::all(context.client.clone()), quarantine.name_any());
    let Some(now) = call_opt(format!("get Quarantine {name}"), api.get(&name)).await? else {
        return Ok(false);
    };
    if now.metadata.deletion_timestamp.is_some() || now.metadata.uid != quarantine.metadata.uid {
        return Ok(false);
    }
    Ok(decide(context, &now, label).await?.0 == *wanted)
}
