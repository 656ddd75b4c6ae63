//! Writes without an answer: the client was killed, or the API server gave up waiting for its store (504, `context canceled`).
//! Such a write may have taken effect. What came of it is told by what is seen of the object later:
//!
//! - **It happened**, if the object is seen later at a revision that no answered write made, and what is seen fits what was asked.
//!   It is seen by a read that was logged with its answer, or by the `resourceVersion` that a later write named and that the
//!   API server took for the current one.
//! - **It did not**, if the next write to the object was made on the very revision that this one would have replaced.
//! - **Nobody knows** otherwise. It is told, and where it would have loosened something, the run is not clean.
//!
//! A revision that is seen, and that neither an answered write nor one of these can have made, says that writes are missing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::event::{Bodies, Event, Object, revision};
use crate::plan::Plan;
use crate::report::{Came, Unanswered};
use crate::what::{What, Write};

/// What came of a write without an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It took effect; the revision it made, and the object if it was seen at it. A deletion makes none.
    Happened { revision: Option<u64>, body: Option<Value> },
    /// It did not.
    DidNot,
    /// Nothing in the log tells.
    Unknown,
}

/// A write without an answer.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub event: Event,
    pub write: Write,
    /// What the object would be, as far as was known by then.
    effective: Value,
    key: Object,
    /// The only revision that it could replace.
    precondition: Option<u64>,
    /// The newest revision of the object that had been answered by then.
    base: u64,
    request: Value,
}

/// A write with an answer.
#[derive(Debug)]
struct Made {
    received: Timestamp,
    precondition: Option<u64>,
    created: bool,
}

/// An object, seen at a revision.
#[derive(Debug)]
struct Sighting {
    line: usize,
    completed: Timestamp,
    body: Option<Value>,
}

impl Sighting {
    /// By its revision alone.
    fn of(line: usize, completed: Timestamp) -> Self {
        Self { line, completed, body: None }
    }
}

/// A revision that was seen, and that no write in the log can have made.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub object: String,
    pub revision: u64,
    /// Where it was seen.
    pub line: usize,
}

/// The revisions of one object.
#[derive(Debug, Default)]
struct Chain {
    made: BTreeMap<u64, Made>,
    seen: BTreeMap<u64, Sighting>,
    /// When it was seen not to be there.
    absent: Vec<Timestamp>,
    /// The newest answer, to know what a patch without an answer would have made.
    last: Value,
    newest: u64,
}

/// The revisions of all objects that matter.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    objects: BTreeMap<Object, Chain>,
    doubts: Vec<Doubt>,
}

impl Chains {
    /// A write that was answered with success.
    pub(crate) fn made(&mut self, event: &Event, name: &str, created: bool, bodies: &Bodies) {
        // Pods come and go by the thousand, and no rule asks what becomes of one.
        let Some(now) = revision(&bodies.response_object).filter(|_| event.object.resource != "pods") else {
            return;
        };
        let chain = self.objects.entry(key(event, name)).or_default();
        let precondition = revision(&bodies.request_object);
        // Written over itself, it is as it was: no revision was made.
        if precondition != Some(now) {
            let made = Made { received: event.received, precondition, created };
            chain.made.entry(now).or_insert(made);
        }
        if let Some(before) = precondition {
            chain.seen.entry(before).or_insert(Sighting::of(event.line, event.completed));
        }
        if now >= chain.newest && event.object.subresource != "scale" {
            chain.newest = now;
            chain.last = bodies.response_object.clone();
        }
    }

    /// A read with its answer. `None`: it was not there.
    pub(crate) fn sighted(&mut self, event: &Event, body: Option<&Value>) {
        let chain = self.objects.entry(key(event, &event.object.name)).or_default();
        let Some((body, now)) = body.and_then(|body| Some((body, revision(body)?))) else {
            chain.absent.push(event.completed);
            return;
        };
        if !chain.made.contains_key(&now) && chain.seen.get(&now).is_none_or(|seen| seen.body.is_none()) {
            let body = Some(body.clone());
            chain.seen.insert(now, Sighting { line: event.line, completed: event.completed, body });
        }
    }

    /// What the object would be if a write without an answer took effect.
    pub(crate) fn effective(&self, event: &Event, name: &str, request: &Value) -> Value {
        let last = self.objects.get(&key(event, name)).map(|chain| chain.last.clone());
        apply(event, last.unwrap_or_default(), request)
    }

    /// A write without an answer.
    pub(crate) fn doubt(&mut self, event: &Event, name: &str, write: Write, bodies: (Value, Value)) {
        let key = key(event, name);
        let base = self.objects.get(&key).map_or(0, |chain| chain.newest);
        let (request, effective) = bodies;
        let precondition = revision(&request).filter(|_| !event.deletes());
        let event = event.clone();
        self.doubts.push(Doubt { event, write, effective, key, precondition, base, request });
    }

    /// What came of each write without an answer, the first first; and a revision that nobody can have made, if there is one.
    pub(crate) fn resolve(&mut self) -> (Vec<(Doubt, Outcome)>, Option<Orphan>) {
        let mut outcomes = Vec::new();
        // The last first: that one took effect shows what it was made on, which shows what came of the one before it.
        let mut doubts = std::mem::take(&mut self.doubts);
        doubts.sort_by_key(|doubt| std::cmp::Reverse(doubt.write.line));
        for doubt in doubts {
            let chain = self.objects.entry(doubt.key.clone()).or_default();
            let outcome = chain.outcome(&doubt);
            if let Outcome::Happened { revision: Some(revision), .. } = outcome {
                let Doubt { write, precondition, .. } = &doubt;
                let (received, created) = (write.received, write.created);
                chain.made.insert(revision, Made { received, precondition: *precondition, created });
                if let Some(before) = precondition {
                    chain.seen.entry(*before).or_insert(Sighting::of(write.line, write.completed));
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
    fn outcome(&self, doubt: &Doubt) -> Outcome {
        let write = &doubt.write;
        let later = || self.made.iter().filter(|(_, made)| made.received >= write.completed);
        if doubt.event.deletes() {
            // Whatever is there must be made before anybody can write to it.
            let gone = self.absent.iter().any(|at| *at >= write.received);
            return match later().next() {
                _ if gone => Outcome::Happened { revision: None, body: None },
                Some((_, next)) if next.created => Outcome::Happened { revision: None, body: None },
                Some(_) => Outcome::DidNot,
                None => Outcome::Unknown,
            };
        }
        let fits = |seen: &Sighting| seen.body.as_ref().is_none_or(|body| contains(body, &doubt.request));
        let orphan = match doubt.precondition {
            // It could only have come next.
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
            // Something else came next.
            let next = self.made.range(precondition + 1..).next();
            next.is_some_and(|(_, next)| next.precondition == Some(precondition))
        } else {
            self.unbroken(doubt)
        };
        if did_not { Outcome::DidNot } else { Outcome::Unknown }
    }

    /// From what it was before to a write that came after the doubtful one, each write was made on the one before it.
    fn unbroken(&self, doubt: &Doubt) -> bool {
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

/// For the report. What nobody knows matters where it would have changed a namespace of the plan.
pub(crate) fn told(plan: &Plan, write: &Write, outcome: &Outcome) -> Unanswered {
    let (came, revision) = match outcome {
        Outcome::Happened { revision, .. } => (Came::Happened, *revision),
        Outcome::DidNot => (Came::DidNot, None),
        Outcome::Unknown => (Came::Unknown, None),
    };
    let namespace = match &write.what {
        What::Namespace { name, .. } | What::NamespaceDeleted { name } => plan.service_of(name).is_some(),
        _ => false,
    };
    Unanswered {
        time: write.completed.to_string(),
        user: write.user.clone(),
        object: write.object.clone(),
        came,
        revision,
        matters: came == Came::Unknown && namespace,
        line: write.line,
    }
}

/// What took effect, as the objects that it left behind: seen, or as asked for, on what the one before it left behind.
pub(crate) fn left_behind(outcomes: &[(Doubt, Outcome)]) -> Vec<Value> {
    let mut made: BTreeMap<(&Object, u64), Value> = BTreeMap::new();
    let left = |(doubt, outcome): &'_ (Doubt, Outcome), made: &BTreeMap<(&Object, u64), Value>| {
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

/// What a write makes of an object.
fn apply(event: &Event, before: Value, request: &Value) -> Value {
    let mut body = if event.verb == "patch" { before } else { Value::Null };
    // Of ours, one writer applies all of it: what it does not name any more is gone.
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

/// A JSON merge patch (RFC 7396).
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

/// Does an object hold all that was asked for? What a patch takes away must not be there.
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

/// Does a patch only take away?
fn is_nothing(asked: &Value) -> bool {
    asked.is_null() || asked.as_object().is_some_and(|asked| asked.values().all(is_nothing))
}
