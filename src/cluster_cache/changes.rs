//! Publishes the changes of the cache to subscribers.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Kind;

/// Maximum number of unread changes. A slower subscriber gets [`Notice::Missed`].
pub(super) const BEHIND: usize = 4096;

/// A change of a cached object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace. Empty for a kind that has none.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// If it was deleted, the resourceVersion of the deletion.
    pub(crate) gone: Option<String>,
    /// For a pod: it uses its node's network.
    pub(crate) on_node_network: bool,
    /// A cached field changed.
    pub(crate) is_judged: bool,
}

/// A notice to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// One object changed, and the cache contains the change.
    Changed(Change),
    /// The subscriber missed changes, so anything may have changed.
    Missed,
}

/// Sends changes to all subscribers.
#[derive(Clone, Debug)]
pub(super) struct Subscribers(broadcast::Sender<Change>);

impl Default for Subscribers {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Subscribers {
    pub(super) fn publish(&self, change: Change) {
        // There may be no subscriber.
        let _ = self.0.send(change);
    }

    pub(super) fn add(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

/// Changes since the subscription.
#[derive(Debug)]
pub(crate) struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// Returns the next notice. `None`: the watches have ended.
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        match self.0.recv().await {
            Ok(change) => Some(Notice::Changed(change)),
            Err(RecvError::Lagged(_)) => Some(Notice::Missed),
            Err(RecvError::Closed) => None,
        }
    }

    /// Returns the next notice if there is one already.
    #[cfg(test)]
    pub(crate) fn now(&mut self) -> Option<Notice> {
        futures::FutureExt::now_or_never(self.next()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_subscriber_gets_missed() {
        let subscribers = Subscribers::default();
        let mut changes = subscribers.add();
        let change = |number: usize| Change {
            kind: Kind::Pod,
            namespace: "a".to_owned(),
            name: number.to_string(),
            gone: None,
            on_node_network: false,
            is_judged: true,
        };
        (0..=BEHIND).for_each(|number| subscribers.publish(change(number)));
        assert_eq!(changes.now(), Some(Notice::Missed));
        assert_eq!(changes.now(), Some(Notice::Changed(change(1))));
        let rest = std::iter::from_fn(|| changes.now()).count();
        assert_eq!(rest, BEHIND - 1);
    }
}
