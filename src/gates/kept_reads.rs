//! What `baseline` gates have read, kept as long as the operator's log of changes says that nothing of it has changed.
//!
//! Lists are kept as JSON, without what no comparison needs, for each account and each key of Secrets' digests.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::ApiResource;
use resurgam_core::baseline::KindRef;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Answer, Question};
use crate::cluster_cache::{ChangeLog, ChangeMark, KindName};

mod rights;

use rights::ReviewedRights;

/// Maximum size of all kept lists, in bytes. Lists beyond it are not kept, and read at each evaluation.
const MAX_BYTES: usize = 128 << 20;
/// Maximum number of answers that are kept.
const MAX_ANSWERS: usize = 4096;
/// How long something is kept that nobody has asked for.
const UNUSED_FOR: Duration = Duration::from_secs(10 * 60);
/// How long a list is used at most, whatever the log of changes says: an API server may forget changes, as when it is restored from a backup.
const LASTS: Duration = Duration::from_secs(60 * 60);

/// Digest of some content, by SHA-256.
pub(super) type Sha = [u8; 32];

/// Who reads: user, and the fingerprint of the key of Secrets' digests.
pub(super) type Reader = (String, Option<String>);

/// Keeps what `baseline` gates read. The log's watches end when it is dropped.
pub struct KeptReads {
    log: ChangeLog,
    kept: Mutex<Kept>,
    rights: ReviewedRights,
}

impl fmt::Debug for KeptReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptReads").finish_non_exhaustive()
    }
}

/// What was read of one kind in one place.
#[derive(Clone, Debug)]
pub(super) struct List {
    /// Moment of its last change before it was read. `None`: nobody tells when it changes.
    pub(super) mark: Option<ChangeMark>,
    /// When it was requested.
    read_at: Instant,
    /// Number of objects.
    pub(super) count: usize,
    /// The objects, as a JSON array. `None`: there are none.
    json: Option<Arc<[u8]>>,
    digest: Sha,
}

impl List {
    /// # Errors
    /// The objects cannot be written as JSON.
    pub(super) fn new(
        mark: Option<ChangeMark>,
        read_at: Instant,
        objects: &[Value],
    ) -> serde_json::Result<Self> {
        let json = if objects.is_empty() { None } else { Some(serde_json::to_vec(objects)?) };
        let digest = Sha256::digest(json.as_deref().unwrap_or_default()).into();
        Ok(Self { mark, read_at, count: objects.len(), json: json.map(Arc::from), digest })
    }

    /// Returns the objects.
    ///
    /// # Errors
    /// They cannot be parsed, which is a bug.
    pub(super) fn objects(&self) -> serde_json::Result<Vec<Value>> {
        self.json.as_deref().map_or_else(|| Ok(Vec::new()), serde_json::from_slice)
    }

    /// Returns the digest of the objects.
    pub(super) fn digest(&self) -> &Sha {
        &self.digest
    }

    fn bytes(&self) -> usize {
        self.json.as_ref().map_or(0, |json| json.len())
    }
}

/// What an answer rests on.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// The question.
    pub(super) question: Question,
    /// Digest of the ConfigMaps' content.
    pub(super) inventory: Sha,
    /// The kinds in the inventory.
    pub(super) versions: Vec<KindRef>,
    /// Fingerprint of the key of Secrets' digests that the inventory was made with.
    pub(super) secret_key: Option<String>,
    /// Digest of what was read.
    pub(super) content: Sha,
    /// The answer.
    pub(super) answer: Answer,
}

struct Kept {
    lists: HashMap<Reader, HashMap<String, Lists>>,
    /// Size of the lists.
    bytes: usize,
    /// Maximum of that.
    limit: usize,
    answers: Vec<(Instant, Judged)>,
    swept: Option<Instant>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { lists: HashMap::new(), bytes: 0, limit: MAX_BYTES, answers: Vec::new(), swept: None }
    }
}

/// Lists of one place, by kind, and when each was last asked for.
type Lists = HashMap<Arc<KindRef>, (Instant, List)>;

impl KeptReads {
    pub(super) fn new(log: ChangeLog) -> Self {
        for kind in [
            ApiResource::erase::<Role>(&()),
            ApiResource::erase::<RoleBinding>(&()),
            ApiResource::erase::<ClusterRole>(&()),
            ApiResource::erase::<ClusterRoleBinding>(&()),
        ] {
            log.follow(&kind);
        }
        Self { log, kept: Mutex::default(), rights: ReviewedRights::default() }
    }

    /// Returns the log of changes.
    pub(super) fn log(&self) -> &ChangeLog {
        &self.log
    }

    /// Returns the reviews of accounts' rights.
    pub(super) fn rights(&self) -> &ReviewedRights {
        &self.rights
    }

    /// Returns whether something is kept of each of these namespaces, as an account has read it.
    pub(super) fn has(&self, user: &str, namespaces: &[String]) -> bool {
        let kept = self.kept();
        let mut of_user = kept.lists.iter().filter(|((of, _), _)| of == user);
        of_user.any(|(_, places)| namespaces.iter().all(|namespace| places.contains_key(namespace)))
    }

    /// Returns the list of a kind in a place (empty: the cluster) if nothing has changed since it was read.
    pub(super) fn unchanged(&self, reader: &Reader, place: &str, kind: &Arc<KindRef>) -> Option<List> {
        let mut kept = self.kept();
        let (used_at, list) = kept.lists.get_mut(reader)?.get_mut(place)?.get_mut(kind)?;
        *used_at = Instant::now();
        let list = list.clone();
        drop(kept);
        let is_valid = list.mark.is_some()
            && self.log.mark(&name_of(kind), place) == list.mark
            && list.read_at.elapsed() < LASTS;
        is_valid.then_some(list)
    }

    /// Keeps a list, if its changes are recorded and there is room.
    pub(super) fn keep(&self, reader: &Reader, place: &str, kind: &Arc<KindRef>, list: &List) {
        self.kept().keep(reader, place, kind, list, Instant::now());
    }

    /// Returns what was last answered to a question, about this inventory.
    pub(super) fn judged(&self, question: &Question, inventory: &Sha) -> Option<Judged> {
        let mut kept = self.kept();
        let of = |judged: &Judged| judged.inventory == *inventory && judged.question == *question;
        let (used_at, judged) = kept.answers.iter_mut().find(|(_, judged)| of(judged))?;
        *used_at = Instant::now();
        Some(judged.clone())
    }

    /// Keeps an answer instead of the last one to the same question.
    pub(super) fn keep_answer(&self, judged: Judged) {
        let now = Instant::now();
        let mut kept = self.kept();
        kept.sweep(now);
        kept.answers.retain(|(_, before)| before.question != judged.question);
        if kept.answers.len() < MAX_ANSWERS {
            kept.answers.push((now, judged));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, reader: &Reader, place: &str, kind: &Arc<KindRef>, list: &List, now: Instant) {
        self.sweep(now);
        let all = self.lists.entry(reader.clone()).or_default();
        let lists = all.entry(place.to_owned()).or_default();
        self.bytes -= lists.remove(kind).map_or(0, |(_, before)| before.bytes());
        if list.mark.is_some() && self.bytes + list.bytes() <= self.limit {
            self.bytes += list.bytes();
            lists.insert(kind.clone(), (now, list.clone()));
        }
    }

    /// Removes what nobody has asked for in a while.
    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|at| now.duration_since(at) >= UNUSED_FOR / 10);
        if !is_due {
            return;
        }
        self.swept = Some(now);
        let is_used = |at: &Instant| now.duration_since(*at) < UNUSED_FOR;
        for places in self.lists.values_mut() {
            for lists in places.values_mut() {
                lists.retain(|_, (used_at, _)| is_used(used_at));
            }
            places.retain(|_, lists| !lists.is_empty());
        }
        self.lists.retain(|_, places| !places.is_empty());
        self.answers.retain(|(used_at, _)| is_used(used_at));
        let all = self.lists.values().flat_map(HashMap::values).flat_map(HashMap::values);
        self.bytes = all.map(|(_, list)| list.bytes()).sum();
    }
}

/// Returns the name of a kind, whatever its version.
pub(super) fn name_of(kind: &KindRef) -> KindName {
    (kind.group.clone(), kind.plural.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(plural: &str) -> Arc<KindRef> {
        let text = || plural.to_owned();
        Arc::new(KindRef { group: String::new(), plural: text(), version: text(), kind: text() })
    }

    fn list(mark: Option<ChangeMark>, content: &str) -> List {
        List::new(mark, Instant::now(), &[json!(content)]).unwrap()
    }

    fn count(kept: &Kept) -> usize {
        kept.lists.values().flat_map(HashMap::values).map(HashMap::len).sum()
    }

    #[test]
    fn kept_lists_are_bounded_and_replaced() {
        let mut kept = Kept { limit: 20, ..Kept::default() };
        let (reader, now) = (("user".to_owned(), None), Instant::now());
        kept.keep(&reader, "a", &kind("pods"), &list(Some(1), "12345"), now);
        assert_eq!((count(&kept), kept.bytes), (1, 9));
        kept.keep(&reader, "b", &kind("pods"), &list(Some(1), "12345678"), now);
        assert_eq!((count(&kept), kept.bytes), (1, 9), "there is no room");
        kept.keep(&reader, "a", &kind("pods"), &list(Some(2), "1"), now);
        kept.keep(&reader, "b", &kind("pods"), &list(Some(1), "12345678"), now);
        assert_eq!((count(&kept), kept.bytes), (2, 5 + 12));
        kept.keep(&reader, "a", &kind("pods"), &list(None, "1"), now);
        assert_eq!((count(&kept), kept.bytes), (1, 12), "nobody tells of its changes");
    }

    #[test]
    fn what_nobody_asks_for_is_dropped() {
        let mut kept = Kept::default();
        let (reader, now) = (("user".to_owned(), None), Instant::now());
        kept.keep(&reader, "a", &kind("pods"), &list(Some(1), "1"), now);
        let later = now + UNUSED_FOR / 2;
        kept.keep(&reader, "b", &kind("pods"), &list(Some(1), "1"), later);
        assert_eq!(count(&kept), 2);
        kept.keep(&reader, "c", &kind("pods"), &list(Some(1), "1"), now + UNUSED_FOR);
        assert_eq!((count(&kept), kept.bytes), (2, 10));
        kept.sweep(later + 2 * UNUSED_FOR);
        assert_eq!((count(&kept), kept.bytes, kept.lists.len()), (0, 0, 0));
    }
}
