//! Whether the inspection namespace is isolated as one.

use kube::ResourceExt;

use crate::api::quarantine::{ControlName, ControlState, Purpose};
use crate::api::{GateReason, Isolation, Quarantine, conditions};
use crate::gates::{Answer, Question};

/// Returns the Unknown for a namespace in which nothing may be inspected. `None`: it is isolated as it has to be. `quarantine`: that of
/// its name.
///
/// A program that reads what an attacker wrote may do what the attacker wants. So it runs where it reaches nobody, and where nobody but
/// the plan's account starts anything.
#[must_use]
pub fn not_isolated(namespace: &str, question: &Question, quarantine: Option<&Quarantine>) -> Option<Answer> {
    let unknown = |why: String| {
        let message = format!("namespace {namespace} is no inspection namespace: {why}");
        Some(Answer::unknown(GateReason::NotIsolated, message))
    };
    if question.namespaces.iter().any(|own| own == namespace) {
        return unknown("it is one of the service's own, whose evidence stays as it is".to_owned());
    }
    let Some(quarantine) = quarantine.filter(|quarantine| quarantine.name_any() == namespace) else {
        return unknown(format!(
            "it has no Quarantine. Who is on call creates Quarantine {namespace} with isolation: Sealed and purpose: Inspection"
        ));
    };
    if quarantine.metadata.deletion_timestamp.is_some() {
        return unknown("its Quarantine is being deleted".to_owned());
    }
    if quarantine.spec.purpose != Purpose::Inspection {
        return unknown("its Quarantine does not say purpose: Inspection".to_owned());
    }
    let Some(status) = &quarantine.status else {
        return unknown("no operator has taken up its Quarantine yet".to_owned());
    };
    if let Some(claim) = &status.claimed_by {
        return unknown(format!("{} has claimed its Quarantine", claim.display_name()));
    }
    let is_observed = status.observed_generation == quarantine.metadata.generation;
    if status.isolation != Some(Isolation::CleanRoom) || !is_observed {
        let level = status.isolation.map_or("not isolated yet", Isolation::as_str);
        return unknown(format!("it is {level}, and not CleanRoom yet"));
    }
    if !conditions::is_true(&status.conditions, conditions::READY) {
        let why = conditions::find(&status.conditions, conditions::READY);
        let why = why.map_or_else(String::new, |ready| format!(" ({}: {})", ready.reason, ready.message));
        return unknown(format!("its Quarantine is not Ready{why}"));
    }
    let network = status.controls.iter().find(|control| control.name == ControlName::Network);
    match network.map(|control| (control.state, &control.message)) {
        Some((ControlState::Tested | ControlState::Enforced | ControlState::Unverifiable, _)) => None,
        Some((_, message)) => unknown(format!("its network is not cut: {message}")),
        None => unknown("its Quarantine does not say that its network is cut".to_owned()),
    }
}
