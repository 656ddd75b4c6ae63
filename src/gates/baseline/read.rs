//! Reads what is compared with a baseline: everything anew, or what has changed since it was last read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use resurgam_core::baseline::{KindRef, MAX_OBJECTS, Marks, Observed, content, observe};
use sha2::{Digest, Sha256};

use super::unread;
use crate::api::GateReason;
use crate::baseline::gather::{self, GatherError, Kind, PARALLEL, Request, Room};
use crate::cluster_cache::ChangeMark;
use crate::gates::kept_reads::{KeptReads, List, Reader, Sha, name_of};
use crate::gates::{Account, Answer};

/// How often what has changed during the reading is read again.
const ROUNDS: usize = 6;
/// Pause before the third round, doubled for each further one.
const BURST: Duration = Duration::from_millis(20);
/// How long the first evaluation waits for watches to start.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// Where one evaluation reads.
pub(super) struct Lists<'a> {
    pub(super) account: &'a Account,
    /// `None`: nothing is kept, and nobody tells what changes.
    pub(super) kept: Option<&'a KeptReads>,
    /// Whether lists that are kept are used.
    pub(super) uses_kept: bool,
    pub(super) request: Request<'a>,
}

/// A kind in a place.
#[derive(Clone)]
struct Pair {
    /// The namespace. Empty: the cluster.
    place: Arc<str>,
    kind: usize,
}

/// Lists that were read until nothing changed any more.
struct Settled {
    lists: Vec<Option<List>>,
    /// Which of them were read.
    read: BTreeSet<usize>,
    /// One that has changed since. `None`: none has.
    changing: Option<usize>,
}

/// Reads what is missing, and again what has changed since it was read, for a while. `mark`: the moment of the last change of a list, if
/// somebody tells. A list of which nobody tells is read once.
///
/// # Errors
/// That of `read`.
async fn settle<F, Fut>(
    mut lists: Vec<Option<List>>,
    mark: impl Fn(usize) -> Option<ChangeMark>,
    read: F,
) -> Result<Settled, Answer>
where
    F: Fn(Vec<usize>) -> Fut,
    Fut: Future<Output = Result<Vec<(usize, List)>, Answer>>,
{
    let is_due = |id: usize, list: &Option<List>| match list {
        None => true,
        Some(list) => list.mark.is_some() && list.mark != mark(id),
    };
    let mut all_read = BTreeSet::new();
    for round in 0..ROUNDS {
        let due: Vec<usize> = (0..lists.len()).filter(|id| is_due(*id, &lists[*id])).collect();
        if due.is_empty() {
            return Ok(Settled { lists, read: all_read, changing: None });
        }
        // Changes come in bursts.
        if let Some(doubled) = round.checked_sub(2) {
            tokio::time::sleep(BURST * (1 << doubled)).await;
        }
        all_read.extend(due.iter().copied());
        for (id, list) in read(due).await? {
            lists[id] = Some(list);
        }
    }
    let changing = (0..lists.len()).find(|id| is_due(*id, &lists[*id]));
    Ok(Settled { lists, read: all_read, changing })
}

/// What was read.
pub(super) struct Reading {
    /// Namespaced kinds, sorted.
    pub(super) kinds: Vec<KindRef>,
    /// Lists by place, and in it by kind.
    lists: BTreeMap<Arc<str>, Vec<(Arc<KindRef>, List)>>,
}

impl Reading {
    /// Returns a digest of the objects, and of which kinds there are.
    pub(super) fn digest(&self) -> Sha {
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update(bytes.len().to_le_bytes());
            digest.update(bytes);
        };
        for kind in &self.kinds {
            [&kind.group, &kind.plural, &kind.version, &kind.kind]
                .iter()
                .for_each(|text| add(text.as_bytes()));
        }
        for (place, lists) in &self.lists {
            for (kind, list) in lists.iter().filter(|(_, list)| list.count > 0) {
                [place, kind.group.as_str(), &kind.plural, &kind.version]
                    .iter()
                    .for_each(|text| add(text.as_bytes()));
                add(list.digest());
            }
        }
        digest.finalize().into()
    }

    /// Returns what is there. One namespace is parsed at a time.
    ///
    /// # Errors
    /// An Unknown: what was kept cannot be parsed.
    pub(super) fn observed(&self, marks: &Marks) -> Result<Observed, Answer> {
        let malformed = |error: serde_json::Error| {
            Answer::unknown(GateReason::Unreadable, format!("bug: what was read cannot be parsed: {error}"))
        };
        let mut parts = Vec::new();
        for lists in self.lists.values() {
            let mut objects = Vec::new();
            for (_, list) in lists {
                objects.extend(list.objects().map_err(malformed)?);
            }
            parts.push(observe(objects, marks));
        }
        Ok(Observed::merged(parts))
    }
}

impl Lists<'_> {
    /// Reads until nothing has changed since it was read.
    ///
    /// # Errors
    /// An Unknown: something cannot be read, or keeps changing.
    pub(super) async fn read(&self, key: Option<String>) -> Result<Reading, Answer> {
        let client = &self.account.client;
        let mut kinds = gather::kinds(client, &self.request).await.map_err(|error| unread(&error))?;
        let namespaced = kinds.iter().filter(|kind| kind.is_namespaced).map(Kind::to_ref).collect();
        kinds.push(Kind::namespaces());
        let names: Vec<Arc<KindRef>> = kinds.iter().map(|kind| Arc::new(kind.to_ref())).collect();
        let pairs = self.pairs(&kinds);
        if let Some(kept) = self.kept {
            kinds.iter().filter(|kind| kind.is_watchable).for_each(|kind| kept.log().follow(&kind.resource));
            kept.log().settled(SETTLED_WITHIN).await;
        }
        let reader: Reader = (self.account.user.clone(), key);
        let lists = self.unchanged(&reader, &pairs, &names).await;
        let mark = |id: usize| self.mark(&names[pairs[id].kind], &pairs[id].place);
        let (pairs, names) = (&pairs, &names);
        let kinds = &kinds;
        let read = |due: Vec<usize>| async move {
            let room = &Room::default();
            let lists = stream::iter(due).map(|id| {
                let pair = pairs[id].clone();
                let (kind, name) = (kinds[pair.kind].clone(), names[pair.kind].clone());
                async move { Ok((id, self.list(&pair.place, &kind, &name, room).await?)) }
            });
            let lists = lists.buffer_unordered(PARALLEL).try_collect::<Vec<(usize, List)>>().await;
            lists.map_err(|error: GatherError| unread(&error))
        };
        let settled = settle(lists, mark, read).await?;
        for (id, list) in settled.lists.iter().enumerate().filter(|(id, _)| settled.read.contains(id)) {
            if let (Some(kept), Some(list)) = (self.kept, list) {
                kept.keep(&reader, &pairs[id].place, &names[pairs[id].kind], list);
            }
        }
        let Some(id) = settled.changing else {
            return self.reading(namespaced, pairs, names, settled.lists);
        };
        let (place, kind) = (&pairs[id].place, &names[pairs[id].kind].kind);
        let place = if place.is_empty() { String::new() } else { format!(" in namespace {place}") };
        let why =
            format!("objects of kind {kind}{place} changed each time they were read; they are read again");
        Err(Answer::unknown(GateReason::InProgress, why))
    }

    /// Returns each kind in each place that is read.
    fn pairs(&self, kinds: &[Kind]) -> Vec<Pair> {
        let namespaces: Vec<Arc<str>> = self.request.namespaces.iter().map(|of| of.as_str().into()).collect();
        let last = kinds.len() - 1;
        let of_kind = |(id, kind): (usize, &Kind)| {
            let places = match kind.is_namespaced || id == last {
                true => namespaces.clone(),
                false => vec![Arc::from("")],
            };
            places.into_iter().map(move |place| Pair { place, kind: id })
        };
        kinds.iter().enumerate().flat_map(of_kind).collect()
    }

    /// Returns the lists that are as they were when they were read, if the account may still read them.
    async fn unchanged(&self, reader: &Reader, pairs: &[Pair], names: &[Arc<KindRef>]) -> Vec<Option<List>> {
        let Some(kept) = self.kept.filter(|_| self.uses_kept) else { return vec![None; pairs.len()] };
        let of_cluster = pairs.iter().filter(|pair| pair.place.is_empty());
        let of_cluster: Vec<KindRef> = of_cluster.map(|pair| (*names[pair.kind]).clone()).collect();
        let rights = kept.rights().review(self.account, kept.log(), self.request.namespaces, &of_cluster);
        let allowed = rights.await;
        let unchanged = |pair: &Pair| {
            let kind = &names[pair.kind];
            kept.unchanged(reader, &pair.place, kind).filter(|_| allowed.may_read(&pair.place, kind))
        };
        pairs.iter().map(unchanged).collect()
    }

    /// Returns the moment of the last change. `None`: nobody tells.
    fn mark(&self, kind: &KindRef, place: &str) -> Option<ChangeMark> {
        self.kept?.log().mark(&name_of(kind), place)
    }

    async fn list(&self, place: &str, kind: &Kind, name: &KindRef, room: &Room) -> Result<List, GatherError> {
        let (client, key) = (&self.account.client, self.request.key);
        let mark = self.mark(name, place);
        let read_at = Instant::now();
        let mut objects = match kind.is_namespaced {
            true => gather::list(client, &kind.resource, Some(place), key, room).await?,
            false if place.is_empty() => gather::list(client, &kind.resource, None, key, room).await?,
            false => vec![gather::namespace(client, place).await?],
        };
        objects.iter_mut().for_each(content::trim);
        List::new(mark, read_at, &objects)
            .map_err(|error| GatherError::Malformed(name.kind.clone(), error.to_string()))
    }

    fn reading(
        &self,
        kinds: Vec<KindRef>,
        pairs: &[Pair],
        names: &[Arc<KindRef>],
        lists: Vec<Option<List>>,
    ) -> Result<Reading, Answer> {
        let mut reading = Reading { kinds, lists: BTreeMap::new() };
        let mut count = 0;
        for (pair, list) in pairs.iter().zip(lists) {
            // Each was read, or an error was returned.
            let Some(list) = list else { continue };
            count += list.count;
            if count > MAX_OBJECTS {
                return Err(unread(&GatherError::TooMany(names[pair.kind].kind.clone())));
            }
            reading.lists.entry(pair.place.clone()).or_default().push((names[pair.kind].clone(), list));
        }
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    /// Kinds as somebody else writes them: the current mark of each, and the rounds in which each changes right after it was read.
    struct World {
        marks: RefCell<Vec<Option<ChangeMark>>>,
        changes: Vec<usize>,
        rounds: RefCell<Vec<Vec<usize>>>,
    }

    impl World {
        fn new(marks: &[Option<ChangeMark>], changes: &[usize]) -> Self {
            let (marks, rounds) = (RefCell::new(marks.to_vec()), RefCell::default());
            Self { marks, changes: changes.to_vec(), rounds }
        }

        async fn read(&self, due: Vec<usize>) -> Result<Vec<(usize, List)>, Answer> {
            let round = self.rounds.borrow().len();
            let lists = due.iter().map(|&id| {
                let mut marks = self.marks.borrow_mut();
                let list = List::new(marks[id], Instant::now(), &[json!({"round": round})]).unwrap();
                if round < self.changes[id] {
                    marks[id] = marks[id].map(|mark| mark + 1);
                }
                (id, list)
            });
            let lists = lists.collect();
            self.rounds.borrow_mut().push(due);
            Ok(lists)
        }

        async fn settled(&self, lists: Vec<Option<List>>) -> Settled {
            settle(lists, |id| self.marks.borrow()[id], |due| self.read(due)).await.unwrap()
        }
    }

    fn list(mark: Option<ChangeMark>) -> Option<List> {
        Some(List::new(mark, Instant::now(), &[]).unwrap())
    }

    #[tokio::test]
    async fn what_changes_while_it_is_read_is_read_again() {
        let world = World::new(&[Some(1), Some(5), Some(9)], &[0, 2, 0]);
        let settled = world.settled(vec![None, None, list(Some(9))]).await;
        assert_eq!(*world.rounds.borrow(), [vec![0, 1], vec![1], vec![1]]);
        assert_eq!((settled.changing, settled.read), (None, [0, 1].into()));
        let objects = settled.lists[1].as_ref().unwrap().objects().unwrap();
        assert_eq!(objects, [json!({"round": 2})], "the last one counts");
    }

    #[tokio::test]
    async fn what_changes_each_time_is_no_answer() {
        let world = World::new(&[Some(1), Some(1)], &[0, usize::MAX]);
        let settled = world.settled(vec![None, None]).await;
        assert_eq!((settled.changing, world.rounds.borrow().len()), (Some(1), ROUNDS));
    }

    #[tokio::test]
    async fn what_nobody_tells_of_is_read_once() {
        let world = World::new(&[None, None], &[0, 0]);
        // The second was read while its watch ran. It runs no longer.
        let settled = world.settled(vec![None, list(Some(3))]).await;
        assert_eq!(*world.rounds.borrow(), [vec![0, 1]]);
        assert_eq!(settled.changing, None);
    }
}
