//! What is observed of the services of a plan, with a revision for each, so that the engine can tell what has changed.

use std::ops::{Index, IndexMut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServiceSeen;
use crate::plan::ServiceId;

/// Never given twice in a process: two observations that differ never bear the same one, clones included.
static LATEST: AtomicU64 = AtomicU64::new(0);

fn revision() -> u64 {
    LATEST.fetch_add(1, Ordering::Relaxed) + 1
}

/// What is observed of each service, in the plan's order. To borrow one for writing gives it the next revision.
#[derive(Clone, Debug, Default)]
pub struct Services(Vec<(u64, ServiceSeen)>);

impl Services {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the plan's order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &ServiceSeen> + ExactSizeIterator {
        self.0.iter().map(|(_, seen)| seen)
    }

    /// All of them for writing: each counts as changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ServiceSeen> {
        self.0.iter_mut().map(|(of, seen)| {
            *of = revision();
            seen
        })
    }

    /// Takes the last one away.
    pub fn pop(&mut self) -> Option<ServiceSeen> {
        self.0.pop().map(|(_, seen)| seen)
    }

    /// The revision of one: another than before says that it may have changed.
    #[must_use]
    pub fn revision(&self, service: ServiceId) -> u64 {
        self.0[service].0
    }
}

impl FromIterator<ServiceSeen> for Services {
    fn from_iter<T: IntoIterator<Item = ServiceSeen>>(services: T) -> Self {
        Self(services.into_iter().map(|seen| (revision(), seen)).collect())
    }
}

impl Index<ServiceId> for Services {
    type Output = ServiceSeen;

    fn index(&self, service: ServiceId) -> &ServiceSeen {
        &self.0[service].1
    }
}

impl IndexMut<ServiceId> for Services {
    fn index_mut(&mut self, service: ServiceId) -> &mut ServiceSeen {
        let (of, seen) = &mut self.0[service];
        *of = revision();
        seen
    }
}
