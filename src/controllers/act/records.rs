//! Writes a service's ServiceRecovery: status and spec.

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::super::context::Context;
use super::{Act, ActError, api_version, refused};
use crate::api::service_recovery::PlanRef;
use crate::api::{
    DnsLabel, PodSecurity, Reason, ServiceRecovery, ServiceRecoverySpec, ServiceRecoveryStatus, Stage,
    field_manager,
};
use crate::calls::{IoError, call, call_opt};
use crate::clock;

impl Act {
    pub(super) async fn write_status(&mut self, status: &ServiceRecoveryStatus) -> Result<(), ActError> {
        let name = self.name();
        let before = self.record.as_ref().and_then(|r| r.status.clone());
        let version = self.record.as_ref().and_then(|r| r.metadata.resource_version.clone());
        let patch = json!({
            "apiVersion": api_version(), "kind": "ServiceRecovery",
            // The resourceVersion makes a deposed leader's write conflict.
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

    /// Creates the ServiceRecovery, or adopts the one that an earlier plan of this name left.
    pub(super) async fn adopt(&mut self) -> Result<(), ActError> {
        if self.record.is_none() {
            // Without a resourceVersion, an apply would overwrite what another leader has started.
            let what = format!("read ServiceRecovery {}", self.name());
            if call_opt(what, self.records().get_metadata(&self.name())).await?.is_some() {
                let message = format!(
                    "ServiceRecovery {} exists, but the watch has not delivered it yet; will retry",
                    self.name()
                );
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
            allow_egress_to: before.map_or_else(Vec::new, |s| s.allow_egress_to.clone()),
            pod_security: before.map_or_else(PodSecurity::default, |s| s.pod_security),
            accepted: before.map_or_else(Vec::new, |s| s.accepted.clone()),
        };
        self.write_spec(spec).await
    }

    pub(super) async fn write_spec(&mut self, spec: ServiceRecoverySpec) -> Result<(), ActError> {
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
}

/// Marks a ServiceRecovery whose service is no longer in the plan as orphaned. Its isolation is kept.
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
