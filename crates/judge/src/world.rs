//! State before a write: everything as last written.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::CannotJudge;
use crate::change::{Change, GateRecord, Level, Quarantine, Record, Write};
use crate::plan::Plan;

/// Everything as last written.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub namespaces: BTreeMap<String, Namespace>,
    /// ServiceRecoveries, by service.
    pub records: BTreeMap<String, RecordState>,
    pub quarantines: BTreeMap<String, Quarantine>,
    /// Namespaces whose Quarantine a person deleted, which is a release.
    pub released: BTreeSet<String>,
    /// UIDs of deleted plans.
    pub gone_plans: BTreeSet<String>,
    /// UID of the current plan.
    pub plan_uid: String,
    /// Decisions that people made: service, action, and digest of what they were about.
    pub decisions: BTreeSet<(String, String, String)>,
    /// Whether a namespace of the plan has been isolated.
    pub ever_isolated: bool,
}

/// A namespace, as last written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespace {
    pub level: Level,
    /// When it was last changed from open or clean room to sealed or contained.
    pub closed: Option<Timestamp>,
    deleted: bool,
}

/// A ServiceRecovery, as last written.
#[derive(Debug)]
pub(crate) struct RecordState {
    pub record: Record,
    /// When the API server received the write. Its author got the answer later.
    pub received: Timestamp,
    /// Verdicts before this attempt was claimed.
    earlier: Vec<GateRecord>,
    /// Skew of the clock by which the claim was timed, relative to the API server's.
    claim_skew: SignedDuration,
    /// Skew of the clock by which each verdict was first timed.
    verdict_skews: Vec<SignedDuration>,
}

/// Maximum skew of synchronised clocks.
const KEPT: SignedDuration = SignedDuration::from_secs(5);

impl RecordState {
    fn new(before: Option<Self>, record: &Record, received: Timestamp, ahead: SignedDuration) -> Self {
        let skew = |said| before.as_ref().and_then(|before| before.clock_skew(said)).unwrap_or(ahead);
        let verdict_skews = record.gates.iter().map(skew).collect();
        let (earlier, claim_skew) = match before {
            Some(before) if before.record.claimed_at == record.claimed_at => {
                (before.earlier, before.claim_skew)
            }
            before => (before.map(|before| before.record.gates).unwrap_or_default(), ahead),
        };
        Self { record: record.clone(), received, earlier, claim_skew, verdict_skews }
    }

    /// Returns the skew of the clock by which a verdict was first timed, if it is recorded.
    fn clock_skew(&self, said: &GateRecord) -> Option<SignedDuration> {
        self.record
            .gates
            .iter()
            .zip(&self.verdict_skews)
            .find(|(one, _)| *one == said)
            .map(|(_, ahead)| *ahead)
    }
}

/// A namespace's label changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LevelChange<'a> {
    pub namespace: &'a str,
    pub from: Level,
    /// `None`: it was deleted.
    pub to: Option<Level>,
}

impl LevelChange<'_> {
    /// Was anything let in, or out?
    pub(crate) fn loosens(&self) -> bool {
        let to = self.to.unwrap_or(Level::Open);
        (self.from.is_closed() && to == Level::CleanRoom) || (self.from != Level::Open && to == Level::Open)
    }

    /// In words.
    pub(crate) fn text(&self) -> String {
        let to = self.to.map_or("deleted", Level::as_str);
        format!("{} went from {} to {to}", self.namespace, self.from.as_str())
    }
}

impl World {
    pub(crate) fn record(&self, service: &str) -> Option<&Record> {
        self.records.get(service).map(|known| &known.record)
    }

    /// Did a gate pass before this attempt was claimed? By the log where it had said so by then; and else by the clock of whoever wrote
    /// both, which tells nothing if it was another, or was set, in between. `ahead`: that of the clock which tells it now.
    pub(crate) fn passed_earlier(
        &self,
        service: &str,
        record: &Record,
        said: &GateRecord,
        ahead: SignedDuration,
    ) -> bool {
        let by_clock = record.claimed_at.is_none_or(|claimed| said.since < claimed);
        match self.records.get(service).filter(|known| known.record.claimed_at == record.claimed_at) {
            Some(known) => {
                let apart = known.clock_skew(said).unwrap_or(ahead) - known.claim_skew;
                known.earlier.contains(said) || (by_clock && apart.abs() <= KEPT)
            }
            None => by_clock,
        }
    }

    pub(crate) fn level(&self, namespace: &str) -> Level {
        self.namespaces.get(namespace).map_or(Level::Open, |namespace| namespace.level)
    }

    /// What a write does to a namespace's label.
    ///
    /// # Errors
    /// The namespace's beginning is not in the log.
    pub(crate) fn moved<'a>(
        &self,
        write: &'a Write,
        plan: &Plan,
    ) -> Result<Option<LevelChange<'a>>, CannotJudge> {
        let (name, to) = match &write.change {
            Change::Namespace { name, level } => (name, Some(*level)),
            Change::NamespaceDeleted { name } => (name, None),
            _ => return Ok(None),
        };
        let known = self.namespaces.get(name);
        // Once a namespace is being deleted, its labels do not count until it is created again.
        if known.is_some_and(|known| known.deleted) && !write.created {
            return Ok(None);
        }
        if known.is_none() && to.is_some() && !write.created && plan.service_of(name).is_some() {
            let reason = format!("it begins after namespace {name} was made: its beginning is missing");
            return Err(CannotJudge::Log(reason));
        }
        let from = known.filter(|known| !known.deleted).map_or(Level::Open, |known| known.level);
        Ok(Some(LevelChange { namespace: name, from, to }))
    }

    /// Takes a write in, when every rule has been asked about it. `ahead`: by how much the clock of whoever led was.
    pub(crate) fn take(
        &mut self,
        write: &Write,
        moved: Option<LevelChange<'_>>,
        plan: &Plan,
        ahead: SignedDuration,
    ) {
        match &write.change {
            Change::Namespace { .. } | Change::NamespaceDeleted { .. } => {
                let Some(moved) = moved else { return };
                let to = moved.to.unwrap_or(Level::Open);
                let closes = !moved.from.is_closed() && to.is_closed();
                let before = self.namespaces.get(moved.namespace).and_then(|known| known.closed);
                let closed = if closes { Some(write.completed) } else { before };
                let now = Namespace { level: to, closed, deleted: moved.to.is_none() };
                self.namespaces.insert(moved.namespace.to_owned(), now);
                self.ever_isolated |= to != Level::Open && plan.service_of(moved.namespace).is_some();
            }
            Change::Service { name, record: Some(record) } => {
                let before = self.records.remove(name);
                self.records.insert(name.clone(), RecordState::new(before, record, write.received, ahead));
            }
            Change::Service { name, record: None } => {
                self.records.remove(name);
            }
            Change::Quarantine { name, quarantine } => {
                let before = self.quarantines.remove(name);
                let goes = quarantine.as_ref().is_none_or(|now| now.going);
                let went = before.as_ref().is_none_or(|before| before.going);
                if goes && !went && is_person(&write.user) {
                    self.released.insert(name.clone());
                }
                if let Some(now) = quarantine {
                    if !now.going {
                        self.released.remove(name);
                    }
                    self.quarantines.insert(name.clone(), (**now).clone());
                }
            }
            Change::Decision { service, action, decided_on } => {
                self.decisions.insert((service.clone(), action.clone(), decided_on.clone()));
            }
            Change::Plan { uid, there: true } => self.plan_uid.clone_from(uid),
            Change::Plan { uid, there: false } => {
                self.gone_plans.insert(uid.clone());
            }
            Change::Pod { .. }
            | Change::Workload { .. }
            | Change::Restored { .. }
            | Change::Carried { .. } => {}
        }
    }
}

/// Neither a service account nor a part of the control plane.
pub(crate) fn is_person(user: &str) -> bool {
    !user.starts_with("system:")
}
