//! The rights that resuming CronJobs and Jobs takes. What becomes of each is decided in `resurgam_core::resume`.

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::access::Right;
use crate::api::service_recovery::ResumeKind;
use crate::plan::Resume;

pub use resurgam_core::resume::{ResumeKey, SuspendedObject, cron, found, judge, unreadable};

/// Which rights of the plan's account it takes to tell what is suspended in these namespaces, and to resume what is named. Where
/// nothing is named, nothing is looked at.
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
