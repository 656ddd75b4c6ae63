//! Rules. Each checks every write in the order in which they took effect, against the [`World`] before the write.
//!
//! A new rule is a file here with an `impl Rule`, its line in [`all`], and its name in [`crate::report::Rule`]. It says in its
//! own text what a log can prove of its invariant, and what not. Its tests are in `tests/judge/NAME.rs`: for each thing that it
//! forbids, a run that breaks just that.

use std::time::Duration;

use jiff::Timestamp;

use crate::change::{Change, Level, Record, Write};
use crate::gates::Gate;
use crate::log::{LiveRead, Log};
use crate::plan::{Phase, Plan, Service};
use crate::report::{Findings, Rule as Name, Violation};
use crate::world::{LevelChange, World};
use crate::{CannotJudge, Options};

mod gates;
mod once;
mod opener;
mod order;
mod pods;
pub(crate) mod quiet;

/// How long a review of the account's access may be cached.
const REVIEWED: Duration = Duration::from_secs(60);

/// A rule.
trait Rule {
    /// Checks one write.
    fn check(&mut self, now: &WriteContext<'_>, findings: &mut Findings);
}

/// Returns all rules that check writes.
fn all() -> Vec<Box<dyn Rule>> {
    vec![
        Box::new(opener::Opener),
        Box::new(order::Order),
        Box::new(gates::Gates),
        Box::new(pods::Pods),
        Box::new(once::Once::default()),
    ]
}

/// A write, with the state before it.
struct WriteContext<'a> {
    plan: &'a Plan,
    log: &'a Log,
    options: &'a Options,
    /// State before the write.
    world: &'a World,
    write: &'a Write,
    /// Change of a namespace's label, if any.
    moved: Option<LevelChange<'a>>,
}

/// A request of the operator for a looser isolation of a service than before.
struct LooseningRequest<'a> {
    name: &'a str,
    service: &'a Service,
    record: &'a Record,
    /// Requested level, if it changes. Otherwise the clean room gets more access.
    level: Option<Level>,
}

/// Checks a whole log.
pub(crate) fn check(plan: &Plan, log: &Log, options: &Options) -> Result<Findings, CannotJudge> {
    let seen = log.namespaces();
    let mut planned = plan.services.values().flat_map(|service| &service.namespaces).peekable();
    if planned.peek().is_some() && !planned.any(|namespace| seen.contains(namespace.as_str())) {
        return Err(CannotJudge::Log(format!("it holds none of the namespaces of plan {}", plan.name)));
    }
    let (mut world, mut findings, mut rules) = (World::default(), Findings::default(), all());
    for write in &log.writes {
        let moved = world.moved(write, plan)?;
        let now = WriteContext { plan, log, options, world: &world, write, moved };
        for rule in &mut rules {
            rule.check(&now, &mut findings);
        }
        world.take(write, moved, plan, log.clocks.ahead(write.received));
    }
    if !world.ever_isolated {
        return Err(CannotJudge::Log(format!("it shows no namespace of plan {} isolated, ever", plan.name)));
    }
    quiet::check(plan, log, options, &mut findings)?;
    Ok(findings)
}

impl<'a> WriteContext<'a> {
    fn by_operator(&self) -> bool {
        self.write.user == self.options.operator
    }

    /// Returns the request, if the write is the operator's and requests a looser isolation.
    fn ask(&self) -> Option<LooseningRequest<'a>> {
        let Change::Service { name, record: Some(record) } = &self.write.change else { return None };
        if !self.by_operator() {
            return None;
        }
        let before = self.world.record(name);
        // Grants of another attempt do not count.
        let same = before.filter(|before| before.asking == record.asking);
        let level = record.asked.filter(|asked| !asked.is_closed());
        let level = level.filter(|asked| same.and_then(|before| before.asked).is_none_or(|was| was < *asked));
        let more = record.reach.iter().any(|one| !before.is_some_and(|before| before.reach.contains(one)));
        let service = self.plan.services.get(name)?;
        (level.is_some() || more).then_some(LooseningRequest { name, service, record, level })
    }

    /// Returns the service, if the write is one of the plan's account in its namespace: by a step, or by resuming a job.
    fn acts(&self) -> Option<(&'a str, &'a Service)> {
        let (Change::Workload { namespace, .. } | Change::Restored { namespace, .. }) = &self.write.change
        else {
            return None;
        };
        let mine = self.plan.account.as_ref() == Some(&self.write.user);
        self.plan.service_of(namespace).filter(|_| mine)
    }

    /// Returns the read of a dependency's ServiceRecovery that this write about a service may rest on: one between the previous write about
    /// the service and this one that says that it is ready, or the last one. A log does not tell for which service a read was, and those
    /// for others may have other answers.
    fn live_read(&self, service: &str, dependency: &str) -> Option<&'a LiveRead> {
        let since = self.world.records.get(service).map_or(Timestamp::MIN, |known| known.received);
        let mut reads = self.log.live_reads.get(dependency).into_iter().flatten();
        let between =
            |read: &&LiveRead| read.span.received >= since && read.span.completed <= self.write.completed;
        let says_ready = |read: &LiveRead| read.record.as_deref().is_some_and(Record::ready);
        reads.clone().rfind(|read| between(read) && says_ready(read)).or_else(|| reads.rfind(between))
    }

    /// Returns a gate of the phase that reads the service's namespaces and had not listed one of them within its freshness when this was
    /// written, with that namespace.
    fn stale(&self, service: &'a Service, phase: Phase) -> Option<(&'a str, &'a str)> {
        self.plan.account.as_ref()?;
        let at = self.write.received;
        let looks = service.gates.iter().filter(|gate| gate.phase == phase && gate.looks);
        let mut pairs =
            looks.flat_map(|gate| service.namespaces.iter().map(move |namespace| (gate, namespace)));
        let stale = pairs.find(|(gate, namespace)| {
            let since = at.checked_sub(gate.freshness()).unwrap_or(Timestamp::MIN);
            let mut looked = self.log.looks.get(namespace.as_str()).into_iter().flatten();
            let looked = looked.any(|look| look.received >= since && look.completed <= self.write.completed);
            !looked && (phase != Phase::Continuous || !self.is_watched(gate, namespace))
        });
        stale.map(|(gate, namespace)| (gate.name.as_str(), namespace.as_str()))
    }

    /// Returns whether the operator had started to watch pods within the gate's freshness, and had reviewed the plan's account's access
    /// to the namespace within a minute of evaluating the gate.
    fn is_watched(&self, gate: &Gate, namespace: &str) -> bool {
        let within = |time: Duration| self.write.received.checked_sub(time).unwrap_or(Timestamp::MIN);
        let (watched, reviewed) = (within(gate.freshness()), within(REVIEWED + gate.interval));
        let mut reviews = self.log.reviews.get(namespace).into_iter().flatten();
        // A watch is logged once it has ended.
        self.log.watches.iter().any(|w| w.received >= watched && w.received <= self.write.completed)
            && reviews.any(|r| r.received >= reviewed && r.completed <= self.write.completed)
    }

    fn broken(&self, rule: Name, message: String) -> Violation {
        Violation {
            time: self.write.completed.to_string(),
            user: self.write.user.clone(),
            object: self.write.object.clone(),
            rule,
            message,
            line: self.write.line,
        }
    }
}
