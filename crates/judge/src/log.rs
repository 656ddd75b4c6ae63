//! The audit log: writes in the order in which they took effect, and the reads that decisions rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::change::{Change, Record, Write, change_of, is_read_back, matters};
use crate::clocks::Clocks;
use crate::event::{Bodies, Event, is_excerpt, revision, text_at};
use crate::plan::Plan;
use crate::unanswered::{Chains, Orphan, Outcome, UnansweredWrite, left_behind};
use crate::{CannotJudge, Options};

/// Parsed log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Number of lines.
    pub events: usize,
    /// Relevant writes that took effect, in that order.
    pub writes: Vec<Write>,
    /// Writes without an answer, and their outcome.
    pub unanswered: Vec<(Write, Outcome)>,
    /// The operator's reads of each service's ServiceRecovery, with the answers.
    pub live_reads: BTreeMap<String, Vec<LiveRead>>,
    /// When the plan's account listed the pods of a namespace, as each gate that reads namespaces does.
    pub looks: BTreeMap<String, Vec<Span>>,
    /// When the operator started to list or watch the pods of the cluster. Continuous gates are evaluated from that cache.
    pub watches: Vec<Span>,
    /// When the plan's account was reviewed for access to a namespace.
    pub reviews: BTreeMap<String, Vec<Span>>,
    /// Requests of the operator in the quiet window.
    pub requests: Vec<Event>,
    /// Duration of its lease, as renewed in that window.
    pub lease: Option<Duration>,
    /// Clock skew of the leaders.
    pub clocks: Clocks,
}

/// Time from request to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub received: Timestamp,
    pub completed: Timestamp,
}

/// A read of a ServiceRecovery from the API server, not from a cache.
#[derive(Debug)]
pub(crate) struct LiveRead {
    pub span: Span,
    /// The answer. `None`: it did not exist.
    pub record: Option<Box<Record>>,
}

impl Log {
    /// Reads a whole log. A line that cannot be parsed is an error, as a gap might hide a violation.
    pub(crate) fn read(mut input: impl BufRead, plan: &Plan, options: &Options) -> Result<Self, CannotJudge> {
        let mut reader =
            Reader { plan, options, log: Self::default(), writes: Vec::new(), chains: Chains::default() };
        let mut buffer = String::new();
        loop {
            buffer.clear();
            let line = reader.log.events + 1;
            let wrong = |reason: String| CannotJudge::Line { line, reason };
            if input.read_line(&mut buffer).map_err(|error| wrong(error.to_string()))? == 0 {
                break;
            }
            if !buffer.ends_with('\n') {
                return Err(wrong("it does not end: the log was cut short".to_owned()));
            }
            reader.log.events = line;
            if let Some(event) = Event::parse(line, &buffer).map_err(wrong)? {
                reader.take(event, &buffer).map_err(wrong)?;
            }
        }
        if reader.log.events == 0 {
            return Err(CannotJudge::Log("it is empty".to_owned()));
        }
        reader.finish()
    }

    /// Returns the namespaces that occur in the log.
    pub(crate) fn namespaces(&self) -> BTreeSet<&str> {
        self.writes
            .iter()
            .filter_map(|write| match &write.change {
                Change::Namespace { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }
}

fn span(event: &Event) -> Span {
    Span { received: event.received, completed: event.completed }
}

struct Reader<'a> {
    plan: &'a Plan,
    options: &'a Options,
    log: Log,
    writes: Vec<(Option<u64>, Write)>,
    chains: Chains,
}

impl Reader<'_> {
    fn take(&mut self, event: Event, text: &str) -> Result<(), String> {
        if event.is_write() && matters(&event, self.plan) {
            if event.succeeded() {
                self.write(&event, Bodies::parse(text)?)?;
            } else if event.unanswered() {
                self.doubt(&event, Bodies::parse(text)?);
            }
        } else if is_read_back(&event, self.plan) {
            self.read_back(&event, text)?;
        } else if event.verb == "list"
            && event.object.resource == "pods"
            && self.plan.account.as_ref() == Some(&event.user)
            && event.succeeded()
        {
            self.log.looks.entry(event.object.namespace.clone()).or_default().push(span(&event));
        } else if self.is_watch_of_pods(&event) {
            self.log.watches.push(span(&event));
        } else if self.is_review(&event) {
            let review = Bodies::parse(text)?.request_object;
            let places = ["/spec/namespace", "/spec/resourceAttributes/namespace"];
            if let Some(namespace) = places.iter().find_map(|place| text_at(&review, place)) {
                self.log.reviews.entry(namespace.to_owned()).or_default().push(span(&event));
            }
        }
        if event.account != self.options.operator {
            return Ok(());
        }
        let in_window = self.options.quiet.as_ref().is_some_and(|window| window.holds(event.received));
        if event.renews_lease() {
            let lease = Bodies::parse(text)?.response_object;
            self.log.clocks.renewed(&event, &lease);
            let seconds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64);
            // A lease that is being taken over has no duration.
            self.log.lease = seconds.filter(|_| in_window).map(Duration::from_secs).or(self.log.lease);
        }
        if in_window {
            self.log.requests.push(event);
        }
        Ok(())
    }

    fn is_watch_of_pods(&self, event: &Event) -> bool {
        ["list", "watch"].contains(&event.verb.as_str())
            && event.object.resource == "pods"
            && event.object.namespace.is_empty()
            && event.user == self.options.operator
            && event.succeeded()
    }

    fn is_review(&self, event: &Event) -> bool {
        event.object.group == "authorization.k8s.io"
            && event.object.resource.starts_with("selfsubject")
            && self.plan.account.as_ref() == Some(&event.user)
            && event.succeeded()
    }

    fn write(&mut self, event: &Event, bodies: Bodies) -> Result<(), String> {
        if event.deletes() && bodies.dry_run() {
            return Ok(());
        }
        let created = !event.deletes() && (event.verb == "create" || event.code == 201);
        let name = name(event, &bodies).to_owned();
        let bodies = self.whole(event, &name, bodies);
        let body = &bodies.response_object;
        let change = change_of(event, &name, created, body, self.plan)?;
        let revision = if event.deletes() { None } else { revision(body) };
        if change.is_some() && !event.deletes() && revision.is_none() {
            return Err(event.no_body());
        }
        self.chains.made(event, &name, created, &bodies);
        if let Some(change) = change {
            self.writes.push((revision, as_write(event, &name, created, change)));
        }
        Ok(())
    }

    /// Completes an answer with metadata only: the API server reported success, so the rest is as requested.
    fn whole(&self, event: &Event, name: &str, mut bodies: Bodies) -> Bodies {
        let partial = text_at(&bodies.response_object, "/kind") == Some("PartialObjectMetadata");
        if partial && !event.deletes() {
            let mut whole = self.chains.effective(event, name, &bodies.request_object);
            if let Some(fields) = whole.as_object_mut() {
                fields.insert("metadata".to_owned(), bodies.response_object["metadata"].take());
                bodies.response_object = whole;
            }
        }
        bodies
    }

    /// Records a write whose answer shows neither success nor denial.
    fn doubt(&mut self, event: &Event, bodies: Bodies) {
        if event.deletes() && bodies.dry_run() {
            return;
        }
        let name = name(event, &bodies).to_owned();
        let created = event.verb == "create";
        let effective = self.chains.effective(event, &name, &bodies.request_object);
        let Ok(Some(change)) = change_of(event, &name, created, &effective, self.plan) else { return };
        let write = as_write(event, &name, created, change);
        self.chains.doubt(event, &name, write, (bodies.request_object, effective));
    }

    fn read_back(&mut self, event: &Event, text: &str) -> Result<(), String> {
        let body = match event.code {
            404 => None,
            200 => Some(Bodies::parse(text)?.response_object),
            _ => return Ok(()),
        };
        let there = body.as_ref().filter(|body| body.is_object());
        if body.is_some() && there.is_none() {
            return Err(event.no_body());
        }
        // It proves nothing and removes nothing: a live read must return the whole object.
        if there.is_some_and(is_excerpt) {
            return Ok(());
        }
        let change = match there {
            Some(body) => change_of(event, &event.object.name, false, body, self.plan)?,
            None => None,
        };
        let prefix = format!("{}.", self.plan.name);
        let service =
            event.object.name.strip_prefix(&prefix).filter(|_| event.object.resource == "servicerecoveries");
        if let Some(service) = service.filter(|_| event.user == self.options.operator) {
            let span = Span { received: event.received, completed: event.completed };
            let record = match &change {
                Some(Change::Service { record, .. }) => record.clone(),
                _ => None,
            };
            self.log.live_reads.entry(service.to_owned()).or_default().push(LiveRead { span, record });
        }
        self.chains.sighted(event, there);
        Ok(())
    }

    fn finish(mut self) -> Result<Log, CannotJudge> {
        let (outcomes, missing) = self.chains.resolve();
        if let Some(Orphan { object, revision, line }) = missing {
            let reason = format!(
                "line {line} shows {object} at revision {revision}, which no write in it made: writes are missing"
            );
            return Err(CannotJudge::Log(reason));
        }
        let bodies = left_behind(&outcomes);
        for ((UnansweredWrite { event, write, .. }, outcome), body) in outcomes.into_iter().zip(bodies) {
            if let Outcome::Happened { revision, .. } = outcome {
                let wrong = |reason| CannotJudge::Line { line: write.line, reason };
                let change =
                    change_of(&event, &write.name, write.created, &body, self.plan).map_err(wrong)?;
                let change = change.unwrap_or_else(|| write.change.clone());
                self.writes.push((revision, Write { change, ..write.clone() }));
            }
            self.log.unanswered.push((write, outcome));
        }
        self.log.writes = in_order(self.writes);
        Ok(self.log)
    }
}

fn name<'a>(event: &'a Event, bodies: &'a Bodies) -> &'a str {
    let named = |body| text_at(body, "/metadata/name");
    named(&bodies.response_object).or_else(|| named(&bodies.request_object)).unwrap_or(&event.object.name)
}

fn as_write(event: &Event, name: &str, created: bool, change: Change) -> Write {
    Write {
        line: event.line,
        completed: event.completed,
        received: event.received,
        user: event.user.clone(),
        name: name.to_owned(),
        object: event.object.display(name),
        created,
        change,
    }
}

/// Sorts writes by when they took effect. A response has the store's revision as its resourceVersion; a deletion has none, and follows
/// the highest revision answered before it.
fn in_order(mut writes: Vec<(Option<u64>, Write)>) -> Vec<Write> {
    writes.sort_by_key(|(_, write)| (write.completed, write.line));
    let mut highest = 0;
    let mut keyed: Vec<_> = writes
        .into_iter()
        .map(|(revision, write)| {
            highest = highest.max(revision.unwrap_or(0));
            ((revision.unwrap_or(highest), revision.is_none()), write)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, write)| write).collect()
}
