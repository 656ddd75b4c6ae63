//! **I2, gates**: clean room only after every `beforeRestore` gate, Open only after every `beforeRelease` gate, passed in this
//! attempt, bound and fresh.
//!
//! What the log proves, when the operator asks for the clean room or for Open, and when it writes a service as Recovered:
//! - every gate of the phase that the plan has is written in the service's ServiceRecovery with the verdict Pass, and there
//!   is at least one, or the plan says `ungated`;
//! - each passes since a moment within this attempt: not before `claimedAt`, and not as was written before that. Where the two times are
//!   told by clocks that differ, as the leaders' Leases tell, only the latter is asked;
//! - each that looks into namespaces had listed pods there, as the plan's account, within its freshness.
//!
//! That the label follows what was asked, in the same attempt, is asked by the rule *opener*.
//!
//! What it does not: that a verdict is right (what a gate read is not in the log, only that it read), what it was bound to
//! beside the attempt (UIDs, the digest, the Incident), and when an `http` gate was asked. The plan is the file's: of a plan
//! that was amended on the way, the gates of that version are asked for throughout.

use super::{Rule, WriteContext};
use crate::change::{Change, Level, Record};
use crate::plan::{Phase, Service};
use crate::report::{Findings, Rule as Name};

pub(super) struct Gates;

impl Rule for Gates {
    fn check(&mut self, now: &WriteContext<'_>, findings: &mut Findings) {
        if let Some(ask) = now.ask()
            && let Some(level) = ask.level
        {
            let phase = if level == Level::Open { Phase::BeforeRelease } else { Phase::BeforeRestore };
            let what = format!("{} asks for {}", ask.name, level.as_str());
            if ask.record.asking != ask.record.attempt {
                let (asking, attempt) = (ask.record.asking, ask.record.attempt);
                let message =
                    format!("{what} in attempt {asking}, and its gates passed in attempt {attempt}");
                findings.violations.push(now.broken(Name::Gates, message));
            }
            passed(now, (ask.name, ask.service), ask.record, phase, &what, findings);
            if let Some((gate, namespace)) = now.stale(ask.service, phase) {
                let message = format!("{what}, and its gate {gate} had not looked into {namespace} lately");
                findings.violations.push(now.broken(Name::Gates, message));
            }
        }
        if let Change::Service { name, record: Some(record) } = &now.write.change
            && now.by_operator()
            && record.recovered
            && !now.world.record(name).is_some_and(|before| before.recovered)
            && let Some(service) = now.plan.services.get(name)
        {
            for phase in [Phase::BeforeRestore, Phase::BeforeRelease] {
                passed(now, (name, service), record, phase, &format!("{name} is Recovered"), findings);
            }
        }
    }
}

/// Checks that every gate of a phase is recorded as passed in this attempt.
fn passed(
    now: &WriteContext<'_>,
    (name, service): (&str, &Service),
    record: &Record,
    phase: Phase,
    what: &str,
    findings: &mut Findings,
) {
    let mut broken = |problems: String| {
        let message = format!("{what} without its gates {}: {problems}", phase.as_str());
        findings.violations.push(now.broken(Name::Gates, message));
    };
    let ahead = now.log.clocks.ahead(now.write.received);
    let mut gates = service.gates.iter().filter(|gate| gate.phase == phase).peekable();
    if gates.peek().is_none() && !service.ungated {
        broken("it has none, and the plan does not say that it may".to_owned());
    }
    for gate in gates {
        let said = record.gates.iter().find(|said| said.phase == phase && said.name == gate.name);
        match said {
            None if gate.optional => {}
            None => broken(format!("nothing is written of {}", gate.name)),
            // That somebody accepted it, the rule *once* asks.
            Some(said) if !said.passed && record.accepted_gates.contains(&gate.name) => {}
            Some(said) if !said.passed => broken(format!("{} does not pass", gate.name)),
            Some(said) if now.world.passed_earlier(name, record, said, ahead) => {
                broken(format!("{} passed before this attempt began", gate.name));
            }
            Some(_) => {}
        }
    }
}
