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
#[derive(Debug, Default)]
pub struct Services {
    observed: Vec<ServiceObservation>,
    revisions: Vec<u64>,
    /// Which of all copies this is: each has a log of its own.
    copy: u64,
    /// Every service by its revisions, oldest first: each at least by its latest one.
    log: Vec<(u64, ServiceId)>,
}

/// Up to where one reader has followed the changes of one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Followed {
    copy: u64,
    revision: u64,
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
        self.compact();
        self.observed.iter_mut()
    }

    /// Takes the last one away.
    pub fn pop(&mut self) -> Option<ServiceObservation> {
        self.revisions.pop();
        self.compact();
        self.observed.pop()
    }

    /// The revision of each, in the plan's order: another than before says that it may have changed.
    pub(super) fn revisions(&self) -> &[u64] {
        &self.revisions
    }

    /// Where a reader is that has seen all changes so far.
    pub(super) fn followed(&self) -> Followed {
        Followed { copy: self.copy, revision: self.log.last().map_or(0, |&(revision, _)| revision) }
    }

    /// The services that may have changed since; one that changed often comes often. All of them for who followed another copy.
    pub(super) fn changed_since(&self, followed: Followed) -> impl Iterator<Item = ServiceId> {
        let since = if followed.copy == self.copy { followed.revision } else { 0 };
        self.log.iter().rev().take_while(move |&&(revision, _)| revision > since).map(|&(_, id)| id)
    }

    /// Leaves one entry for each service in the log.
    fn compact(&mut self) {
        self.log = self.revisions.iter().copied().zip(0..).collect();
        self.log.sort_unstable();
    }
}

impl Clone for Services {
    fn clone(&self) -> Self {
        let (observed, revisions) = (self.observed.clone(), self.revisions.clone());
        Self { observed, revisions, copy: revision(), log: self.log.clone() }
    }
}

impl FromIterator<ServiceObservation> for Services {
    fn from_iter<T: IntoIterator<Item = ServiceObservation>>(services: T) -> Self {
        let observed: Vec<ServiceObservation> = services.into_iter().collect();
        let revisions = observed.iter().map(|_| revision()).collect();
        let mut services = Self { observed, revisions, copy: revision(), log: Vec::new() };
        services.compact();
        services
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
        let next = revision();
        self.revisions[service] = next;
        if self.log.len() > 4 * self.observed.len() {
            self.compact();
        } else {
            self.log.push((next, service));
        }
        &mut self.observed[service]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn services() -> Services {
        (0..3).map(|_| ServiceObservation::default()).collect()
    }

    fn changed(services: &Services, since: Followed) -> Vec<ServiceId> {
        services.changed_since(since).collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn reader_is_told_of_what_was_borrowed_for_writing_since() {
        let mut services = services();
        assert_eq!(changed(&services, Followed::default()), [0, 1, 2]);
        let mut followed = services.followed();
        assert!(changed(&services, followed).is_empty());
        for round in 0..40 {
            services[1].busy = round % 2 == 0;
            services[2].busy = true;
            assert_eq!(changed(&services, followed), [1, 2], "round {round}");
            followed = services.followed();
        }
        assert!(services.log.len() <= 4 * 3 + 1, "the log does not grow for ever");
        let behind = followed;
        for _ in 0..40 {
            services[0].busy = true;
        }
        assert_eq!(changed(&services, behind), [0]);
        services.iter_mut().for_each(|of| of.busy = false);
        assert_eq!(changed(&services, behind), [0, 1, 2]);
    }

    #[test]
    fn reader_of_one_copy_is_told_everything_of_another() {
        let mut one = services();
        let mut other = one.clone();
        other[2].busy = true;
        one[0].busy = true;
        let followed = one.followed();
        assert_eq!(changed(&other, followed), [0, 1, 2]);
    }
}
