//! Tells whoever follows the cache what has changed.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Kind;

/// Changes that a subscriber may be behind. Then it is told that it missed some.
const BEHIND: usize = 4096;

/// A change of an object that is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace. Empty for a kind that has none.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Where it was deleted: the version as of which it is gone.
    pub(crate) gone: Option<String>,
    /// Of a pod: it uses the network of its node.
    pub(crate) on_node_network: bool,
    /// Something changed that is kept of it.
    pub(crate) is_judged: bool,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// One object changed, and the cache has it.
    Changed(Change),
    /// The subscriber was too far behind: anything may have changed.
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
        // Nobody may have subscribed.
        let _ = self.0.send(change);
    }

    pub(super) fn add(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

/// The changes from one moment on.
#[derive(Debug)]
pub(crate) struct Changes(broadcast::Receiver<Change>);

impl Changes {
    /// Returns the next one. `None`: the watches have ended.
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        match self.0.recv().await {
            Ok(change) => Some(Notice::Changed(change)),
            Err(RecvError::Lagged(_)) => Some(Notice::Missed),
            Err(RecvError::Closed) => None,
        }
    }

    /// Returns the one that has come already, if any has.
    #[cfg(test)]
    pub(crate) fn now(&mut self) -> Option<Notice> {
        futures::FutureExt::now_or_never(self.next()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriber_that_is_behind_is_told_that_it_missed_changes() {
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
