//! **I5, once**: intent is written before an irreversible step; a crash anywhere repeats nothing and loses nothing.
//!
//! What the log proves of what the operator, and the plan's account, did:
//! - **intent**: a step writes, whatever it writes, only while one is written as Running: in a clean room while its service is
//!   Restoring, or in the open while it is Reconnecting; a CronJob or Job is resumed only once that is written as Resuming;
//! - **once**: within one attempt each workload is changed by each step, and each job resumed, at most once;
//! - **record**: what is stopped bears what it was like and by whose seal, in the same write; no record of a seal is ever
//!   written over with another under the same seal;
//! - **nothing lost**: service accounts that the operator deleted are there again before the clean room, network policies
//!   (its own aside) before Open;
//! - **claim**: a service leaves `Isolated` only with each of its Quarantines claimed for that attempt; a claim moves to
//!   another plan only when the first is gone;
//! - **attempt**: the next one begins by a Retry that somebody decided on just that matter, because the plan was made anew, or because
//!   the service was isolated again: by an Abort on just its standing orders, or by itself where the plan says so, at most once an hour;
//! - **exception**: a failed gate is let pass only by an AcceptException on just that question.
//!
//! What it does not: writes outside of the API server (evidence is kept in a store of its own), and whether a deletion that
//! nobody answered took effect, as long as nothing shows it, or whether what was taken away and made again without an answer is
//! back: nobody is accused by that.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, WriteContext};
use crate::change::{Change, Level, Quarantine, Record, Workload};
use crate::plan::Service;
use crate::report::{Findings, Rule as Name};
use crate::unanswered::Outcome;

/// Prefix of objects that the operator creates in a namespace and deletes again.
const OWN: &str = "resurgam-";
/// A service isolates itself at most once in this time, in seconds.
const CONTAIN_EVERY_S: i64 = 3600;

#[derive(Default)]
pub(super) struct Once {
    workloads: BTreeMap<String, Workload>,
    /// Workloads written by a step: the attempt, which steps were running, and the resulting generation.
    acted: BTreeMap<(String, u64, Vec<String>), u64>,
    /// Objects that the operator deleted and that do not exist again yet, by namespace.
    taken: BTreeMap<String, BTreeSet<String>>,
}

impl Rule for Once {
    fn check(&mut self, now: &WriteContext<'_>, findings: &mut Findings) {
        let mut problems = Vec::new();
        match &now.write.change {
            Change::Workload { key, workload, .. } => {
                if let Some((name, service)) = now.acts() {
                    findings.steps += 1;
                    self.step(now, name, service, key, workload.generation, &mut problems);
                }
                self.recorded(now, key, workload, &mut problems);
                self.workloads.insert(key.clone(), (**workload).clone());
            }
            Change::Restored { key, .. } => {
                if let Some((name, service)) = now.acts() {
                    findings.steps += 1;
                    self.step(now, name, service, key, None, &mut problems);
                }
            }
            Change::Carried { namespace, key, there } => {
                let taken = self.taken.entry(namespace.clone()).or_default();
                let own = key.rsplit('/').next().is_some_and(|name| name.starts_with(OWN));
                if *there {
                    taken.remove(key);
                } else if now.by_operator() && !own {
                    taken.insert(key.clone());
                }
            }
            Change::Service { name, record: Some(record) } if now.by_operator() => {
                if let Some(service) = now.plan.services.get(name) {
                    attempt(now, name, service, record, &mut problems);
                    exceptional(now, name, service, record, &mut problems);
                }
            }
            Change::Quarantine { name, quarantine: Some(quarantine) } => {
                problems.extend(claim_moved(now, name, quarantine));
            }
            _ => {}
        }
        if let Some(moved) = now.moved.filter(|moved| moved.loosens() && now.by_operator())
            && let Some(to) = moved.to
        {
            let taken = self.taken.get(moved.namespace).into_iter().flatten();
            let needed = |key: &&String| {
                (to == Level::Open || key.starts_with("serviceaccounts/")) && !may_be_back(now, key)
            };
            problems.extend(
                taken
                    .filter(needed)
                    .map(|key| format!("{} without {key}, which was taken away", moved.text())),
            );
        }
        findings.violations.extend(problems.into_iter().map(|message| now.broken(Name::Once, message)));
    }
}

impl Once {
    /// Checks a write of a step, or of resuming a job.
    fn step(
        &mut self,
        now: &WriteContext<'_>,
        name: &str,
        service: &Service,
        key: &str,
        generation: Option<u64>,
        problems: &mut Vec<String>,
    ) {
        let record = now.world.record(name).cloned().unwrap_or_default();
        if !record.resuming.iter().any(|one| one == key) {
            let wanted = match record.stage.as_str() {
                "Restoring" => Some(Level::CleanRoom),
                "Reconnecting" => Some(Level::Open),
                _ => None,
            };
            if wanted.is_none() || record.running.is_empty() {
                problems.push(format!("a step of {name} writes to {key} before its intent was written"));
            }
            let is_elsewhere =
                |namespace: &&String| wanted.is_some_and(|wanted| now.world.level(namespace) != wanted);
            if let (Some(other), Some(wanted)) = (service.namespaces.iter().find(is_elsewhere), wanted) {
                let (level, wanted) = (now.world.level(other).as_str(), wanted.as_str());
                problems.push(format!(
                    "a step of {name} writes to {key} while {other} is {level}, and not {wanted}"
                ));
            }
        }
        // A write without a change leaves the generation unchanged.
        let Some(generation) = generation else { return };
        match self.acted.insert((key.to_owned(), record.attempt, record.running), generation) {
            Some(before) if before != generation => {
                problems.push(format!("{key} is changed twice in attempt {} of {name}", record.attempt));
            }
            _ => {}
        }
    }

    /// Checks that the record of a workload is written with the stop, and never overwritten.
    fn recorded(&self, now: &WriteContext<'_>, key: &str, workload: &Workload, problems: &mut Vec<String>) {
        let before = self.workloads.get(key);
        let stops =
            workload.stopped == Some(true) && before.is_some_and(|before| before.stopped == Some(false));
        if stops && now.by_operator() && (workload.seal.is_none() || workload.recorded.is_none()) {
            problems.push(format!("{key} is stopped, and what it was like is not recorded on it"));
        }
        if let Some(before) = before
            && let (Some(was), Some(is)) = (&before.recorded, &workload.recorded)
            && before.seal.is_some()
            && before.seal == workload.seal
            && was != is
        {
            problems.push(format!(
                "the record of {key} was '{was}', and is overwritten under the same seal: '{is}'"
            ));
        }
    }
}

/// Returns whether an unanswered write may have created it again.
fn may_be_back(now: &WriteContext<'_>, wanted: &str) -> bool {
    now.log.unanswered.iter().any(|(write, outcome)| {
        let made = matches!(&write.change, Change::Carried { key, there: true, .. } if key == wanted);
        made && *outcome == Outcome::Unknown && write.completed <= now.write.completed
    })
}

/// Returns whether somebody made this Decision on just that matter.
fn decided(now: &WriteContext<'_>, name: &str, action: &str, digest: Option<&String>) -> bool {
    digest.is_some_and(|digest| {
        now.world.decisions.contains(&(name.to_owned(), action.to_owned(), digest.clone()))
    })
}

/// Checks that a service is isolated again, and that a failed gate is let pass, by a Decision or by the plan's own policy only.
fn exceptional(
    now: &WriteContext<'_>,
    name: &str,
    service: &Service,
    record: &Record,
    problems: &mut Vec<String>,
) {
    let Some(before) = now.world.record(name) else { return };
    match (before.isolating.as_deref(), record.isolating.as_deref()) {
        (None, Some("Aborted")) if !decided(now, name, "Abort", before.orders.as_ref()) => {
            problems.push(format!("{name} is aborted, and nobody decided so"));
        }
        (None, Some("Contained")) => {
            if !service.contains {
                problems.push(format!("{name} isolates itself, and the plan does not say so"));
            }
            let last = before.contained_at.zip(record.contained_at);
            if last.is_some_and(|(last, now)| now.duration_since(last).as_secs() < CONTAIN_EVERY_S) {
                problems.push(format!("{name} isolates itself twice within an hour"));
            }
        }
        _ => {}
    }
    let is_new = |gate: &&String| !before.accepted_gates.contains(gate);
    if let Some(gate) = record.accepted_gates.iter().find(is_new)
        && !decided(now, name, "AcceptException", before.asks_person.as_ref())
    {
        problems.push(format!("gate {gate} of {name} is accepted although it fails, and nobody decided so"));
    }
}

fn attempt(
    now: &WriteContext<'_>,
    name: &str,
    service: &Service,
    record: &Record,
    problems: &mut Vec<String>,
) {
    let before = now.world.record(name);
    if let Some(before) = before.filter(|before| before.attempt != record.attempt && before.attempt != 0) {
        let by_decision = decided(now, name, "Retry", before.asks_person.as_ref());
        let made_anew = now.world.plan_uid != before.plan_uid;
        let is_isolated_again = before.isolating.is_some();
        if record.attempt != before.attempt + 1 || !(by_decision || made_anew || is_isolated_again) {
            problems.push(format!(
                "{name} goes from attempt {} to {} without a Retry that was decided on what it asked",
                before.attempt, record.attempt
            ));
        }
    }
    let new = before.is_none_or(|before| !before.claimed() || before.attempt != record.attempt);
    if record.claimed() && new {
        let claimed = |namespace: &&String| {
            let claim =
                now.world.quarantines.get(*namespace).and_then(|quarantine| quarantine.claim.as_ref());
            claim.is_some_and(|c| c.is_of(now.plan) && c.service == *name && c.attempt == record.attempt)
        };
        if let Some(free) = service.namespaces.iter().find(|namespace| !claimed(namespace)) {
            problems.push(format!(
                "{name} leaves Isolated in attempt {}, for which the Quarantine of {free} is not claimed",
                record.attempt
            ));
        }
    }
}

fn claim_moved(now: &WriteContext<'_>, name: &str, quarantine: &Quarantine) -> Option<String> {
    let was = now.world.quarantines.get(name)?.claim.as_ref()?;
    let is = quarantine.claim.as_ref()?;
    let moved = was.plan_uid != is.plan_uid && !now.world.gone_plans.contains(&was.plan_uid);
    moved.then(|| {
        let of = |claim: &crate::change::Claim| {
            format!("{}/{}/{}", claim.plan_namespace, claim.plan, claim.service)
        };
        format!("the claim on {name} moves from {} to {}, whose plan was not gone", of(was), of(is))
    })
}
