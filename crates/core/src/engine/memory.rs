//! What the engine remembers of a service between two looks, for those that depend on it.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::service_recovery::Block;
use crate::plan::ServiceId;

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
    /// It, or what it waits for, needs a person, as far as is recorded.
    pub is_held_up: bool,
}

/// When each service is decided again at the latest.
#[derive(Debug)]
pub(super) struct WakeTimes {
    of: Vec<Option<Timestamp>>,
    sorted: BTreeSet<(Timestamp, ServiceId)>,
}

impl WakeTimes {
    /// None of so many services is waited for.
    pub(super) fn new(services: usize) -> Self {
        Self { of: vec![None; services], sorted: BTreeSet::new() }
    }

    /// Sets the time of one service.
    pub(super) fn set(&mut self, service: ServiceId, at: Option<Timestamp>) {
        let before = std::mem::replace(&mut self.of[service], at);
        if before != at {
            before.map(|before| self.sorted.remove(&(before, service)));
            self.sorted.extend(at.map(|at| (at, service)));
        }
    }

    /// The services whose time has come, oldest first.
    pub(super) fn until(&self, now: Timestamp) -> impl Iterator<Item = ServiceId> {
        self.sorted.range(..=(now, ServiceId::MAX)).map(|&(_, service)| service)
    }

    /// The earliest time of all.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.sorted.first().map(|&(at, _)| at)
    }
}
