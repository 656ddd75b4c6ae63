//! Writes the network policies of a level and reads them back.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::super::{Context, PassError};
use super::PassRun;
use super::confirm::accounts_cached;
use crate::api::{Isolation, conditions};
use crate::cluster_cache::STALE_AFTER;
use crate::isolation::controls::{legacy, pod_security, pods, quota};
use crate::isolation::network::{self, Before, CleanRoomAccess, NetworkError, Written};
use crate::isolation::pass::Pass;
use crate::isolation::{egress_exceptions, identity, other_policies};

impl PassRun<'_> {
    /// Enforces the network of a level that loosens.
    pub(super) async fn network(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let (client, level) = (&self.context.client, pass.target.level);
        let uid = self.quarantine.uid().unwrap_or_default();
        // The namespace may leave Sealed before all its accounts are recreated.
        let was = self.quarantine.status.as_ref();
        let is_whole = was.is_some_and(|status| conditions::is_true(&status.conditions, conditions::READY));
        if self.before == Some(Isolation::Sealed) && !is_whole {
            identity::complete(client, self.name, &uid).await?;
        }
        if level == Isolation::Open {
            if self.is_loosening_outdated(pass).await? {
                return Ok(Some(Action::requeue(Duration::ZERO)));
            }
            self.namespace = restore(self.context, &self.namespace, &uid).await?;
            pass.in_place.network = true;
        } else {
            pass.egress_exceptions = egress_exceptions::find(client, &pass.target.allow_egress).await?;
            pass.egress_exceptions.extend(pass.target.allow_egress_to.iter().map(egress_exceptions::block));
            let exceptions = pass.egress_exceptions.iter().filter_map(|exception| exception.rule.clone());
            let room = CleanRoomAccess {
                reachable: pass.target.reachable.clone(),
                egress_exceptions: exceptions.collect(),
            };
            self.write_network(pass, Some(&room)).await?;
        }
        Ok(None)
    }

    /// Writes the network policies and reads back the result.
    async fn write_network(
        &mut self,
        pass: &mut Pass,
        room: Option<&CleanRoomAccess>,
    ) -> Result<(), PassError> {
        let written = self.write_policies(room).await;
        let observed = self.observe_network(pass, room, written.as_ref().ok().cloned()).await;
        written?;
        observed
    }

    /// Writes the network policies.
    pub(super) async fn write_policies(
        &mut self,
        room: Option<&CleanRoomAccess>,
    ) -> Result<Written, NetworkError> {
        let uid = self.namespace.uid().unwrap_or_default();
        let cached = self.policies_cached();
        let (client, before) = (&self.context.client, self.fenced_before());
        let written = network::isolate_known(client, (self.name, &uid), room, before, cached).await;
        if written.as_ref().is_ok_and(|written| written.changed) {
            self.drift.push("network policies".to_owned());
            self.context.options.network.changed();
        }
        written
    }

    /// Returns whether the namespace has been fenced without interruption since the last pass.
    pub(super) fn fenced_before(&self) -> Before {
        match self.before {
            Some(Isolation::Contained | Isolation::Sealed | Isolation::CleanRoom) if self.was_labelled => {
                Before::Isolated
            }
            _ => Before::Open,
        }
    }

    /// Observes the network. `written.there`, what was read before writing, is used if nothing was written since.
    pub(super) async fn observe_network(
        &mut self,
        pass: &mut Pass,
        room: Option<&CleanRoomAccess>,
        written: Option<Written>,
    ) -> Result<(), PassError> {
        let client = self.context.client.clone();
        let there = match written.and_then(|written| written.there) {
            Some(there) => Ok(there),
            None => network::list(&client, self.name, Before::Open).await,
        };
        pass.other_policies = other_policies::observe(
            &client,
            &self.context.other_policies,
            &self.namespace,
            &self.context.options.accepted_policies,
            Instant::now(),
        )
        .await;
        if !pass.other_policies.is_cut() {
            self.wake_within(other_policies::RECHECK);
        }
        let on_node_network = pods::on_node_network(&client, self.name).await;
        pass.host_network_pods = on_node_network.as_ref().ok().cloned().unwrap_or_default();
        let observed =
            there.map(|there| network::PolicyObservation::new(&there, &network::wanted(self.name, room)));
        pass.in_place.network = observed.as_ref().is_ok_and(network::PolicyObservation::holds);
        pass.network = observed.as_ref().ok().cloned();
        self.observation.network = observed.as_ref().ok().cloned();
        observed?;
        on_node_network?;
        Ok(())
    }
}

/// Restores what isolating changed, except for stopped workloads. Returns the updated namespace.
pub(in super::super) async fn restore(
    context: &Context,
    namespace: &Namespace,
    seal: &str,
) -> Result<Namespace, PassError> {
    let client = &context.client;
    let (name, uid) = (namespace.name_any(), namespace.uid().unwrap_or_default());
    network::release(client, &name, &uid).await?;
    if has_legacy_record(context, &name) {
        legacy::restore(client, &name, seal).await?;
    }
    let accounts = match accounts_cached(context, &name) {
        Some(cached) => cached,
        None => identity::list(client, &name).await?,
    };
    identity::unmark(client, &name, &accounts).await?;
    quota::restore(client, &name).await?;
    Ok(pod_security::restore(client, namespace).await?)
}

/// Returns whether an earlier version of the operator may have left a record in the namespace. This version writes none there.
fn has_legacy_record(context: &Context, namespace: &str) -> bool {
    let maps = &context.cache.kinds().config_maps;
    maps.is_fresh(STALE_AFTER).is_err() || maps.get(namespace, legacy::RECORD).is_some()
}
