//! Creates Quarantines that the plan opts into, and claims the Quarantines of a service.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::runtime::reflector::ObjectRef;
use serde_json::json;

use super::super::context::account_user;
use super::{Act, ActError, api_version, refused};
use crate::api::conditions::shorten;
use crate::api::{
    Claim, DnsLabel, ObjectName, Quarantine, QuarantineSpec, Reason, RecoveryPlan, field_manager,
};
use crate::calls::{call, call_opt};

impl Act {
    /// Creates Quarantines as the plan's account, subject to its RBAC. Records each one at once, so that a Quarantine which a person
    /// deletes is not created again.
    pub(super) async fn quarantine(&mut self, namespaces: &[String]) -> Result<(), ActError> {
        let client = self.running.state().account.as_ref().map(|(_, client)| client.clone());
        let (Some(client), Some(incident)) = (client, self.plan.incident.clone()) else {
            return Err(refused(Reason::Conflict, "the plan's account is not known yet".to_owned()));
        };
        let quarantines: Api<Quarantine> = Api::all(client);
        let user = account_user(&self.plan.namespace, &self.plan.account);
        let reason = format!(
            "made by RecoveryPlan {}, service {}, for Incident {incident}",
            self.running.key,
            self.service().name
        );
        for namespace in namespaces {
            let spec = QuarantineSpec {
                reason: shorten(&reason, 512),
                incident_ref: Some(ObjectName { name: incident.clone() }),
                ..QuarantineSpec::default()
            };
            let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
            let wanted = Quarantine::new(namespace, spec);
            let made =
                call(format!("make Quarantine {namespace}"), quarantines.create(&params, &wanted)).await;
            match made {
                Ok(_) => {}
                // Another writer was faster; the namespace is isolated, as wanted.
                Err(error) if error.status().is_some_and(Status::is_already_exists) => {}
                Err(error) if error.status().is_some_and(|status| status.code == 403) => {
                    let message = format!(
                        "{user} may not make quarantines.resurgam.dev/{namespace}: bind it to a ClusterRole with \
                         {{apiGroups: [resurgam.dev], resources: [quarantines], verbs: [create]}}, or make it yourself ({error})"
                    );
                    return Err(refused(Reason::QuarantineNotGranted, message));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut status = self.record.as_ref().and_then(|record| record.status.clone()).unwrap_or_default();
        status.quarantined.extend(namespaces.iter().cloned().map(DnsLabel));
        self.write_status(&status).await
    }

    /// Creates namespaces as the plan's account, subject to its RBAC. Each is on the isolation lists before it exists.
    pub(super) async fn create_namespaces(&mut self, namespaces: &[String]) -> Result<(), ActError> {
        let client = self.running.state().account.as_ref().map(|(_, client)| client.clone());
        let Some(client) = client else {
            return Err(refused(Reason::Conflict, "the plan's account is not known yet".to_owned()));
        };
        let all: Api<Namespace> = Api::all(client);
        let user = account_user(&self.plan.namespace, &self.plan.account);
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
        for name in namespaces {
            let wanted = Namespace {
                metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                ..Namespace::default()
            };
            match call(format!("create namespace {name}"), all.create(&params, &wanted)).await {
                Ok(_) => {}
                Err(error) if error.status().is_some_and(Status::is_already_exists) => {}
                Err(error) if error.status().is_some_and(|status| status.code == 403) => {
                    let message = format!(
                        "{user} may not create namespace {name}: bind it to a ClusterRole with {{apiGroups: [''], resources: [namespaces], \
                         verbs: [create]}}, or create it yourself ({error})"
                    );
                    return Err(refused(Reason::NamespaceNotGranted, message));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Claims the Quarantine of each namespace, in order. Each is written only over the observed version: another write since, such as a
    /// hold or another claim, is a conflict.
    pub(super) async fn claim(&mut self, attempt: i64) -> Result<(), ActError> {
        let service = self.service();
        let wanted = Claim {
            plan_uid: self.plan.uid.clone(),
            plan_namespace: self.plan.namespace.clone(),
            plan: self.plan.name.clone(),
            service: service.name.clone(),
            attempt,
            display: self.plan.key(self.id).to_string(),
        };
        let quarantines: Api<Quarantine> = Api::all(self.context.client.clone());
        for namespace in &service.namespaces {
            let missing =
                || refused(Reason::QuarantineMissing, format!("namespace {namespace} has no Quarantine"));
            let watched =
                self.context.stores.quarantines.get(&ObjectRef::new(namespace)).ok_or_else(missing)?;
            let found = watched.0.as_ref().ok().filter(|q| q.metadata.deletion_timestamp.is_none());
            let found = found.ok_or_else(missing)?;
            if found.spec.hold.is_some() {
                return Err(refused(
                    Reason::Held,
                    format!("namespace {namespace} is held: nothing begins there"),
                ));
            }
            match found.status.as_ref().and_then(|s| s.claimed_by.as_ref()) {
                Some(claim) if *claim == wanted => continue,
                Some(claim) if claim.plan_uid == wanted.plan_uid && claim.service == wanted.service => {}
                Some(claim) if self.plan_is_there(claim).await? => {
                    let message = format!("namespace {namespace} is claimed by {}", claim.display);
                    return Err(refused(Reason::ClaimedByAnother, message));
                }
                Some(_) | None => {}
            }
            let patch = json!({
                "apiVersion": api_version(), "kind": "Quarantine",
                "metadata": {"name": namespace, "resourceVersion": found.metadata.resource_version},
                "status": {"claimedBy": wanted},
            });
            let params = PatchParams::apply(field_manager::CLAIM).force();
            let claimed = call(
                format!("claim Quarantine {namespace}"),
                quarantines.patch_status(namespace, &params, &Patch::Apply(&patch)),
            )
            .await?;
            let mut state = self.running.state();
            let held = state.services.entry(service.name.clone()).or_default();
            held.claimed.insert(namespace.clone(), claimed);
        }
        Ok(())
    }

    async fn plan_is_there(&self, claim: &Claim) -> Result<bool, ActError> {
        let plans: Api<RecoveryPlan> = Api::namespaced(self.context.client.clone(), &claim.plan_namespace);
        let what = format!("read RecoveryPlan {}/{}", claim.plan_namespace, claim.plan);
        let found = call_opt(what, plans.get_metadata(&claim.plan)).await?;
        Ok(found.is_some_and(|plan| plan.metadata.uid.as_deref() == Some(&claim.plan_uid)))
    }
}
