//! Confirms a level from the cluster cache instead of live reads. This writes nothing: if the resulting status differs, or anything is
//! not as wanted, the pass reads live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::super::Context;
use super::PassRun;
use super::cleanup::remember_awaiting;
use crate::api::quarantine::Contents;
use crate::api::{Isolation, Quarantine, SEALED_LABEL};
use crate::clock;
use crate::cluster_cache::{Entry, Kinds, STALE_AFTER};
use crate::isolation::controls::{cleanup, pod_security, pods};
use crate::isolation::network::{self, CleanRoomAccess, is_neutralised, is_ours};
use crate::isolation::pass::Pass;
use crate::isolation::target::Target;
use crate::isolation::workloads::{Inventory, Lists};
use crate::isolation::{egress_exceptions, label, other_policies, status};

/// Maximum age of cached network policies of other APIs. They are read every [`other_policies::RECHECK`], and a change wakes all
/// Quarantines.
const OTHER_POLICIES_AGE: Duration = Duration::from_secs(2 * other_policies::RECHECK.as_secs());

/// Returns when the next pass is due if the cache shows that everything is as wanted and as reported, else `None`.
pub(in super::super) async fn confirm(
    context: &Context,
    quarantine: &Quarantine,
    namespace: &Namespace,
    wanted: &Target,
) -> Option<Action> {
    let name = quarantine.name_any();
    let mut pass = Pass::new(wanted.clone());
    let mut work = PassRun::new(context, &name, (quarantine.clone(), namespace.clone()), Instant::now());
    work.observe_cached(&mut pass).await?;
    let status = status::after(quarantine, &pass, &context.cluster_state(), clock::now());
    if quarantine.status.as_ref() != Some(&status) {
        return None;
    }
    context.remember(&name, |memory| {
        memory.level = Some(wanted.level);
        memory.failures = 0;
    });
    Some(work.next_wake.map_or_else(|| work.requeue_idle(&pass), Action::requeue))
}

impl PassRun<'_> {
    /// Observes from the cache what the level requires. Returns `None` if anything is not as wanted.
    async fn observe_cached(&mut self, pass: &mut Pass) -> Option<()> {
        let level = pass.target.level;
        let held = self.verified(&self.verification_scope(level));
        pass.tried = held.as_ref().map(|held| held.at);
        let listed = self.context.lists.cached(self.name).filter(|listed| listed.is_at(level))?;
        let is_marked = label::is_labelled(&self.namespace, &self.quarantine.spec, level);
        if !is_marked || !self.still_holds(pass, level) {
            return None;
        }
        pass.probed = held.map(|held| held.probed);
        (pass.in_place.listed, pass.in_place.labelled, pass.in_place.fenced) = (true, true, true);
        pass.in_place.captured = level >= Isolation::CleanRoom || self.is_captured(level);
        self.observation.listed = Some(listed);
        self.observation.namespace = Some(self.namespace.clone());
        match level {
            Isolation::Open => self.nothing_is_left(pass)?,
            // The addresses of services that egress exceptions name are read live.
            Isolation::CleanRoom if !pass.target.allow_egress.is_empty() => return None,
            Isolation::CleanRoom => {
                if !pod_security::is_enforced(&self.namespace, pass.target.privileged) {
                    return None;
                }
                let blocks = pass.target.allow_egress_to.iter();
                pass.egress_exceptions = blocks.map(egress_exceptions::block).collect();
                let room = CleanRoomAccess {
                    reachable: pass.target.reachable.clone(),
                    egress_exceptions: egress_exceptions::rules(&pass.target.allow_egress_to),
                };
                self.network_cached(pass, Some(&room)).await?;
            }
            Isolation::Contained => self.network_cached(pass, None).await?,
            Isolation::Sealed => {
                self.network_cached(pass, None).await?;
                self.nothing_runs(pass)?;
            }
        }
        if level < Isolation::CleanRoom {
            if !pass.in_place.captured {
                return None;
            }
            self.update_in_place(pass);
        }
        Some(())
    }

    /// Returns `Some` if an open namespace has no remains of isolation.
    fn nothing_is_left(&self, pass: &mut Pass) -> Option<()> {
        let kinds = self.context.cache.kinds();
        let policies = readable(kinds.network_policies.within(self.name))?;
        let accounts = accounts_cached(self.context, self.name)?;
        let inventory = inventory(kinds, self.name)?;
        remember_awaiting(self.context, self.name, &inventory);
        let is_left = policies.iter().any(|policy| is_ours(policy) || is_neutralised(policy))
            || accounts.iter().any(|account| account.labels().contains_key(SEALED_LABEL))
            || pod_security::change(&self.namespace, true).is_some()
            || self.context.remember(self.name, |memory| memory.is_cleanup_due)
            || cleanup::is_anything_left(&inventory);
        pass.in_place.network = true;
        (!is_left).then_some(())
    }

    /// Returns the namespace's network policies if the cache is fresh.
    pub(super) fn policies_cached(&self) -> Option<Vec<NetworkPolicy>> {
        let policies = &self.context.cache.kinds().network_policies;
        policies.is_fresh(STALE_AFTER).ok()?;
        readable(policies.within(self.name))
    }

    async fn network_cached(&mut self, pass: &mut Pass, room: Option<&CleanRoomAccess>) -> Option<()> {
        let kinds = self.context.cache.kinds();
        let policies = readable(kinds.network_policies.within(self.name))?;
        let observed = network::PolicyObservation::new(&policies, &network::wanted(self.name, room));
        if !observed.holds() {
            return None;
        }
        pass.in_place.network = true;
        pass.network = Some(observed.clone());
        self.observation.network = Some(observed);
        let pods = readable(kinds.pods.within(self.name))?;
        pass.host_network_pods =
            pods.iter().filter(|pod| is_on_node_network(pod)).map(|p| p.name_any()).collect();
        let client = &self.context.client;
        let accepted = &self.context.options.accepted_policies;
        let asked = Instant::now().checked_sub(OTHER_POLICIES_AGE)?;
        let reader = &self.context.other_policies;
        pass.other_policies = other_policies::observe(client, reader, &self.namespace, accepted, asked).await;
        if !pass.other_policies.is_cut() {
            self.wake_within(other_policies::RECHECK);
        }
        Some(())
    }

    /// Returns `Some` if nothing runs or starts in a sealed namespace, and observes whether its accounts are recreated.
    fn nothing_runs(&mut self, pass: &mut Pass) -> Option<()> {
        let kinds = self.context.cache.kinds();
        let inventory = inventory(kinds, self.name)?;
        let seal = self.quarantine.uid().unwrap_or_default();
        let runs = inventory.rollouts.iter().any(|set| !set.is_stopped());
        let pods = readable(kinds.pods.within(self.name))?;
        let lives = pods.iter().any(|pod| pods::is_live(pod) || pods::next_action(pod).is_some());
        if runs || lives || !inventory.stops(&seal).is_empty() {
            return None;
        }
        pass.workloads = inventory.workloads.len();
        self.observation.inventory = Some(inventory);
        self.observation.pods = Some(pods);
        self.observation.accounts = Some(accounts_cached(self.context, self.name)?);
        Some(())
    }
}

/// Returns the metadata of a namespace's ServiceAccounts if the cache is fresh.
pub(super) fn accounts_cached(context: &Context, namespace: &str) -> Option<Vec<ServiceAccount>> {
    let accounts = &context.cache.kinds().service_accounts;
    accounts.is_fresh(STALE_AFTER).ok()?;
    readable(accounts.within(namespace))
}

/// Returns what a namespace contains if the cache is fresh.
pub(super) fn contents_cached(context: &Context, namespace: &str) -> Option<Contents> {
    let kinds = context.cache.kinds();
    let fresh = [
        kinds.deployments.is_fresh(STALE_AFTER).is_ok(),
        kinds.stateful_sets.is_fresh(STALE_AFTER).is_ok(),
        kinds.replica_sets.is_fresh(STALE_AFTER).is_ok(),
        kinds.replication_controllers.is_fresh(STALE_AFTER).is_ok(),
        kinds.daemon_sets.is_fresh(STALE_AFTER).is_ok(),
        kinds.pods.is_fresh(STALE_AFTER).is_ok(),
    ];
    let pods = readable(kinds.pods.within(namespace))?;
    fresh.iter().all(|is_fresh| *is_fresh).then_some(())?;
    Some(inventory(kinds, namespace)?.contents(&pods))
}

/// Returns whether a pod uses its node's network, by the same rule as [`pods::on_node_network`].
fn is_on_node_network(pod: &Pod) -> bool {
    let uses = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    uses && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Returns the workloads of a namespace that start pods.
pub(super) fn inventory(kinds: &Kinds, namespace: &str) -> Option<Inventory> {
    let lists = Lists {
        deployments: readable(kinds.deployments.within(namespace))?,
        statefulsets: readable(kinds.stateful_sets.within(namespace))?,
        replicasets: readable(kinds.replica_sets.within(namespace))?,
        controllers: readable(kinds.replication_controllers.within(namespace))?,
        daemonsets: readable(kinds.daemon_sets.within(namespace))?,
        cronjobs: readable(kinds.cron_jobs.within(namespace))?,
        jobs: readable(kinds.jobs.within(namespace))?,
    };
    Some(lists.into())
}

/// Returns all objects, or `None` if one of them cannot be deserialized.
fn readable<T: Clone>(entries: Vec<Arc<Entry<T>>>) -> Option<Vec<T>> {
    entries.into_iter().map(|entry| entry.as_ref().as_ref().ok().cloned()).collect()
}
