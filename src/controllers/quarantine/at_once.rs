//! Namespaces of Quarantines that are new go on the isolation lists at once, by one write for all that came together: before anything
//! else is read or written of them, and whatever keeps their own passes from it.

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

/// Puts new ones on the lists, for as long as it is polled. What fails is left to their passes, which look for it.
pub(super) async fn keep(context: &Context) {
    let outstanding = Outstanding::default();
    // What comes during a write goes with the next.
    let gather = async {
        let mut changes = context.cache.subscribe();
        let quarantines = context.cache.kinds().quarantines.store();
        let mut news = News::default();
        // Some may have come before.
        let mut notice = Some(Notice::Missed);
        while let Some(now) = notice {
            let there = match &now {
                Notice::Changed(change) if change.kind == Kind::Quarantine => {
                    let there = quarantines.get(&ObjectRef::new(&change.name));
                    let gone = there.is_none().then(|| news.end(&change.name)).flatten();
                    outstanding.add(|what| what.gone.extend(gone));
                    there.into_iter().collect()
                }
                Notice::Changed(_) => Vec::new(),
                Notice::Missed => {
                    let gone = news.ended(|name| quarantines.get(&ObjectRef::new(name)).is_none());
                    outstanding.add(|what| what.gone.extend(gone));
                    quarantines.state()
                }
            };
            for object in there {
                if let Some(level) = news.level(&object) {
                    outstanding.add(|what| what.new.extend([(object.name_any(), level)]));
                }
            }
            notice = changes.next().await;
        }
    };
    let write = async {
        loop {
            let what = outstanding.take().await;
            if !what.new.is_empty()
                && let Err(error) = context.lists.set_all(&what.new).await
            {
                tracing::warn!(%error, "new Quarantines are not on the isolation lists yet; their passes put them there");
            }
            for name in what.gone {
                take_off(context, &name).await;
            }
        }
    };
    futures::join!(gather, write);
}

/// What is to be written next.
#[derive(Debug, Default)]
struct Outstanding {
    what: Mutex<What>,
    more: Notify,
}

#[derive(Debug, Default)]
struct What {
    new: BTreeMap<String, Isolation>,
    gone: BTreeSet<String>,
}

impl Outstanding {
    fn add(&self, change: impl FnOnce(&mut What)) {
        let mut what = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut what);
        if !what.new.is_empty() || !what.gone.is_empty() {
            self.more.notify_one();
        }
    }

    /// Waits until there is something.
    async fn take(&self) -> What {
        self.more.notified().await;
        std::mem::take(&mut *self.what.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was put on the lists, and has no pass that would take it off yet.
#[derive(Debug, Default)]
struct News {
    /// UIDs that were seen, by name.
    seen: HashMap<String, Option<String>>,
    /// Names that are on the lists for one without our finalizer.
    unprotected: HashSet<String>,
}

impl News {
    /// The level to put it on the lists at, the first time it is seen.
    fn level(&mut self, object: &Guarded) -> Option<Isolation> {
        let (name, uid) = (object.name_any(), object.uid());
        if object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == RELEASE_FINALIZER) {
            self.unprotected.remove(&name);
        }
        if self.seen.insert(name.clone(), uid.clone()) == Some(uid.clone()) {
            return None;
        }
        let level = object.0.as_ref().ok().and_then(target::at_once)?;
        if !object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == RELEASE_FINALIZER) {
            self.unprotected.insert(name);
        }
        Some(level)
    }

    /// The name of one that is gone, if it went before our finalizer was on it: no pass takes it off the lists.
    fn end(&mut self, name: &str) -> Option<String> {
        self.seen.remove(name);
        self.unprotected.remove(name).then(|| name.to_owned())
    }

    /// The names of all that went so.
    fn ended(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.seen.keys().filter(|name| is_gone(name)).cloned().collect();
        gone.iter().filter_map(|name| self.end(name)).collect()
    }
}

/// Takes a namespace off the lists whose Quarantine was deleted, which is a release, before any pass had begun.
async fn take_off(context: &Context, name: &str) {
    let taken = match read(context, name).await {
        // There is one of that name again.
        Ok(Some(_)) => return,
        Ok(None) => context.lists.set(name, Isolation::Open).await,
        Err(error) => Err(error),
    };
    if let Err(error) = taken {
        tracing::error!(quarantine = name, %error, "deleted, and its namespace is still on the isolation lists");
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
    fn a_quarantine_is_put_on_the_lists_once_and_one_that_goes_before_its_first_pass_is_taken_off() {
        let mut news = News::default();
        let (new, none) = (quarantine("a", &[], json!(null)), json!(null));
        assert_eq!(news.level(&new), Some(Isolation::Sealed));
        assert_eq!(news.level(&new), None, "told again");
        assert_eq!(news.end("library"), Some("library".to_owned()), "no pass takes it off");
        assert_eq!(news.end("library"), None, "once");

        assert_eq!(news.level(&quarantine("b", &[], none.clone())), Some(Isolation::Sealed), "another one");
        let protected = quarantine("b", &[RELEASE_FINALIZER], none);
        assert_eq!(news.level(&protected), None);
        assert_eq!(news.end("library"), None, "its release takes it off");

        let let_out = quarantine("c", &[], json!({"isolation": "Open"}));
        assert_eq!(news.level(&let_out), None, "it was carried out before");
        assert_eq!(news.end("library"), None);
    }
}
