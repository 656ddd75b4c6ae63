//! Adds the namespaces of new Quarantines to the isolation lists at once, with one write for all that arrived together. This happens
//! before their own passes, and does not depend on them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;

use super::{Context, Guarded, read};
use crate::api::Isolation;
use crate::cluster_cache::{Kind, Notice};
use crate::isolation::RELEASE_FINALIZER;
use crate::isolation::target;

/// Adds new Quarantines to the lists until the future is dropped. The passes repeat what fails here.
pub(super) async fn run(context: &Context) {
    let pending = PendingWrites::default();
    // Changes that arrive during a write are part of the next write.
    let gather = async {
        let mut changes = context.cache.subscribe();
        let quarantines = context.cache.kinds().quarantines.store();
        let mut known = KnownQuarantines::default();
        // Quarantines may exist already.
        let mut notice = Some(Notice::Missed);
        while let Some(now) = notice {
            let there = match &now {
                Notice::Changed(change) if change.kind == Kind::Quarantine => {
                    let there = quarantines.get(&ObjectRef::new(&change.name));
                    let gone = there.is_none().then(|| known.forget(&change.name)).flatten();
                    pending.add(|changes| changes.gone.extend(gone));
                    there.into_iter().collect()
                }
                Notice::Changed(_) => Vec::new(),
                Notice::Missed => {
                    let gone = known.forget_missing(|name| quarantines.get(&ObjectRef::new(name)).is_none());
                    pending.add(|changes| changes.gone.extend(gone));
                    quarantines.state()
                }
            };
            for object in there {
                if let Some(level) = known.level_if_new(&object) {
                    pending.add(|changes| changes.new.extend([(object.name_any(), level)]));
                }
            }
            notice = changes.next().await;
        }
    };
    let write = async {
        loop {
            let changes = pending.take().await;
            if !changes.new.is_empty()
                && let Err(error) = context.lists.set_all(&changes.new).await
            {
                tracing::warn!(%error, "new Quarantines not on the isolation lists yet; their passes will retry");
            }
            for name in changes.gone {
                remove_from_lists(context, &name).await;
            }
        }
    };
    futures::join!(gather, write);
}

/// Changes that wait for the next write.
#[derive(Debug, Default)]
struct PendingWrites {
    changes: Mutex<ListChanges>,
    more: Notify,
}

#[derive(Debug, Default)]
struct ListChanges {
    new: BTreeMap<String, Isolation>,
    gone: BTreeSet<String>,
}

impl PendingWrites {
    fn add(&self, change: impl FnOnce(&mut ListChanges)) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut changes);
        if !changes.new.is_empty() || !changes.gone.is_empty() {
            self.more.notify_one();
        }
    }

    /// Waits until there are changes, and takes them.
    async fn take(&self) -> ListChanges {
        self.more.notified().await;
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Quarantines that were put on the lists, and those among them whose deletion no pass handles yet.
#[derive(Debug, Default)]
struct KnownQuarantines {
    /// UID of each known Quarantine, by name.
    uids: HashMap<String, Option<String>>,
    /// Names on the lists whose Quarantine does not have our finalizer yet.
    unprotected: HashSet<String>,
}

impl KnownQuarantines {
    /// Returns the level at which to list the namespace if the Quarantine is new.
    fn level_if_new(&mut self, object: &Guarded) -> Option<Isolation> {
        let (name, uid) = (object.name_any(), object.uid());
        if object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == RELEASE_FINALIZER) {
            self.unprotected.remove(&name);
        }
        if self.uids.insert(name.clone(), uid.clone()) == Some(uid.clone()) {
            return None;
        }
        let level = object.0.as_ref().ok().and_then(target::at_once)?;
        if !object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == RELEASE_FINALIZER) {
            self.unprotected.insert(name);
        }
        Some(level)
    }

    /// Forgets a deleted Quarantine. Returns its name if it had no finalizer of ours, so that no pass removes it from the lists.
    fn forget(&mut self, name: &str) -> Option<String> {
        self.uids.remove(name);
        self.unprotected.remove(name).then(|| name.to_owned())
    }

    /// Forgets all Quarantines that are gone. Returns the names that no pass removes from the lists.
    fn forget_missing(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.uids.keys().filter(|name| is_gone(name)).cloned().collect();
        gone.iter().filter_map(|name| self.forget(name)).collect()
    }
}

/// Removes a namespace from the lists whose Quarantine was deleted, which is a release, before its first pass.
async fn remove_from_lists(context: &Context, name: &str) {
    let taken = match read(context, name).await {
        // The Quarantine was created again.
        Ok(Some(_)) => return,
        Ok(None) => context.lists.set(name, Isolation::Open).await,
        Err(error) => Err(error),
    };
    if let Err(error) = taken {
        tracing::error!(quarantine = name, %error, "Quarantine deleted, but its namespace is still on the isolation lists; remove it there");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quarantine(uid: &str, finalizers: &[&str], status: serde_json::Value) -> Guarded {
        serde_json::from_value(json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine",
            "metadata": {"name": "library", "uid": uid, "finalizers": finalizers},
            "spec": {"isolation": "Sealed", "reason": "breach"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn quarantine_is_listed_once_and_unlisted_if_gone_early() {
        let mut known = KnownQuarantines::default();
        let (new, none) = (quarantine("a", &[], json!(null)), json!(null));
        assert_eq!(known.level_if_new(&new), Some(Isolation::Sealed));
        assert_eq!(known.level_if_new(&new), None, "reported twice");
        assert_eq!(known.forget("library"), Some("library".to_owned()), "no pass takes it off");
        assert_eq!(known.forget("library"), None, "once");

        assert_eq!(
            known.level_if_new(&quarantine("b", &[], none.clone())),
            Some(Isolation::Sealed),
            "another one"
        );
        let protected = quarantine("b", &[RELEASE_FINALIZER], none);
        assert_eq!(known.level_if_new(&protected), None);
        assert_eq!(known.forget("library"), None, "its release takes it off");

        let let_out = quarantine("c", &[], json!({"isolation": "Open"}));
        assert_eq!(known.level_if_new(&let_out), None, "it was carried out before");
        assert_eq!(known.forget("library"), None);
    }
}
