//! What the engine remembers of a service between two looks, for those that depend on it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::service_recovery::Block;

/// What was decided for a service.
#[derive(Debug)]
pub(super) struct ServiceMemory {
    pub standing: Standing,
    /// It is to be, or stays, recovered.
    pub is_recovered: bool,
    /// Why it holds things up itself, if it does.
    pub stuck: Option<Stuck>,
}

/// Why somebody has to look at a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stuck {
    /// What there is to look at. A Decision that is needed for more than this version knows may have none.
    pub cause: Option<Block>,
    /// Since when a person is asked.
    pub since: Option<Time>,
}

/// What those who depend on a service go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// It satisfies its dependents.
    pub satisfies: bool,
    /// A clean room may talk to it.
    pub is_reachable: bool,
    /// Its stage is `Recovered`.
    pub is_recovered: bool,
}
