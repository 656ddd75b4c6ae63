//! Key of a service.

use std::fmt;

/// One service of one plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Namespace of the plan.
    pub namespace: String,
    /// Name of the plan.
    pub plan: String,
    /// Name of the service.
    pub service: String,
}

impl ServiceKey {
    /// Returns the name of the ServiceRecovery, which is in the plan's namespace.
    #[must_use]
    pub fn service_recovery(&self) -> String {
        super::service_recovery_name(&self.plan, &self.service)
    }
}

/// `namespace/plan/service`
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.plan, self.service)
    }
}
