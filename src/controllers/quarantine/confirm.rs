//! Confirms a Quarantine from the cluster cache. If everything is as the status reports, a pass reads and writes nothing.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::{Context, pass};
use crate::api::{ISOLATION_LABEL, Quarantine, protected_namespace};
use crate::cluster_cache::STALE_AFTER;
use crate::controllers::running::at_least_as_new;
use crate::isolation::RELEASE_FINALIZER;
use crate::isolation::target::Target;
use crate::isolation::wanted::{Wanted, wanted};

/// Confirms, without a request, that the target is enforced. Returns `None` if the cache is stale or incomplete, or if anything has to be
/// written or decided; the pass then reads live.
pub(super) async fn by_cache(context: &Context, quarantine: &Quarantine) -> Option<Action> {
    let name = quarantine.name_any();
    let is_protected = quarantine.finalizers().iter().any(|f| f == RELEASE_FINALIZER);
    if quarantine.metadata.deletion_timestamp.is_some() || !is_protected {
        return None;
    }
    if protected_namespace(&name).is_some() || !context.cache.is_fresh() {
        return None;
    }
    let written = context.remember(&name, |memory| memory.written.clone());
    if written.is_some_and(|own| !at_least_as_new(&quarantine.metadata, &own)) {
        return None;
    }
    let kinds = context.cache.kinds();
    let namespace = namespace(context, &name)?;
    let claim = quarantine.status.as_ref().and_then(|status| status.claimed_by.as_ref());
    let recovery = match claim {
        None => None,
        Some(claim) => {
            let key = ObjectRef::new(&claim.service_recovery()).within(&claim.plan_namespace);
            Some(kinds.service_recoveries.store().get(&key)?)
        }
    };
    let recovery = match &recovery {
        None => None,
        Some(recovery) => Some(recovery.0.as_ref().ok()?),
    };
    let label = namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
    let Wanted::Settled(wanted) = wanted(quarantine, recovery, label) else { return None };
    target(context, quarantine, &namespace, &wanted).await
}

/// Returns a namespace that is not being deleted, from the cache. `None`: it has to be read.
pub(super) fn namespace(context: &Context, name: &str) -> Option<Namespace> {
    let namespaces = &context.cache.kinds().namespaces;
    namespaces.is_fresh(STALE_AFTER).ok()?;
    let entry = namespaces.get("", name)?;
    entry.as_ref().as_ref().ok().filter(|n| n.metadata.deletion_timestamp.is_none()).cloned()
}

/// Confirms from the cache that the target is enforced. `None`: the rest of the pass may have something to do.
pub(super) async fn target(
    context: &Context,
    quarantine: &Quarantine,
    namespace: &Namespace,
    wanted: &Target,
) -> Option<Action> {
    let enforced = quarantine.status.as_ref().and_then(|status| status.isolation);
    if enforced != Some(wanted.level) || !context.cache.is_fresh() {
        return None;
    }
    pass::confirm(context, quarantine, namespace, wanted).await
}
