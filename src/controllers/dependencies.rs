//! Reads the dependencies of a service live, right before a loosening.

use futures::future::try_join_all;
use kube::{Api, Client};

use super::health_cache::HealthCache;
use crate::api::{Health, ServiceKey, ServiceRecovery};
use crate::calls::{IoError, call_opt};
use crate::plan::Plan;
use crate::plan::loosening::Dependency;

/// One dependency, as read.
pub(super) struct ReadDependency {
    service: String,
    record: Option<ServiceRecovery>,
    health: Health,
}

impl<'a> From<&'a ReadDependency> for Dependency<'a> {
    fn from(read: &'a ReadDependency) -> Self {
        let status = read.record.as_ref().and_then(|record| record.status.as_ref());
        Self { service: &read.service, record: status, health: read.health }
    }
}

/// Reads the ServiceRecoveries of these services, and adds their health from the cache. A ServiceRecovery of another plan does not count.
///
/// # Errors
/// The API server refused, or did not answer. Nothing may be loosened then.
pub(super) async fn read_dependencies(
    client: &Client,
    plan: &Plan,
    dependencies: &[ServiceKey],
    health: &HealthCache,
) -> Result<Vec<ReadDependency>, IoError> {
    let reads = dependencies.iter().map(|key| async move {
        let records: Api<ServiceRecovery> = Api::namespaced(client.clone(), &key.namespace);
        let name = key.service_recovery();
        let found = call_opt(format!("get ServiceRecovery {name}"), records.get(&name)).await?;
        let record = found.filter(|record| record.spec.plan_ref.uid == plan.uid);
        let service = key.service.clone();
        Ok(ReadDependency { health: health.of(plan, &service), service, record })
    });
    try_join_all(reads).await
}
