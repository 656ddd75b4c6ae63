//! The rules, asked of each write in the order in which they took effect. What is known before the write is in [`World`].
//!
//! A new rule is a file here with an `impl Rule`, its line in [`all`], and its name in [`crate::report::Rule`]. It says in its
//! own text what a log can prove of its invariant, and what not. Its tests are in `tests/judge/NAME.rs`: for each thing that it
//! forbids, a run that breaks just that.

use std::time::Duration;

use jiff::Timestamp;

use crate::gates::Gate;
use crate::log::{LiveRead, Log};
use crate::plan::{Phase, Plan, Service};
use crate::report::{Findings, Rule as Name, Violation};
use crate::what::{Level, Record, What, Write};
use crate::world::{Moved, World};
use crate::{CannotJudge, Options};

mod gates;
mod once;
mod opener;
mod order;
mod pods;
pub(crate) mod quiet;

/// What an account may do is asked again after this.
const REVIEWED: Duration = Duration::from_secs(60);

/// A rule.
trait Rule {
    /// Looks at one write.
    fn look(&mut self, now: &Now<'_>, findings: &mut Findings);
}

/// All rules that look at writes.
fn all() -> Vec<Box<dyn Rule>> {
    vec![
        Box::new(opener::Opener),
        Box::new(order::Order),
        Box::new(gates::Gates),
        Box::new(pods::Pods),
        Box::new(once::Once::default()),
    ]
}

/// A write, and what is known at that moment.
struct Now<'a> {
    plan: &'a Plan,
    log: &'a Log,
    options: &'a Options,
    /// Before the write.
    world: &'a World,
    write: &'a Write,
    /// What it does to a namespace's label.
    moved: Option<Moved<'a>>,
}

/// The operator asks for a looser isolation of a service than it had asked for before.
struct Ask<'a> {
    name: &'a str,
    service: &'a Service,
    record: &'a Record,
    /// Where it leads, if that changes; else only more is let into the clean room.
    level: Option<Level>,
}

/// Asks the rules of a whole log.
pub(crate) fn check(plan: &Plan, log: &Log, options: &Options) -> Result<Findings, CannotJudge> {
    let seen = log.namespaces();
    let mut planned = plan.services.values().flat_map(|service| &service.namespaces).peekable();
    if planned.peek().is_some() && !planned.any(|namespace| seen.contains(namespace.as_str())) {
        return Err(CannotJudge::Log(format!("it holds none of the namespaces of plan {}", plan.name)));
    }
    let (mut world, mut findings, mut rules) = (World::default(), Findings::default(), all());
    for write in &log.writes {
        let moved = world.moved(write, plan)?;
        let now = Now { plan, log, options, world: &world, write, moved };
        for rule in &mut rules {
            rule.look(&now, &mut findings);
        }
        world.take(write, moved, plan, log.clocks.ahead(write.received));
    }
    if !world.ever_isolated {
        return Err(CannotJudge::Log(format!("it shows no namespace of plan {} isolated, ever", plan.name)));
    }
    quiet::check(plan, log, options, &mut findings)?;
    Ok(findings)
}

impl<'a> Now<'a> {
    fn by_operator(&self) -> bool {
        self.write.user == self.options.operator
    }

    /// The write is the operator's, and asks for a looser isolation.
    fn ask(&self) -> Option<Ask<'a>> {
        let What::Service { name, record: Some(record) } = &self.write.what else { return None };
        if !self.by_operator() {
            return None;
        }
        let before = self.world.record(name);
        // What another attempt was given counts for nothing.
        let same = before.filter(|before| before.asking == record.asking);
        let level = record.asked.filter(|asked| !asked.is_closed());
        let level = level.filter(|asked| same.and_then(|before| before.asked).is_none_or(|was| was < *asked));
        let more = record.reach.iter().any(|one| !before.is_some_and(|before| before.reach.contains(one)));
        let service = self.plan.services.get(name)?;
        (level.is_some() || more).then_some(Ask { name, service, record, level })
    }

    /// The write is one of the plan's account, to anything in a service's namespace: a step, or what resumes a job.
    fn acts(&self) -> Option<(&'a str, &'a Service)> {
        let (What::Workload { namespace, .. } | What::Restored { namespace, .. }) = &self.write.what else {
            return None;
        };
        let mine = self.plan.account.as_ref() == Some(&self.write.user);
        self.plan.service_of(namespace).filter(|_| mine)
    }

    /// The last read of a dependency's ServiceRecovery for what is written about a service: begun after the service's own
    /// last write, and answered before this one.
    fn live_read(&self, service: &str, dependency: &str) -> Option<&'a LiveRead> {
        let since = self.world.records.get(service).map_or(Timestamp::MIN, |known| known.received);
        let mut reads = self.log.live_reads.get(dependency).into_iter().flatten();
        let between =
            |read: &&LiveRead| read.span.received >= since && read.span.completed <= self.write.completed;
        reads.rfind(between)
    }

    /// Gates of a phase that look into a service's namespaces, and had not done so, when this was written, for longer than
    /// what they say may be relied on: the gate, and the namespace.
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

    /// Had the operator begun to watch the pods of the cluster within the gate's freshness, and asked as the plan's account what that
    /// may list in the namespace, within a minute of asking the gate?
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
