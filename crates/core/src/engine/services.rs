//! What is observed of the services of a plan, with a revision for each, so that the engine can tell what has changed.

use std::ops::{Index, IndexMut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServiceObservation;
use crate::plan::ServiceId;

/// Never given twice in a process: two observations that differ never bear the same one, clones included.
static LATEST: AtomicU64 = AtomicU64::new(0);

fn revision() -> u64 {
    LATEST.fetch_add(1, Ordering::Relaxed) + 1
}

/// What is observed of each service, in the plan's order. To borrow one for writing gives it the next revision.
#[derive(Clone, Debug, Default)]
pub struct Services {
    observed: Vec<ServiceObservation>,
    revisions: Vec<u64>,
}

impl Services {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.observed.len()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.observed.is_empty()
    }

    /// All of them, in the plan's order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &ServiceObservation> + ExactSizeIterator {
        self.observed.iter()
    }

    /// All of them for writing: each counts as changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ServiceObservation> {
        self.revisions.iter_mut().for_each(|of| *of = revision());
        self.observed.iter_mut()
    }

    /// Takes the last one away.
    pub fn pop(&mut self) -> Option<ServiceObservation> {
        self.revisions.pop();
        self.observed.pop()
    }

    /// The revision of each, in the plan's order: another than before says that it may have changed.
    pub(super) fn revisions(&self) -> &[u64] {
        &self.revisions
    }
}

impl FromIterator<ServiceObservation> for Services {
    fn from_iter<T: IntoIterator<Item = ServiceObservation>>(services: T) -> Self {
        let observed: Vec<ServiceObservation> = services.into_iter().collect();
        let revisions = observed.iter().map(|_| revision()).collect();
        Self { observed, revisions }
    }
}

impl Index<ServiceId> for Services {
    type Output = ServiceObservation;

    fn index(&self, service: ServiceId) -> &ServiceObservation {
        &self.observed[service]
    }
}

impl IndexMut<ServiceId> for Services {
    fn index_mut(&mut self, service: ServiceId) -> &mut ServiceObservation {
        self.revisions[service] = revision();
        &mut self.observed[service]
    }
}
