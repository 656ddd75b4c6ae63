//! Requests an isolation level. Before a loosening, everything that it depends on is read live.

use futures::future::try_join_all;
use kube::Api;

use super::super::context::account_user;
use super::super::dependencies::read_dependencies;
use super::super::observe::is_tightening;
use super::{Act, ActError, refused};
use crate::access::Right;
use crate::api::{DnsLabel, Isolation, PodSecurity, Reason, RecoveryPlan, ServiceKey, ServiceRecoverySpec};
use crate::calls::call_opt;
use crate::engine::{Room, pod_security};
use crate::plan::Service;
use crate::plan::loosening::{Allowance, Dependency, allowance};
use crate::reviews::{RecoverRights, recover_rights};

impl Act {
    /// Requests an isolation level. To loosen, every dependency must be recovered by a live read, and the plan's account must be
    /// permitted.
    pub(super) async fn request_isolation(
        &mut self,
        isolation: Isolation,
        attempt: i64,
        reachable: &[String],
        dependencies: &[ServiceKey],
    ) -> Result<(), ActError> {
        if !is_tightening(isolation) {
            futures::try_join!(
                self.plan_is_current(),
                self.requirements_are_accepted(),
                self.dependencies_stand(dependencies),
                self.account_may_recover()
            )?;
        }
        let Some(before) = self.record.as_ref() else {
            return Err(refused(
                Reason::ServiceRecoveryMissing,
                format!("ServiceRecovery {} is gone", self.name()),
            ));
        };
        let spec = ServiceRecoverySpec {
            attempt,
            isolation: Some(isolation),
            reachable: reachable.iter().cloned().map(DnsLabel).collect(),
            allow_egress: match isolation {
                Isolation::CleanRoom => self.service().allow_egress.clone(),
                Isolation::Sealed | Isolation::Contained | Isolation::Open => Vec::new(),
            },
            allow_egress_to: match isolation {
                Isolation::CleanRoom => self.service().allow_egress_to.clone(),
                Isolation::Sealed | Isolation::Contained | Isolation::Open => Vec::new(),
            },
            // Accepted with the requirements that were just read.
            pod_security: match isolation {
                Isolation::CleanRoom => pod_security(self.service()),
                Isolation::Sealed | Isolation::Contained | Isolation::Open => PodSecurity::Baseline,
            },
            // Recorded before this was decided.
            accepted: before.status.as_ref().map_or_else(Vec::new, |s| s.accepted.clone()),
            ..with_current_services(&before.spec, self.service())
        };
        self.write_spec(spec).await
    }

    /// Requests a changed clean room. Additions require the same live reads as the first request; removals require none.
    pub(super) async fn request_room(
        &mut self,
        room: &Room,
        dependencies: &[ServiceKey],
    ) -> Result<(), ActError> {
        let Some(before) = self.record.as_ref().map(|record| record.spec.clone()) else {
            return Err(refused(
                Reason::ServiceRecoveryMissing,
                format!("ServiceRecovery {} is gone", self.name()),
            ));
        };
        let reachable: Vec<DnsLabel> = room.reachable.iter().cloned().map(DnsLabel).collect();
        let loosens = reachable.iter().any(|namespace| !before.reachable.contains(namespace))
            || room.allow_egress.iter().any(|service| !before.allow_egress.contains(service))
            || room.allow_egress_to.iter().any(|block| !before.allow_egress_to.contains(block))
            || room.pod_security > before.pod_security;
        if loosens {
            futures::try_join!(
                self.plan_is_current(),
                self.requirements_are_accepted(),
                self.dependencies_stand(dependencies),
                self.account_may_recover()
            )?;
        }
        let (allow_egress, pod_security) = (room.allow_egress.clone(), room.pod_security);
        let allow_egress_to = room.allow_egress_to.clone();
        self.write_spec(ServiceRecoverySpec {
            reachable,
            allow_egress,
            allow_egress_to,
            pod_security,
            ..before
        })
        .await
    }

    /// Reads live whether the plan is still the one that was decided on. A gate or dependency may have been added, and a watch may have
    /// missed it.
    pub(in super::super) async fn plan_is_current(&self) -> Result<(), ActError> {
        let plans: Api<RecoveryPlan> = Api::namespaced(self.context.client.clone(), &self.plan.namespace);
        let what = format!("read RecoveryPlan {}", self.running.key);
        let found = call_opt(what, plans.get_metadata(&self.plan.name)).await?;
        let current = found.is_some_and(|plan| {
            plan.metadata.uid.as_deref() == Some(&self.plan.uid)
                && plan.metadata.generation == self.plan.generation
                && plan.metadata.deletion_timestamp.is_none()
        });
        let changed = || refused(Reason::PlanChanged, format!("plan {} has just changed", self.running.key));
        if current { Ok(()) } else { Err(changed()) }
    }

    /// Reads live whether every dependency is recovered and healthy (I1).
    pub(super) async fn dependencies_stand(&self, dependencies: &[ServiceKey]) -> Result<(), ActError> {
        let found =
            read_dependencies(&self.context.client, &self.plan, dependencies, &self.context.health).await?;
        match allowance(found.iter().map(Dependency::from)) {
            Allowance::Allowed => Ok(()),
            Allowance::Unknown(service) | Allowance::Refused(service) => Err(refused(
                Reason::DependencyNotRecovered,
                format!("{service} is not recovered and healthy by a live read"),
            )),
        }
    }

    /// Checks that the plan's account holds `recover` on each Quarantine by an explicit grant. An account that also holds the verb
    /// `never-granted` has a wildcard instead.
    async fn account_may_recover(&self) -> Result<(), ActError> {
        let user = account_user(&self.plan.namespace, &self.plan.account);
        let user = &user;
        let checks = self.service().namespaces.iter().map(|namespace| async move {
            let object = Right::on_quarantine("recover", Some(namespace)).object();
            let account = (self.plan.namespace.as_str(), self.plan.account.as_str());
            let message = match recover_rights(&self.context.client, account, namespace).await? {
                RecoverRights { recover: true, wildcard: false } => return Ok(()),
                RecoverRights { recover: false, .. } => {
                    format!(
                        "{user} may not 'recover' {object}: grant it by a ClusterRole with that resourceName"
                    )
                }
                RecoverRights { recover: true, wildcard: true } => {
                    format!("{user} holds 'recover' on {object} by a wildcard only: grant it by name")
                }
            };
            Err(refused(Reason::RecoverNotGranted, message))
        });
        try_join_all(checks).await.map(|_| ())
    }
}

/// Returns the spec for the namespaces in the current plan, since its gates were evaluated on those and no others.
fn with_current_services(before: &ServiceRecoverySpec, service: &Service) -> ServiceRecoverySpec {
    ServiceRecoverySpec {
        tier: service.tier,
        namespaces: service.namespaces.iter().cloned().map(DnsLabel).collect(),
        ..before.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::service_recovery::PlanRef;
    use crate::plan::Plan;

    /// I2: gates were evaluated on the current namespaces. Namespaces removed from the plan are ignored.
    #[test]
    fn request_is_for_the_namespaces_of_the_current_plan() {
        let yaml = "{serviceAccountName: recovery, services: [{name: db, namespaces: [b, c]}]}";
        let spec: crate::api::RecoveryPlanSpec = serde_yaml::from_str(yaml).unwrap();
        let plan = Plan::compile("recovery", "p", "uid-1", &spec);
        let before = ServiceRecoverySpec {
            plan_ref: PlanRef { name: "p".to_owned(), uid: "uid-1".to_owned() },
            service: "db".to_owned(),
            tier: None,
            namespaces: vec![DnsLabel("a".to_owned()), DnsLabel("b".to_owned())],
            attempt: 3,
            isolation: Some(Isolation::CleanRoom),
            reachable: Vec::new(),
            allow_egress: Vec::new(),
            allow_egress_to: Vec::new(),
            pod_security: PodSecurity::Baseline,
            accepted: Vec::new(),
        };
        let now = with_current_services(&before, &plan.services[0]);
        assert_eq!(now.namespaces, [DnsLabel("b".to_owned()), DnsLabel("c".to_owned())]);
        assert_eq!((now.attempt, now.isolation), (3, Some(Isolation::CleanRoom)));
    }
}
