//! Reads live what a Quarantine is to enforce: the claimant, and its plan and dependencies if they would loosen isolation.

use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};

use super::Context;
use crate::api::{Claim, Quarantine, RecoveryPlan, ServiceRecovery};
use crate::calls::{IoError, call_opt};
use crate::controllers::dependencies::read_dependencies;
use crate::isolation::target::{PlanState, Target, target};
use crate::isolation::wanted::{Wanted, is_plan_of, wanted, wanted_with_plan};
use crate::plan::Plan;
use crate::plan::loosening::{Dependency, allowance};

/// Returns the target and the plan's state. Reads the claimant live, and its plan and dependencies if they would loosen isolation.
/// `label`: value of the namespace's isolation label.
pub(super) async fn decide(
    context: &Context,
    quarantine: &Quarantine,
    label: Option<&str>,
) -> Result<(Target, PlanState), IoError> {
    let Some(claim) = quarantine.status.as_ref().and_then(|status| status.claimed_by.as_ref()) else {
        return Ok((target(quarantine, None, PlanState::Gone), PlanState::Gone));
    };
    let api: Api<ServiceRecovery> = Api::namespaced(context.client.clone(), &claim.plan_namespace);
    let recovery = read(&api, &claim.service_recovery()).await?;
    let (granted, is_granted) = match wanted(quarantine, recovery.as_ref(), label) {
        Wanted::Settled(target) => return Ok((target, PlanState::Gone)),
        Wanted::DependsOnPlan { granted, is_granted } => (granted, is_granted),
    };
    let plan = plan(context, claim, is_granted).await?;
    Ok(wanted_with_plan(quarantine, recovery.as_ref(), granted, plan))
}

/// Returns whether the plan still allows the loosening (I1). Dependencies may have regressed since the claim was made.
async fn plan(context: &Context, claim: &Claim, is_granted: bool) -> Result<PlanState, IoError> {
    let plans: Api<DeserializeGuard<RecoveryPlan>> =
        Api::namespaced(context.client.clone(), &claim.plan_namespace);
    let what = format!("get RecoveryPlan {}/{}", claim.plan_namespace, claim.plan);
    // A large plan takes some hundred kilobytes. It is read only if the plan controller has not compiled this generation.
    let found = call_opt(what.clone(), plans.get_metadata(&claim.plan)).await?;
    let Some(meta) = found.map(|found| found.metadata).filter(|meta| is_plan_of(meta, claim)) else {
        return Ok(PlanState::Gone);
    };
    if is_granted {
        return Ok(PlanState::Allows);
    }
    let plan = match context.options.health.plan(&claim.plan_uid, meta.generation) {
        Some(plan) => plan,
        None => {
            let Some(found) = call_opt(what, plans.get(&claim.plan)).await? else {
                return Ok(PlanState::Gone);
            };
            if !is_plan_of(found.meta(), claim) {
                return Ok(PlanState::Gone);
            }
            let Ok(found) = found.0 else { return Ok(PlanState::Refuses) };
            Arc::new(Plan::from_object(&found))
        }
    };
    // The service was removed from the plan, so its dependencies are unknown.
    let Some(&service) = plan.index.get(&claim.service) else { return Ok(PlanState::Refuses) };
    let dependencies = plan.dependency_keys(service);
    let found = read_dependencies(&context.client, &plan, &dependencies, &context.options.health).await?;
    Ok(allowance(found.iter().map(Dependency::from)).into())
}

async fn read(records: &Api<ServiceRecovery>, name: &str) -> Result<Option<ServiceRecovery>, IoError> {
    call_opt(format!("get ServiceRecovery {name}"), records.get(name)).await
}

/// Returns whether the target is still wanted and the Quarantine still the same object. Called right before a loosening.
pub(super) async fn still_wanted(
    context: &Context,
    quarantine: &Quarantine,
    target: &Target,
    label: Option<&str>,
) -> Result<bool, IoError> {
    let (api, name) = (Api::<Quarantine>::all(context.client.clone()), quarantine.name_any());
    let Some(now) = call_opt(format!("get Quarantine {name}"), api.get(&name)).await? else {
        return Ok(false);
    };
    if now.metadata.deletion_timestamp.is_some() || now.metadata.uid != quarantine.metadata.uid {
        return Ok(false);
    }
    Ok(decide(context, &now, label).await?.0 == *target)
}
