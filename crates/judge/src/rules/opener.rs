//! **I4, isolation is monotone**: it loosens only by I2 or by a human who may `release`.
//!
//! What the log proves, of each namespace's label that is loosened (sealed or contained to clean room, anything to none, or the
//! namespace deleted):
//! - it was the operator or a person: no other service account, and no part of the control plane;
//! - if it was the operator, and the namespace is the plan's: a person had deleted its Quarantine; or the Quarantine is
//!   claimed for a service and attempt whose ServiceRecovery asks for that level, is not held, and, to open, the namespace
//!   was a clean room. So every other rule about what was asked holds of what was done.
//!
//! It holds whatever becomes of the operator: killed, upgraded, two at once, the label is only written through the API
//! server, which logs it. What the log does not prove: that the person held `release`. That the API server let the write
//! through says so, as long as the lock was in place; whether it was is for the attack tests. Nor are other controls than the
//! label in it: network policies are objects like any other, and what passes over the network is in no log.

use super::{Rule, WriteContext};
use crate::change::Level;
use crate::report::{Findings, Rule as Name};
use crate::world::{LevelChange, is_person};

pub(super) struct Opener;

impl Rule for Opener {
    fn check(&mut self, now: &WriteContext<'_>, findings: &mut Findings) {
        let Some(moved) = now.moved.filter(|moved| moved.loosens()) else { return };
        let problems = if now.by_operator() {
            unasked(now, moved)
        } else if is_person(&now.write.user) {
            None
        } else {
            Some(format!("by {}, which is neither the operator nor a person", now.write.user))
        };
        if let Some(problems) = problems {
            findings.violations.push(now.broken(Name::Opener, format!("{} {problems}", moved.text())));
        }
    }
}

/// Returns what forbids the operator's loosening of a namespace of the plan.
fn unasked(now: &WriteContext<'_>, moved: LevelChange<'_>) -> Option<String> {
    let (name, _) = now.plan.service_of(moved.namespace)?;
    if now.world.released.contains(moved.namespace) {
        return None;
    }
    let Some(to) = moved.to else { return Some("by the operator, which deletes no namespace".to_owned()) };
    let Some(quarantine) = now.world.quarantines.get(moved.namespace) else {
        return Some("without a Quarantine, and it had not been released".to_owned());
    };
    if quarantine.held {
        return Some("while its Quarantine was held".to_owned());
    }
    let claim = quarantine.claim.as_ref().filter(|claim| claim.is_of(now.plan) && claim.service == name);
    let Some(claim) = claim else { return Some(format!("without a claim for {name}")) };
    let Some(record) = now.world.record(name) else {
        return Some(format!("while there was no ServiceRecovery of {name}"));
    };
    let attempts = [claim.attempt, record.asking, record.attempt];
    if attempts.iter().any(|attempt| *attempt != claim.attempt) || claim.plan_uid != record.plan_uid {
        let [claimed, asking, attempt] = attempts;
        return Some(format!(
            "across attempts or plans: claimed for attempt {claimed}, asked for in {asking}, and {name} is in {attempt}"
        ));
    }
    if record.asked.is_none_or(|asked| asked < to) {
        let asked = record.asked.map_or("nothing", Level::as_str);
        return Some(format!("and {name} had asked for {asked}"));
    }
    (to == Level::Open && moved.from != Level::CleanRoom)
        .then(|| "without having been a clean room".to_owned())
}
