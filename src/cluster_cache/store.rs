//! Complete objects of our own kinds in a store that the plan controller and the Quarantine controller share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

use super::follow::ObjectCache;
use super::kind::{Confirmation, Difference};

/// An object that may fail to deserialize, without affecting others.
pub(crate) type Guarded<K> = DeserializeGuard<K>;

/// The objects of one kind.
pub(crate) struct StoreCache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<Guarded<K>>,
    writer: Mutex<Listing<K>>,
    confirmation: Confirmation,
}

struct Listing<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    writer: Writer<Guarded<K>>,
    /// All objects were listed once. Before that, the store is not ready.
    is_complete: bool,
}

impl<K> fmt::Debug for StoreCache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreCache").field("confirmation", &self.confirmation).finish_non_exhaustive()
    }
}

impl<K> StoreCache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    pub(super) fn new(resource: &'static str) -> Self {
        let (store, writer) = store();
        let writer = Mutex::new(Listing { writer, is_complete: false });
        Self { store, writer, confirmation: Confirmation::new(resource) }
    }

    /// Returns the store, which is ready once all objects have been listed.
    pub(crate) fn store(&self) -> Store<Guarded<K>> {
        self.store.clone()
    }

    /// Returns the state of the watch.
    pub(crate) fn confirmation(&self) -> &Confirmation {
        &self.confirmation
    }

    pub(super) fn put(&self, mut object: Guarded<K>) -> Difference {
        object.meta_mut().managed_fields = None;
        let version = |object: &Guarded<K>| (object.uid(), object.resource_version());
        let before = self.store.get(&ObjectRef::from_obj(&object));
        let is_same = before.is_some_and(|before| version(&before) == version(&object));
        let mut listing = self.listing();
        let event = if listing.is_complete { Event::Apply(object) } else { Event::InitApply(object) };
        listing.writer.apply_watcher_event(&event);
        if is_same { Difference::Other } else { Difference::Judged }
    }

    pub(super) fn remove(&self, key: &ObjectRef<Guarded<K>>) {
        if let Some(object) = self.store.get(key) {
            self.listing().writer.apply_watcher_event(&Event::Delete(Arc::unwrap_or_clone(object)));
        }
    }

    fn listing(&self) -> MutexGuard<'_, Listing<K>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> ObjectCache for StoreCache<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    fn begin_list(&self) {
        let mut listing = self.listing();
        if !listing.is_complete {
            // Objects of an earlier, interrupted list may be gone.
            listing.writer.apply_watcher_event(&Event::Init);
        }
    }

    fn end_list(&self) {
        let mut listing = self.listing();
        if !std::mem::replace(&mut listing.is_complete, true) {
            listing.writer.apply_watcher_event(&Event::InitDone);
        }
    }

    fn names(&self) -> Vec<(String, String)> {
        let all = self.store.state();
        all.iter().map(|object| (object.namespace().unwrap_or_default(), object.name_any())).collect()
    }

    fn confirmation(&self) -> &Confirmation {
        &self.confirmation
    }
}
