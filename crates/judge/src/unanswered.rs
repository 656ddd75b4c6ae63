//! Writes without an answer: the client was killed, or the store timed out (504, `context canceled`). Such a write may have taken effect.
//! Its outcome is derived from later events about the object:
//!
//! - **Happened**: the object occurs later at a revision that no answered write created, with content that fits the request. It occurs in
//!   a logged read, or as the `resourceVersion` of a later write that the API server accepted as current.
//! - **Did not**: the next write to the object was based on the revision that this write would have replaced.
//! - **Unknown** otherwise. It is reported; if the write would have loosened something, the run is not clean.
//!
//! A revision that neither an answered write nor one of these can have created shows that writes are missing from the log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::change::{Change, Write};
use crate::event::{Bodies, Event, Object, revision};
use crate::plan::Plan;
use crate::report::{Unanswered, WriteOutcome};

/// Outcome of a write without an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It took effect: its revision, and the object if a later event shows it. A deletion has no revision.
    Happened { revision: Option<u64>, body: Option<Value> },
    /// It did not take effect.
    DidNot,
    /// The log does not show it.
    Unknown,
}

/// A write without an answer.
#[derive(Debug)]
pub(crate) struct UnansweredWrite {
    pub event: Event,
    pub write: Write,
    /// Object after the write, as far as it is known.
    effective: Value,
    key: Object,
    /// The only revision that it could replace.
    precondition: Option<u64>,
    /// The newest answered revision of the object at that time.
    base: u64,
    request: Value,
}

/// A write with an answer.
#[derive(Debug)]
struct AnsweredWrite {
    received: Timestamp,
    precondition: Option<u64>,
    created: bool,
}

/// An object observed at a revision.
#[derive(Debug)]
struct Observation {
    line: usize,
    completed: Timestamp,
    body: Option<Value>,
}

impl Observation {
    /// Returns an observation of the revision alone.
    fn of(line: usize, completed: Timestamp) -> Self {
        Self { line, completed, body: None }
    }
}

/// A revision that was observed and that no write in the log can have created.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub object: String,
    pub revision: u64,
    /// Line where it was observed.
    pub line: usize,
}

/// Revisions of one object.
#[derive(Debug, Default)]
struct Chain {
    made: BTreeMap<u64, AnsweredWrite>,
    seen: BTreeMap<u64, Observation>,
    /// When the object was observed not to exist.
    absent: Vec<Timestamp>,
    /// The newest answer, from which the result of an unanswered patch is computed.
    last: Value,
    newest: u64,
}

/// Revisions of all relevant objects.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    objects: BTreeMap<Object, Chain>,
    doubts: Vec<UnansweredWrite>,
}

impl Chains {
    /// Records a write that succeeded.
    pub(crate) fn made(&mut self, event: &Event, name: &str, created: bool, bodies: &Bodies) {
        // Pods are numerous, and no rule uses their history.
        let Some(now) = revision(&bodies.response_object).filter(|_| event.object.resource != "pods") else {
            return;
        };
        let chain = self.objects.entry(key(event, name)).or_default();
        let precondition = revision(&bodies.request_object);
        // A write without a change creates no revision.
        if precondition != Some(now) {
            let made = AnsweredWrite { received: event.received, precondition, created };
            chain.made.entry(now).or_insert(made);
        }
        if let Some(before) = precondition {
            chain.seen.entry(before).or_insert(Observation::of(event.line, event.completed));
        }
        if now >= chain.newest && event.object.subresource != "scale" {
            chain.newest = now;
            chain.last = bodies.response_object.clone();
        }
    }

    /// Records a read with its answer. `None`: the object did not exist.
    pub(crate) fn sighted(&mut self, event: &Event, body: Option<&Value>) {
        let chain = self.objects.entry(key(event, &event.object.name)).or_default();
        let Some((body, now)) = body.and_then(|body| Some((body, revision(body)?))) else {
            chain.absent.push(event.completed);
            return;
        };
        if !chain.made.contains_key(&now) && chain.seen.get(&now).is_none_or(|seen| seen.body.is_none()) {
            let body = Some(body.clone());
            chain.seen.insert(now, Observation { line: event.line, completed: event.completed, body });
        }
    }

    /// Returns the object after an unanswered write, if it took effect.
    pub(crate) fn effective(&self, event: &Event, name: &str, request: &Value) -> Value {
        let last = self.objects.get(&key(event, name)).map(|chain| chain.last.clone());
        apply(event, last.unwrap_or_default(), request)
    }

    /// Records a write without an answer.
    pub(crate) fn doubt(&mut self, event: &Event, name: &str, write: Write, bodies: (Value, Value)) {
        let key = key(event, name);
        let base = self.objects.get(&key).map_or(0, |chain| chain.newest);
        let (request, effective) = bodies;
        let precondition = revision(&request).filter(|_| !event.deletes());
        let event = event.clone();
        self.doubts.push(UnansweredWrite { event, write, effective, key, precondition, base, request });
    }

    /// Returns the outcome of each write without an answer, in order, and a revision that no write can have created, if any.
    pub(crate) fn resolve(&mut self) -> (Vec<(UnansweredWrite, Outcome)>, Option<Orphan>) {
        let mut outcomes = Vec::new();
        // Last one first: if it took effect, its base revision shows the outcome of the one before.
        let mut doubts = std::mem::take(&mut self.doubts);
        doubts.sort_by_key(|doubt| std::cmp::Reverse(doubt.write.line));
        for doubt in doubts {
            let chain = self.objects.entry(doubt.key.clone()).or_default();
            let outcome = chain.outcome(&doubt);
            if let Outcome::Happened { revision: Some(revision), .. } = outcome {
                let UnansweredWrite { write, precondition, .. } = &doubt;
                let (received, created) = (write.received, write.created);
                chain.made.insert(revision, AnsweredWrite { received, precondition: *precondition, created });
                if let Some(before) = precondition {
                    chain.seen.entry(*before).or_insert(Observation::of(write.line, write.completed));
                }
            }
            outcomes.push((doubt, outcome));
        }
        let missing = self.objects.iter().find_map(|(key, chain)| {
            let (revision, seen) =
                chain.seen.iter().find(|(revision, _)| !chain.made.contains_key(revision))?;
            Some(Orphan { object: key.display(&key.name), revision: *revision, line: seen.line })
        });
        outcomes.reverse();
        (outcomes, missing)
    }
}

impl Chain {
    fn outcome(&self, doubt: &UnansweredWrite) -> Outcome {
        let write = &doubt.write;
        let later = || self.made.iter().filter(|(_, made)| made.received >= write.completed);
        if doubt.event.deletes() {
            // An existing object must have been created before any write.
            let gone = self.absent.iter().any(|at| *at >= write.received);
            return match later().next() {
                _ if gone => Outcome::Happened { revision: None, body: None },
                Some((_, next)) if next.created => Outcome::Happened { revision: None, body: None },
                Some(_) => Outcome::DidNot,
                None => Outcome::Unknown,
            };
        }
        let fits = |seen: &Observation| seen.body.as_ref().is_none_or(|body| contains(body, &doubt.request));
        let orphan = match doubt.precondition {
            // Only this write can have come next.
            Some(before) => self.seen.range(before + 1..).next().filter(|(revision, _)| {
                self.made.range(before + 1..).next().is_none_or(|(made, _)| made > *revision)
            }),
            None => {
                let mut after = self.seen.range(doubt.base + 1..);
                after.find(|(revision, seen)| !self.made.contains_key(revision) && fits(seen))
            }
        };
        if let Some((revision, seen)) =
            orphan.filter(|(_, seen)| fits(seen) && seen.completed >= write.received)
        {
            return Outcome::Happened { revision: Some(*revision), body: seen.body.clone() };
        }
        let did_not = if write.created {
            later().any(|(_, next)| next.created)
        } else if let Some(precondition) = doubt.precondition {
            // Another write came next.
            let next = self.made.range(precondition + 1..).next();
            next.is_some_and(|(_, next)| next.precondition == Some(precondition))
        } else {
            self.unbroken(doubt)
        };
        if did_not { Outcome::DidNot } else { Outcome::Unknown }
    }

    /// Returns whether each write from the base revision to a later write was based on the one before it.
    fn unbroken(&self, doubt: &UnansweredWrite) -> bool {
        let mut before = doubt.base;
        for (revision, made) in self.made.range(doubt.base + 1..) {
            if made.precondition != Some(before) {
                return false;
            }
            if made.received >= doubt.write.completed {
                return true;
            }
            before = *revision;
        }
        false
    }
}

/// Returns the report of an unanswered write. An unknown outcome matters if the write would have changed a namespace of the plan.
pub(crate) fn to_report(plan: &Plan, write: &Write, outcome: &Outcome) -> Unanswered {
    let (came, revision) = match outcome {
        Outcome::Happened { revision, .. } => (WriteOutcome::Happened, *revision),
        Outcome::DidNot => (WriteOutcome::DidNot, None),
        Outcome::Unknown => (WriteOutcome::Unknown, None),
    };
    let namespace = match &write.change {
        Change::Namespace { name, .. } | Change::NamespaceDeleted { name } => plan.service_of(name).is_some(),
        _ => false,
    };
    Unanswered {
        time: write.completed.to_string(),
        user: write.user.clone(),
        object: write.object.clone(),
        came,
        revision,
        matters: came == WriteOutcome::Unknown && namespace,
        line: write.line,
    }
}

/// Returns the writes that took effect with the resulting objects: observed, or computed from the request and the object before.
pub(crate) fn left_behind(outcomes: &[(UnansweredWrite, Outcome)]) -> Vec<Value> {
    let mut made: BTreeMap<(&Object, u64), Value> = BTreeMap::new();
    let left = |(doubt, outcome): &'_ (UnansweredWrite, Outcome), made: &BTreeMap<(&Object, u64), Value>| {
        let before = doubt.precondition.and_then(|before| made.get(&(&doubt.key, before)));
        match (outcome, before) {
            (Outcome::Happened { body: Some(body), .. }, _) => body.clone(),
            (_, Some(before)) => apply(&doubt.event, before.clone(), &doubt.request),
            (_, None) => doubt.effective.clone(),
        }
    };
    let mut all = Vec::new();
    for one in outcomes {
        let body = left(one, &made);
        if let Outcome::Happened { revision: Some(revision), .. } = one.1 {
            made.insert((&one.0.key, revision), body.clone());
        }
        all.push(body);
    }
    all
}

/// Returns the object after a write.
fn apply(event: &Event, before: Value, request: &Value) -> Value {
    let mut body = if event.verb == "patch" { before } else { Value::Null };
    // The operator applies all of its fields at once, so that a field it omits is removed.
    let whole = event.object.resource == "servicerecoveries";
    match (body.as_object_mut(), request.as_object()) {
        (Some(fields), Some(request)) if whole => {
            let parts = request.iter().filter(|(part, _)| *part == "spec" || *part == "status");
            fields.extend(parts.map(|(part, value)| (part.clone(), value.clone())));
        }
        _ => merge(&mut body, request),
    }
    body
}

fn key(event: &Event, name: &str) -> Object {
    event.object.named(name)
}

/// Applies a JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Returns whether an object has everything that was requested. Fields that a patch removes must be absent.
fn contains(object: &Value, asked: &Value) -> bool {
    match (object, asked) {
        (Value::Object(object), Value::Object(asked)) => asked.iter().all(|(name, value)| {
            let precondition = matches!(name.as_str(), "resourceVersion" | "uid" | "managedFields");
            match object.get(name) {
                _ if precondition => true,
                Some(found) => contains(found, value),
                None => is_nothing(value),
            }
        }),
        (Value::Array(object), Value::Array(asked)) => {
            asked.iter().all(|value| object.iter().any(|found| contains(found, value)))
        }
        _ => object == asked,
    }
}

/// Returns whether a patch only removes fields.
fn is_nothing(asked: &Value) -> bool {
    asked.is_null() || asked.as_object().is_some_and(|asked| asked.values().all(is_nothing))
}
