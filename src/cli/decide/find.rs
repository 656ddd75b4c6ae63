//! Finds the service that a Decision is about.

use anyhow::{Result, bail};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::{Args, PAGE};
use crate::api::{RecoveryPlan, ServiceRecovery};
use crate::calls::{call, call_opt, list_all};
use crate::plan::Plan;

/// Returns the ServiceRecovery of the service, or says why there is none.
pub(super) async fn find_record(client: &Client, namespace: &str, args: &Args) -> Result<ServiceRecovery> {
    let records: Api<ServiceRecovery> = Api::namespaced(client.clone(), namespace);
    if let Some(plan) = &args.plan {
        let name = crate::api::service_recovery_name(plan, &args.service);
        let found = call_opt(format!("read ServiceRecovery {namespace}/{name}"), records.get(&name)).await;
        return match found? {
            Some(record) => Ok(record),
            None => bail!("{}", not_there(client, namespace, args).await),
        };
    }
    let what = format!("list ServiceRecoveries in namespace {namespace}");
    let mut found = list_all(&what, &records, ListParams::default(), PAGE).await?;
    found.retain(|record| record.spec.service == args.service);
    match found.len() {
        0 => bail!("{}", not_there(client, namespace, args).await),
        1 => Ok(found.remove(0)),
        _ => {
            let plans: Vec<String> = found.into_iter().map(|record| record.spec.plan_ref.name).collect();
            bail!(
                "several plans have a service {}: say which with --plan: {}",
                args.service,
                plans.join(", ")
            )
        }
    }
}

/// Says why a service has no ServiceRecovery.
async fn not_there(client: &Client, namespace: &str, args: &Args) -> String {
    let service = &args.service;
    let plans: Api<RecoveryPlan> = Api::namespaced(client.clone(), namespace);
    let what = format!("list RecoveryPlans in namespace {namespace}");
    let plans = match list_all(&what, &plans, ListParams::default(), PAGE).await {
        Ok(plans) => plans,
        Err(error) => {
            return format!(
                "service {service} has no ServiceRecovery in namespace {namespace}, and its plan: {error}"
            );
        }
    };
    if let Some(name) = args.plan.as_ref().filter(|name| plans.iter().all(|plan| plan.name_any() != **name)) {
        return format!("there is no RecoveryPlan {namespace}/{name}");
    }
    let is_asked = |plan: &&RecoveryPlan| args.plan.as_ref().is_none_or(|name| plan.name_any() == *name);
    let with =
        plans.iter().filter(is_asked).find(|plan| plan.spec.services.iter().any(|of| of.name == *service));
    match with {
        Some(plan) if plan.spec.incident_ref.is_none() => {
            format!(
                "plan {namespace}/{} is Dormant: there is nothing to decide about {service} before it is armed",
                plan.name_any()
            )
        }
        Some(plan) => {
            format!(
                "the operator has not taken up service {service} of plan {namespace}/{} yet: resurgam status -n {namespace}",
                plan.name_any()
            )
        }
        None => {
            format!("no plan in namespace {namespace} has a service {service}. Is it another namespace (-n)?")
        }
    }
}

/// Returns the groups that a service asks to approve something.
pub(super) async fn parties(client: &Client, namespace: &str, record: &ServiceRecovery) -> Vec<String> {
    let plans: Api<RecoveryPlan> = Api::namespaced(client.clone(), namespace);
    let name = &record.spec.plan_ref.name;
    let Ok(plan) = call(format!("read RecoveryPlan {namespace}/{name}"), plans.get(name)).await else {
        return Vec::new();
    };
    let plan = Plan::from_object(&plan);
    let Some(service) = plan.services.iter().find(|service| service.name == record.spec.service) else {
        return Vec::new();
    };
    let gates =
        service.gates.iter().filter_map(|gate| gate.spec.approval.as_ref()).flat_map(|of| &of.parties);
    let steps = service.steps.iter().filter_map(|step| step.manual.as_ref()).flat_map(|of| &of.parties);
    gates.chain(steps).map(|party| party.group.clone()).collect()
}
