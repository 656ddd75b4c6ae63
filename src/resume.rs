//! Rights that resuming CronJobs and Jobs requires. `resurgam_core::resume` decides what is resumed.

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::access::Right;
use crate::api::service_recovery::ResumeKind;
use crate::plan::Resume;

pub use resurgam_core::resume::{ResumeKey, SuspendedObject, cron, found, judge, unreadable};

/// Returns the rights that the plan's account needs to read what is suspended in these namespaces and to resume the named objects.
/// Nothing is read unless something is named.
#[must_use]
pub fn rights(namespaces: &[String], named: &[Resume]) -> Vec<Right> {
    let looked_at = if named.is_empty() { &[] } else { namespaces };
    let reads = looked_at.iter().flat_map(|ns| [Right::list::<CronJob>(ns), Right::list::<Job>(ns)]);
    let writes = named.iter().map(|Resume { kind, namespace, name, .. }| match kind {
        ResumeKind::CronJob => Right::patch::<CronJob>(namespace, Some(name)),
        ResumeKind::Job => Right::patch::<Job>(namespace, Some(name)),
    });
    reads.chain(writes).collect()
}
