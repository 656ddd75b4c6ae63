//! The three rules, asked of each write in the order in which they took effect.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::log::{Level, Log, ServiceState, What, Write};
use crate::plan::Plan;
use crate::report::{Rule, Slip, Violation};
use crate::{CannotJudge, Options};

/// Whose pods a clean room may hold, all in `kube-system`.
const POD_MAKERS: [&str; 5] = [
    "replicaset-controller",
    "statefulset-controller",
    "daemon-set-controller",
    "job-controller",
    "replication-controller",
];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Loosenings of the plan's namespaces.
    pub loosenings: usize,
    /// Pods created in namespaces under isolation, the clean room included.
    pub pods: usize,
    pub slipped: Vec<Slip>,
    pub violations: Vec<Violation>,
}

/// A namespace, as last written.
#[derive(Clone, Copy)]
struct Namespace {
    level: Level,
    /// When it was last closed: put from open or clean room to sealed or contained.
    closed: Option<Timestamp>,
    deleted: bool,
}

struct Check<'a> {
    plan: &'a Plan,
    options: &'a Options,
    namespaces: BTreeMap<&'a str, Namespace>,
    services: BTreeMap<&'a str, ServiceState>,
    ever_isolated: bool,
    findings: Findings,
}

/// Asks the rules of a whole log.
pub(crate) fn check(plan: &Plan, log: &Log, options: &Options) -> Result<Findings, CannotJudge> {
    let seen = log.namespaces();
    let mut planned = plan.services.values().flat_map(|service| &service.namespaces).peekable();
    if planned.peek().is_some() && !planned.any(|namespace| seen.contains(namespace.as_str())) {
        return Err(CannotJudge::Log(format!("it holds none of the namespaces of plan {}", plan.name)));
    }
    let mut check = Check {
        plan,
        options,
        namespaces: BTreeMap::new(),
        services: BTreeMap::new(),
        ever_isolated: false,
        findings: Findings::default(),
    };
    for write in &log.writes {
        match &write.what {
            What::Namespace { name, level } => check.namespace(write, name, *level)?,
            What::NamespaceDeleted { name } => check.namespace_deleted(write, name),
            What::Pod { namespace } => check.pod(write, namespace),
            What::Service { name, state } => {
                check.services.insert(name, *state);
            }
            What::Claim { .. } | What::Retry { .. } => {}
        }
    }
    if !check.ever_isolated {
        return Err(CannotJudge::Log(format!("it shows no namespace of plan {} isolated, ever", plan.name)));
    }
    Ok(check.findings)
}

impl<'a> Check<'a> {
    fn namespace(&mut self, write: &Write, name: &'a str, level: Level) -> Result<(), CannotJudge> {
        let planned = self.plan.service_of(name).is_some();
        let old = match self.namespaces.get(name) {
            // Once its deletion has begun, its labels say nothing more, until it is made anew.
            Some(old) if old.deleted && !write.created => return Ok(()),
            Some(old) if !old.deleted => *old,
            known => {
                if known.is_none() && planned && !write.created {
                    let reason =
                        format!("it begins after namespace {name} was made: its beginning is missing");
                    return Err(CannotJudge::Log(reason));
                }
                Namespace { level: Level::Open, closed: None, deleted: false }
            }
        };
        self.ever_isolated |= planned && level != Level::Open;
        if loosens(old.level, level) {
            self.loosened(write, name, old.level, level.as_str());
        }
        let closes = !is_closed(old.level) && is_closed(level);
        let closed = if closes { Some(write.completed) } else { old.closed };
        self.namespaces.insert(name, Namespace { level, closed, deleted: false });
        Ok(())
    }

    fn namespace_deleted(&mut self, write: &Write, name: &'a str) {
        let gone = Namespace { level: Level::Open, closed: None, deleted: true };
        if let Some(old) = self.namespaces.insert(name, gone)
            && old.level != Level::Open
        {
            self.loosened(write, name, old.level, "deleted");
        }
    }

    fn loosened(&mut self, write: &Write, name: &str, from: Level, to: &str) {
        let change = format!("{name} went from {} to {to}", from.as_str());
        if write.user != self.options.operator && write.user.starts_with("system:") {
            let message = format!("{change} by {}, which is neither the operator nor a person", write.user);
            self.violation(Rule::Opener, write, message);
        }
        let Some((service, spec)) = self.plan.service_of(name) else { return };
        self.findings.loosenings += 1;
        for dependency in self.plan.dependencies(spec) {
            let state = self.services.get(dependency).copied().unwrap_or_default();
            if !(state.recovered && state.healthy) {
                let message = format!(
                    "{change} for {service} while its dependency {dependency} was not ready (Recovered {}, Healthy {})",
                    state.recovered, state.healthy
                );
                self.violation(Rule::Order, write, message);
            }
        }
    }

    fn pod(&mut self, write: &Write, namespace: &'a str) {
        let Some(found) = self.namespaces.get(namespace).copied().filter(|n| n.level != Level::Open) else {
            return;
        };
        self.findings.pods += 1;
        let lag_ms = i128::try_from(self.options.fence_lag.as_millis()).unwrap_or(i128::MAX);
        let by = &write.user;
        if !is_closed(found.level) {
            let built_in = by.strip_prefix("system:serviceaccount:kube-system:");
            if !built_in.is_some_and(|name| POD_MAKERS.contains(&name)) {
                let message =
                    format!("a pod in the clean room {namespace} by {by}, no built-in workload controller");
                self.violation(Rule::Pods, write, message);
            }
        } else if let Some(after_ms) = found.closed.map(|closed| ms_between(closed, write.received))
            && i128::from(after_ms) <= lag_ms
        {
            let object = write.object.clone();
            self.findings.slipped.push(Slip {
                time: write.received.to_string(),
                user: by.clone(),
                object,
                after_ms,
            });
        } else {
            let message = format!("a pod in {namespace}, which was {}, by {by}", found.level.as_str());
            self.violation(Rule::Pods, write, message);
        }
    }

    fn violation(&mut self, rule: Rule, write: &Write, message: String) {
        self.findings.violations.push(Violation {
            time: write.completed.to_string(),
            user: write.user.clone(),
            object: write.object.clone(),
            rule,
            message,
            line: write.line,
        });
    }
}

fn ms_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond() - from.as_millisecond()
}

fn is_closed(level: Level) -> bool {
    matches!(level, Level::Sealed | Level::Contained)
}

fn loosens(from: Level, to: Level) -> bool {
    (is_closed(from) && to == Level::CleanRoom) || (from != Level::Open && to == Level::Open)
}
