//! Carries out what was decided for one service: its status first, as intent, and then the effect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::jiff::SignedDuration;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::dependencies::read_dependencies;
use super::metrics::Controller;
use super::observe::{self, is_tightening};
use super::running::Running;
use crate::api::conditions::shorten;
use crate::api::service_recovery::PlanRef;
use crate::api::{
    Claim, DnsLabel, GROUP, Isolation, ObjectName, PodSecurity, Quarantine, QuarantineSpec, Reason,
    RecoveryPlan, ServiceRecovery, ServiceRecoverySpec, ServiceRecoveryStatus, Stage, field_manager,
    service_recovery_name,
};
use crate::calls::{IoError, call, call_opt};
use crate::clock;
use crate::engine::{Effect, Refusal, Room, ServiceDecided, StepProgress, pod_security};
use crate::plan::loosening::{Allowance, Dependency, allowance};
use crate::plan::{Plan, Service, ServiceId};
use crate::steps::{self, StepError};

/// Somebody else wrote in between: what that was arrives by the watch about now.
const CONFLICT_AGAIN_AFTER: SignedDuration = SignedDuration::from_millis(20);
/// What failed on the way is tried again after this.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// What needs somebody to change something, such as a grant, is tried again after this: nothing tells of it.
const REFUSED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// One service, for as long as something is done about it.
pub(crate) struct Act {
    pub(crate) context: Arc<Context>,
    pub(crate) running: Arc<Running>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) id: ServiceId,
    /// The ServiceRecovery that the decision rests on.
    pub(crate) record: Option<ServiceRecovery>,
    /// The status has been written.
    pub(crate) wrote: bool,
}

/// Why something decided did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{message}")]
    Refused { reason: Reason, message: String },
}

impl Act {
    pub(super) fn service(&self) -> &Service {
        &self.plan.services[self.id]
    }

    fn records(&self) -> Api<ServiceRecovery> {
        Api::namespaced(self.context.client.clone(), &self.plan.namespace)
    }

    fn name(&self) -> String {
        service_recovery_name(&self.plan.name, &self.service().name)
    }

    /// Writes, acts, and lets go of the service.
    pub(crate) async fn carry_out(mut self, decided: ServiceDecided) {
        let began = Instant::now();
        // A panic must not leave the service busy for ever, with nothing to say why.
        let result = AssertUnwindSafe(self.try_carry_out(&decided)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| {
            let message = "the operator panicked on this: a bug; its log tells more".to_owned();
            Err(refused(Reason::Panicked, message))
        });
        if let Some(effect) = &decided.effect {
            let (name, took) = (effect.name(), began.elapsed());
            self.context.process.metrics.carried_out(name, took);
            if result.is_ok() {
                tracing::info!(effect = name, seconds = took.as_secs_f64(), "effect carried out");
            }
        }
        let refused = result.err().map(|error| self.refusal(&error, decided.effect.as_ref()));
        // Without the status nothing was begun: the engine may want to write it again at once.
        let unwritten =
            refused.as_ref().filter(|_| decided.write.is_some() && !self.wrote).map(|r| r.again_at);
        {
            let mut state = self.running.state();
            let held = state.services.entry(self.service().name.clone()).or_default();
            held.busy = false;
            held.refused = refused;
            held.not_before = unwritten;
        }
        self.running.wake_for(&self.service().name);
    }

    fn refusal(&self, error: &ActError, effect: Option<&Effect>) -> Refusal {
        let (reason, again) = match error {
            ActError::Io(io) if io.is_conflict() => (Reason::Conflict, CONFLICT_AGAIN_AFTER),
            ActError::Refused { reason: Reason::Conflict, .. } => (Reason::Conflict, AGAIN_AFTER),
            ActError::Io(io) if io.is_transient() => (Reason::ApiServer, AGAIN_AFTER),
            ActError::Io(_) => (Reason::Refused, REFUSED_AGAIN_AFTER),
            ActError::Refused {
                reason: reason @ (Reason::DependencyNotRecovered | Reason::PlanChanged | Reason::NotAccepted),
                ..
            } => (*reason, AGAIN_AFTER),
            ActError::Refused { reason, .. } => (*reason, REFUSED_AGAIN_AFTER),
        };
        self.context.process.metrics.failed(Controller::Plan, reason.as_str());
        if reason != Reason::Conflict {
            let effect = effect.map_or("write status", Effect::name);
            tracing::warn!(effect, %reason, %error, "effect failed; will retry");
        }
        let now = clock::now();
        let again_at = now.checked_add(again).unwrap_or(now);
        Refusal { reason, message: error.to_string(), again_at }
    }

    async fn try_carry_out(&mut self, decided: &ServiceDecided) -> Result<(), ActError> {
        if let Some(status) = &decided.write {
            self.write_status(status).await?;
            self.wrote = true;
        }
        match &decided.effect {
            None => Ok(()),
            Some(Effect::Adopt) => self.adopt().await,
            Some(Effect::Accept { records }) => self.accept(records).await,
            Some(Effect::LookAtHostAccess { attempt }) => self.look_at_host_access(*attempt).await,
            Some(Effect::Quarantine { namespaces }) => self.quarantine(namespaces).await,
            Some(Effect::Claim { attempt }) => self.claim(*attempt).await,
            Some(Effect::Ask { isolation, attempt, reachable, dependencies }) => {
                self.ask(*isolation, *attempt, reachable, dependencies).await
            }
            Some(Effect::Follow { room, dependencies }) => self.follow(room, dependencies).await,
            Some(Effect::LookAtSuspended { attempt }) => self.look_at_suspended(*attempt).await,
            Some(Effect::Resume { attempt, dependencies }) => self.resume(*attempt, dependencies).await,
            Some(Effect::Step { index, attempt, dependencies }) => {
                self.step(*index, *attempt, dependencies).await
            }
        }
    }

    /// Keeps what the API server answered, as the newest that is known.
    fn keep(&mut self, record: ServiceRecovery) {
        let mut state = self.running.state();
        let held = state.services.entry(self.service().name.clone()).or_default();
        held.own = Some(record.clone());
        held.own_since = Some(Instant::now());
        self.record = Some(record);
    }

    async fn write_status(&mut self, status: &ServiceRecoveryStatus) -> Result<(), ActError> {
        let name = self.name();
        let before = self.record.as_ref().and_then(|r| r.status.clone());
        let version = self.record.as_ref().and_then(|r| r.metadata.resource_version.clone());
        let patch = json!({
            "apiVersion": api_version(), "kind": "ServiceRecovery",
            // Written only over what was read: a leader that does not know that it is none any more writes nothing.
            "metadata": {"name": name, "resourceVersion": version},
            "status": status,
        });
        let params = PatchParams::apply(field_manager::PLAN).force();
        let records = self.records();
        let written = call(
            format!("write status of ServiceRecovery {name}"),
            records.patch_status(&name, &params, &Patch::Apply(&patch)),
        )
        .await?;
        {
            let mut state = self.running.state();
            state.services.entry(self.service().name.clone()).or_default().written_at = Some(clock::now());
        }
        let stage_before = before.as_ref().map(|before| before.stage);
        if stage_before != Some(status.stage) {
            let from = stage_before.map_or("none", Stage::as_str);
            tracing::info!(from, to = status.stage.as_str(), "stage changed");
        }
        self.context.events.stage_changed(&written, before.as_ref(), status);
        self.keep(written);
        Ok(())
    }

    /// Creates the ServiceRecovery, or takes over the one that an earlier plan of this name left.
    async fn adopt(&mut self) -> Result<(), ActError> {
        if self.record.is_none() {
            // Without a resourceVersion to hold on to, an apply would write over what another leader has begun.
            let what = format!("read ServiceRecovery {}", self.name());
            if call_opt(what, self.records().get_metadata(&self.name())).await?.is_some() {
                let message = format!("ServiceRecovery {} is there, and was not seen yet", self.name());
                return Err(refused(Reason::Conflict, message));
            }
        }
        let service = self.service();
        let before = self.record.as_ref().map(|r| &r.spec);
        let spec = ServiceRecoverySpec {
            plan_ref: PlanRef { name: self.plan.name.clone(), uid: self.plan.uid.clone() },
            service: service.name.clone(),
            tier: service.tier,
            namespaces: service.namespaces.iter().cloned().map(DnsLabel).collect(),
            attempt: before.map_or(1, |s| s.attempt),
            isolation: before.and_then(|s| s.isolation),
            reachable: before.map_or_else(Vec::new, |s| s.reachable.clone()),
            allow_egress: before.map_or_else(Vec::new, |s| s.allow_egress.clone()),
            pod_security: before.map_or_else(PodSecurity::default, |s| s.pod_security),
            accepted: before.map_or_else(Vec::new, |s| s.accepted.clone()),
        };
        self.write_spec(spec).await
    }

    async fn write_spec(&mut self, spec: ServiceRecoverySpec) -> Result<(), ActError> {
        let name = self.name();
        let version = self.record.as_ref().and_then(|r| r.metadata.resource_version.clone());
        let patch = json!({
            "apiVersion": api_version(), "kind": "ServiceRecovery",
            "metadata": {"name": name, "resourceVersion": version},
            "spec": spec,
        });
        let params = PatchParams::apply(field_manager::PLAN).force();
        let records = self.records();
        let written = call(
            format!("write ServiceRecovery {name}"),
            records.patch(&name, &params, &Patch::Apply(&patch)),
        )
        .await?;
        self.keep(written);
        Ok(())
    }

    /// Makes Quarantines, as the plan's account: RBAC decides whether it may. What was made is written down at once, so that one
    /// which somebody deletes is not made again.
    async fn quarantine(&mut self, namespaces: &[String]) -> Result<(), ActError> {
        let client = self.running.state().account.as_ref().map(|(_, client)| client.clone());
        let (Some(client), Some(incident)) = (client, self.plan.incident.clone()) else {
            return Err(refused(Reason::Conflict, "the plan's account is not known yet".to_owned()));
        };
        let quarantines: Api<Quarantine> = Api::all(client);
        let user = format!("system:serviceaccount:{}:{}", self.plan.namespace, self.plan.account);
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
                // Somebody was faster: it is isolated, which is what was wanted.
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

    /// Claims the Quarantine of each namespace, in their order. Each is written only over the version that was observed: where somebody
    /// has written since (a hold, another claim), it is a conflict.
    async fn claim(&mut self, attempt: i64) -> Result<(), ActError> {
        let service = self.service();
        let wanted = Claim {
            plan_uid: self.plan.uid.clone(),
            plan_namespace: self.plan.namespace.clone(),
            plan: self.plan.name.clone(),
            service: service.name.clone(),
            attempt,
            display: format!("{}/{}/{}", self.plan.namespace, self.plan.name, service.name),
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

    /// Asks for an isolation. To loosen, every dependency is read live, and the plan's account must be granted it.
    async fn ask(
        &mut self,
        isolation: Isolation,
        attempt: i64,
        reachable: &[String],
        dependencies: &[ServiceId],
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
            // Accepted along with the requirements, as was just read.
            pod_security: match isolation {
                Isolation::CleanRoom => pod_security(self.service()),
                Isolation::Sealed | Isolation::Contained | Isolation::Open => PodSecurity::Baseline,
            },
            // On the record since before this was decided.
            accepted: before.status.as_ref().map_or_else(Vec::new, |s| s.accepted.clone()),
            ..named(&before.spec, self.service())
        };
        self.write_spec(spec).await
    }

    /// Asks for another clean room than the one that there is. To let anything more in, everything is read live as for the
    /// first; taking away waits for nothing.
    async fn follow(&mut self, room: &Room, dependencies: &[ServiceId]) -> Result<(), ActError> {
        let Some(before) = self.record.as_ref().map(|record| record.spec.clone()) else {
            return Err(refused(
                Reason::ServiceRecoveryMissing,
                format!("ServiceRecovery {} is gone", self.name()),
            ));
        };
        let reachable: Vec<DnsLabel> = room.reachable.iter().cloned().map(DnsLabel).collect();
        let loosens = reachable.iter().any(|namespace| !before.reachable.contains(namespace))
            || room.allow_egress.iter().any(|service| !before.allow_egress.contains(service))
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
        self.write_spec(ServiceRecoverySpec { reachable, allow_egress, pod_security, ..before }).await
    }

    /// By a live read, the plan is still what was decided by: a gate or dependency may have come in between, or a watch may
    /// have died without a word.
    pub(super) async fn plan_is_current(&self) -> Result<(), ActError> {
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

    /// I1: by a live read, every dependency is recovered and healthy.
    pub(super) async fn dependencies_stand(&self, dependencies: &[ServiceId]) -> Result<(), ActError> {
        let found =
            read_dependencies(&self.records(), &self.plan, dependencies, &self.context.health).await?;
        match allowance(found.iter().map(Dependency::from)) {
            Allowance::Allowed => Ok(()),
            Allowance::Unknown(service) | Allowance::Refused(service) => Err(refused(
                Reason::DependencyNotRecovered,
                format!("{service} is not recovered and healthy by a live read"),
            )),
        }
    }

    /// The plan's account must hold `recover` on each Quarantine by an explicit grant: whoever also holds the verb that
    /// nobody is granted holds a wildcard.
    async fn account_may_recover(&self) -> Result<(), ActError> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.context.client.clone());
        let user = format!("system:serviceaccount:{}:{}", self.plan.namespace, self.plan.account);
        let may = |namespace: String, verb: &'static str| {
            let (reviews, user, plan) = (reviews.clone(), user.clone(), self.plan.clone());
            async move {
                let review = SubjectAccessReview {
                    spec: SubjectAccessReviewSpec {
                        user: Some(user),
                        groups: Some(vec![
                            "system:serviceaccounts".to_owned(),
                            format!("system:serviceaccounts:{}", plan.namespace),
                            "system:authenticated".to_owned(),
                        ]),
                        resource_attributes: Some(ResourceAttributes {
                            group: Some(GROUP.to_owned()),
                            resource: Some("quarantines".to_owned()),
                            name: Some(namespace),
                            verb: Some(verb.to_owned()),
                            ..ResourceAttributes::default()
                        }),
                        ..SubjectAccessReviewSpec::default()
                    },
                    ..SubjectAccessReview::default()
                };
                let what = format!("ask whether the plan's account may {verb}");
                let answer = call(what, reviews.create(&PostParams::default(), &review)).await?;
                Ok::<bool, ActError>(answer.status.is_some_and(|s| s.allowed))
            }
        };
        let checks = self.service().namespaces.iter().map(|namespace| {
            let (granted, wildcard) = (may(namespace.clone(), "recover"), may(namespace.clone(), "never-granted"));
            let user = &user;
            async move {
                match futures::try_join!(granted, wildcard)? {
                    (true, false) => Ok(()),
                    (false, _) => Err(refused(
                        Reason::RecoverNotGranted,
                        format!("{user} may not 'recover' quarantines.resurgam.dev/{namespace}: grant it by a ClusterRole with that resourceName"),
                    )),
                    (true, true) => Err(refused(
                        Reason::RecoverNotGranted,
                        format!("{user} holds 'recover' on quarantines.resurgam.dev/{namespace} by a wildcard only: grant it by name"),
                    )),
                }
            }
        });
        try_join_all(checks).await.map(|_| ())
    }

    /// Starts a step as the plan's account. Its intent has been written.
    async fn step(&mut self, index: usize, attempt: i64, dependencies: &[ServiceId]) -> Result<(), ActError> {
        futures::try_join!(
            self.plan_is_current(),
            self.requirements_are_accepted(),
            self.dependencies_stand(dependencies)
        )?;
        let service = self.service();
        let client = self.running.state().account.as_ref().map(|(_, client)| client.clone());
        let (Some(step), Some(client)) = (service.steps.get(index), client) else {
            return Err(refused(
                Reason::StepMissing,
                format!("step {index} of {} is not in the plan any more", service.name),
            ));
        };
        let status = self.record.as_ref().and_then(|record| record.status.as_ref());
        let status = status.filter(|status| status.attempt == attempt).cloned().unwrap_or_default();
        let of = observe::step_context(&self.context.stores, &self.plan, service, step, &status);
        let progress = match steps::start(&client, step, &of).await {
            Ok(progress) => progress,
            Err(StepError::Io(error)) if error.is_transient() => {
                let now = clock::now();
                let at = now.checked_add(AGAIN_AFTER).unwrap_or(now);
                StepProgress::Retry { message: error.to_string(), at }
            }
            Err(error) => StepProgress::Failed(error.to_string()),
        };
        let mut state = self.running.state();
        let held = state.services.entry(service.name.clone()).or_default();
        if held.steps_of != attempt {
            held.steps.clear();
            held.steps_of = attempt;
        }
        held.steps.insert(index, progress);
        Ok(())
    }
}

/// What it asks, and for whom: of the plan as it is now, as its gates were asked about those namespaces and no others.
fn named(before: &ServiceRecoverySpec, service: &Service) -> ServiceRecoverySpec {
    ServiceRecoverySpec {
        tier: service.tier,
        namespaces: service.namespaces.iter().cloned().map(DnsLabel).collect(),
        ..before.clone()
    }
}

pub(super) fn refused(reason: Reason, message: String) -> ActError {
    ActError::Refused { reason, message }
}

fn api_version() -> String {
    format!("{GROUP}/v1alpha1")
}

/// Marks a ServiceRecovery whose service the plan names no more. Its isolation stays as it is.
pub(crate) async fn mark_orphaned(context: &Context, record: &ServiceRecovery) -> Result<(), IoError> {
    use crate::api::conditions::{ORPHANED, State, set};
    let namespace = record.namespace().unwrap_or_default();
    let name = record.name_any();
    let records: Api<ServiceRecovery> = Api::namespaced(context.client.clone(), &namespace);
    let mut status = record.status.clone().unwrap_or_default();
    let message = "the plan names this service no more; its isolation stays as it is";
    set(
        &mut status.conditions,
        ORPHANED,
        State::True,
        "NotInPlan",
        message,
        record.metadata.generation,
        clock::now(),
    );
    let patch = json!({
        "apiVersion": api_version(), "kind": "ServiceRecovery",
        "metadata": {"name": name, "resourceVersion": record.metadata.resource_version},
        "status": status,
    });
    let params = PatchParams::apply(field_manager::PLAN).force();
    call(
        format!("mark ServiceRecovery {name} orphaned"),
        records.patch_status(&name, &params, &Patch::Apply(&patch)),
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I2: its gates were asked about the namespaces of now. One that it named before is none of its any more, whatever is asked.
    #[test]
    fn what_is_asked_is_asked_for_the_namespaces_of_the_plan_as_it_is_now() {
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
            pod_security: PodSecurity::Baseline,
            accepted: Vec::new(),
        };
        let now = named(&before, &plan.services[0]);
        assert_eq!(now.namespaces, [DnsLabel("b".to_owned()), DnsLabel("c".to_owned())]);
        assert_eq!((now.attempt, now.isolation), (3, Some(Isolation::CleanRoom)));
    }
}
