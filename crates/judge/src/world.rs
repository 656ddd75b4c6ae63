//! What is known at a moment: everything as it was last written.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::CannotJudge;
use crate::plan::Plan;
use crate::what::{Level, Quarantine, Record, Said, What, Write};

/// Everything as it was last written.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub namespaces: BTreeMap<String, Namespace>,
    /// ServiceRecoveries, by service.
    pub records: BTreeMap<String, Known>,
    pub quarantines: BTreeMap<String, Quarantine>,
    /// Namespaces whose Quarantine a person deleted, which is a release.
    pub released: BTreeSet<String>,
    /// UIDs of plans that are not there any more.
    pub gone_plans: BTreeSet<String>,
    /// UID of the plan, as it was last made.
    pub plan_uid: String,
    /// Retries that people decided: service, and digest of what they decided on.
    pub retries: BTreeSet<(String, String)>,
    /// A namespace of the plan was isolated.
    pub ever_isolated: bool,
}

/// A namespace, as last written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespace {
    pub level: Level,
    /// When it was last closed: put from open or clean room to sealed or contained.
    pub closed: Option<Timestamp>,
    deleted: bool,
}

/// A ServiceRecovery, as last written.
#[derive(Debug)]
pub(crate) struct Known {
    pub record: Record,
    /// When the API server had the request that wrote it. Whoever wrote it knew of the answer no earlier.
    pub received: Timestamp,
    /// What was said of gates before this attempt was claimed.
    earlier: Vec<Said>,
    /// By how much the clock that the claim was told by was ahead of the API server's.
    claim_ahead: SignedDuration,
    /// The same of the clock that what is said of each gate was first told by.
    said_ahead: Vec<SignedDuration>,
}

/// By how much clocks may differ that are kept.
const KEPT: SignedDuration = SignedDuration::from_secs(5);

impl Known {
    fn new(before: Option<Self>, record: &Record, received: Timestamp, ahead: SignedDuration) -> Self {
        let told = |said| before.as_ref().and_then(|before| before.told(said)).unwrap_or(ahead);
        let said_ahead = record.gates.iter().map(told).collect();
        let (earlier, claim_ahead) = match before {
            Some(before) if before.record.claimed_at == record.claimed_at => {
                (before.earlier, before.claim_ahead)
            }
            before => (before.map(|before| before.record.gates).unwrap_or_default(), ahead),
        };
        Self { record: record.clone(), received, earlier, claim_ahead, said_ahead }
    }

    /// By how much the clock was ahead by which this was told, if it was told by then.
    fn told(&self, said: &Said) -> Option<SignedDuration> {
        self.record.gates.iter().zip(&self.said_ahead).find(|(one, _)| *one == said).map(|(_, ahead)| *ahead)
    }
}

/// A namespace's label changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved<'a> {
    pub namespace: &'a str,
    pub from: Level,
    /// `None`: it was deleted.
    pub to: Option<Level>,
}

impl Moved<'_> {
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
        said: &Said,
        ahead: SignedDuration,
    ) -> bool {
        let by_clock = record.claimed_at.is_none_or(|claimed| said.since < claimed);
        match self.records.get(service).filter(|known| known.record.claimed_at == record.claimed_at) {
            Some(known) => {
                let apart = known.told(said).unwrap_or(ahead) - known.claim_ahead;
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
    pub(crate) fn moved<'a>(&self, write: &'a Write, plan: &Plan) -> Result<Option<Moved<'a>>, CannotJudge> {
        let (name, to) = match &write.what {
            What::Namespace { name, level } => (name, Some(*level)),
            What::NamespaceDeleted { name } => (name, None),
            _ => return Ok(None),
        };
        let known = self.namespaces.get(name);
        // Once its deletion has begun, its labels say nothing more, until it is made anew.
        if known.is_some_and(|known| known.deleted) && !write.created {
            return Ok(None);
        }
        if known.is_none() && to.is_some() && !write.created && plan.service_of(name).is_some() {
            let reason = format!("it begins after namespace {name} was made: its beginning is missing");
            return Err(CannotJudge::Log(reason));
        }
        let from = known.filter(|known| !known.deleted).map_or(Level::Open, |known| known.level);
        Ok(Some(Moved { namespace: name, from, to }))
    }

    /// Takes a write in, when every rule has been asked about it. `ahead`: by how much the clock of whoever led was.
    pub(crate) fn take(
        &mut self,
        write: &Write,
        moved: Option<Moved<'_>>,
        plan: &Plan,
        ahead: SignedDuration,
    ) {
        match &write.what {
            What::Namespace { .. } | What::NamespaceDeleted { .. } => {
                let Some(moved) = moved else { return };
                let to = moved.to.unwrap_or(Level::Open);
                let closes = !moved.from.is_closed() && to.is_closed();
                let before = self.namespaces.get(moved.namespace).and_then(|known| known.closed);
                let closed = if closes { Some(write.completed) } else { before };
                let now = Namespace { level: to, closed, deleted: moved.to.is_none() };
                self.namespaces.insert(moved.namespace.to_owned(), now);
                self.ever_isolated |= to != Level::Open && plan.service_of(moved.namespace).is_some();
            }
            What::Service { name, record: Some(record) } => {
                let before = self.records.remove(name);
                self.records.insert(name.clone(), Known::new(before, record, write.received, ahead));
            }
            What::Service { name, record: None } => {
                self.records.remove(name);
            }
            What::Quarantine { name, quarantine } => {
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
            What::Retry { service, decided_on } => {
                self.retries.insert((service.clone(), decided_on.clone()));
            }
            What::Plan { uid, there: true } => self.plan_uid.clone_from(uid),
            What::Plan { uid, there: false } => {
                self.gone_plans.insert(uid.clone());
            }
            What::Pod { .. } | What::Workload { .. } | What::Restored { .. } | What::Carried { .. } => {}
        }
    }
}

/// Neither a service account nor a part of the control plane.
pub(crate) fn is_person(user: &str) -> bool {
    !user.starts_with("system:")
}
