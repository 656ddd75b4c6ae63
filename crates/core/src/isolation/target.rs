//! Decides which isolation a Quarantine enforces, from its spec, its claim and what the claimant requests.
//!
//! Rule: tightening needs an explicit request; loosening needs an explicit request *and* proof. If anything is missing or does not match,
//! the enforced level stays.

use kube::ResourceExt;

use crate::api::quarantine::{Contents, ControlName, Purpose};
use crate::api::recovery_plan::EgressBlock;
use crate::api::service_recovery::AcceptedControl;
use crate::api::{
    Claim, ClusterService, Isolation, PodSecurity, Quarantine, ServiceRecovery, conditions,
    protected_namespace,
};

/// Isolation to enforce, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The level.
    pub level: Isolation,
    /// Namespaces that a clean room may connect to, in addition to its own.
    pub reachable: Vec<String>,
    /// Cluster services that a clean room may connect to.
    pub allow_egress: Vec<ClusterService>,
    /// Addresses outside the cluster that a clean room may connect to.
    pub allow_egress_to: Vec<EgressBlock>,
    /// Whether a person has accepted host access of its pods.
    pub privileged: bool,
    /// Why the claimant does not get the requested level, as a message.
    pub held: Option<String>,
    /// Whether a hold overrules the claim: its attempt gets nothing looser any more.
    pub overrules: bool,
}

impl Target {
    fn plain(level: Isolation, reachable: Vec<String>) -> Self {
        Self {
            level,
            reachable,
            allow_egress: Vec::new(),
            allow_egress_to: Vec::new(),
            privileged: false,
            held: None,
            overrules: false,
        }
    }

    fn held(level: Isolation, why: String) -> Self {
        Self { held: Some(why), ..Self::plain(level, Vec::new()) }
    }
}

/// State of the plan that the claim names, from what permits loosening to what forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanState {
    /// It exists with the UID of the claim and is not being deleted; the claimant's dependencies are recovered and healthy.
    Allows,
    /// It exists; the health of the claimant's dependencies is not known yet. Nothing is loosened until it is.
    Unknown,
    /// It exists; a dependency of the claimant is not recovered and healthy. Nothing is loosened.
    Refuses,
    /// It does not exist, or was not read. Nothing is loosened.
    Gone,
}

/// Returns the level at which a new Quarantine is written to the isolation lists before anything else is read. `None`: that needs a read
/// first, as something was enforced before, a plan has claimed it, it is being deleted, or its namespace is protected.
#[must_use]
pub fn at_once(quarantine: &Quarantine) -> Option<Isolation> {
    let untouched = quarantine
        .status
        .as_ref()
        .is_none_or(|status| status.isolation.is_none() && status.claimed_by.is_none());
    let stays = quarantine.metadata.deletion_timestamp.is_none();
    let may_be = protected_namespace(&quarantine.name_any()).is_none();
    (untouched && stays && may_be).then(|| target(quarantine, None, PlanState::Gone).level)
}

/// Returns the isolation to enforce. `recovery`: the ServiceRecovery that the claim names, read live; `plan`: the state of the plan.
#[must_use]
pub fn target(quarantine: &Quarantine, recovery: Option<&ServiceRecovery>, plan: PlanState) -> Target {
    let mut target = match quarantine.spec.hold {
        Some(hold) => hold_at(quarantine, hold.into(), recovery),
        None => unheld(quarantine, recovery, plan),
    };
    // A claimant whose request is not granted gets no connections and no egress exceptions.
    if target.level == Isolation::CleanRoom && !target.reachable.is_empty() {
        target.allow_egress = recovery.map(|r| r.spec.allow_egress.clone()).unwrap_or_default();
        target.allow_egress_to = recovery.map(|r| r.spec.allow_egress_to.clone()).unwrap_or_default();
        target.privileged = recovery.is_some_and(|r| r.spec.pod_security == PodSecurity::Privileged);
    }
    target
}

/// Returns the target under a hold: the level of the hold, whatever spec or claim say. What is sealed stays sealed.
fn hold_at(quarantine: &Quarantine, hold: Isolation, recovery: Option<&ServiceRecovery>) -> Target {
    let name = quarantine.name_any();
    let status = quarantine.status.as_ref();
    let enforced = status.and_then(|s| s.isolation);
    let level = if enforced == Some(Isolation::Sealed) { Isolation::Sealed } else { hold };
    let let_in = |level: Option<Isolation>| level.is_some_and(|level| level >= Isolation::CleanRoom);
    let claim = status.and_then(|s| s.claimed_by.as_ref());
    let asked = claim.and_then(|claim| matching(&name, claim, recovery).ok()).and_then(|r| r.spec.isolation);
    let why = format!(
        "held at {}: who may release quarantines/{name} ends that by taking spec.hold away",
        hold.as_str()
    );
    let overrules = claim.is_some() && (let_in(enforced) || let_in(asked));
    Target { overrules, ..Target::held(level, why) }
}

fn unheld(quarantine: &Quarantine, recovery: Option<&ServiceRecovery>, plan: PlanState) -> Target {
    let status = quarantine.status.clone().unwrap_or_default();
    let own = Isolation::from(quarantine.spec.isolation);
    let enforced = status.isolation;
    let Some(claim) = &status.claimed_by else {
        let is_let_in = matches!(enforced, Some(Isolation::CleanRoom | Isolation::Open));
        if quarantine.spec.purpose == Purpose::Inspection && !is_let_in {
            return inspection(quarantine);
        }
        // Without a claim the spec applies, except to a level that only a recovery can reach. A lost claim seals nothing.
        let level = match enforced {
            Some(level @ (Isolation::CleanRoom | Isolation::Open)) => level,
            Some(Isolation::Sealed | Isolation::Contained) | None => own,
        };
        return Target::plain(level, Vec::new());
    };
    // A tighter level in the spec applies as long as nothing has been loosened.
    let as_is = match enforced {
        None => own,
        Some(level @ (Isolation::CleanRoom | Isolation::Open)) => level,
        Some(level @ (Isolation::Sealed | Isolation::Contained)) => level.min(own),
    };
    if quarantine.spec.purpose == Purpose::Inspection {
        return Target::held(as_is, format!("{} asks for an inspection namespace", claim.display_name()));
    }
    let (recovery, asked) = match matching(&quarantine.name_any(), claim, recovery) {
        Ok(recovery) => (recovery, recovery.spec.isolation),
        Err(why) => return Target::held(as_is, why),
    };
    // The hold has reverted this attempt's loosening, so that its proofs no longer apply.
    if status.overruled.as_ref() == Some(claim) {
        let why = format!("{} was overruled by a hold: it needs a new attempt", claim.display_name());
        return Target::held(as_is, why);
    }
    let reachable = recovery.spec.reachable.iter().map(|name| name.0.clone()).collect();
    let held = |level, why: &str| Target::held(level, format!("{} asks for {why}", claim.display_name()));
    let Some(asked) = asked else {
        return Target::plain(as_is, reachable);
    };
    let loosens = enforced.is_none_or(|enforced| asked > enforced);
    if loosens && asked > own {
        if let Some(why) = stands_still(recovery, claim) {
            return held(as_is, &format!("{}, but {why}", asked.as_str()));
        }
        let against = match plan {
            PlanState::Allows => None,
            PlanState::Refuses => Some("what it depends on is not all recovered and healthy"),
            PlanState::Unknown => Some("the health of its dependencies is not known yet"),
            PlanState::Gone => Some("its plan is gone"),
        };
        if let Some(why) = against {
            return held(as_is, &format!("{}, but {why}", asked.as_str()));
        }
    }
    let ready = is_ready(quarantine, recovery);
    match (enforced, asked) {
        (Some(Isolation::CleanRoom | Isolation::Open), Isolation::CleanRoom)
        | (Some(Isolation::Open), Isolation::Open)
        | (_, Isolation::Sealed) => Target::plain(asked, reachable),
        // Containing never restarts processes, and what is sealed stays sealed.
        (Some(Isolation::Sealed), Isolation::Contained) => {
            held(Isolation::Sealed, "Contained while it is sealed")
        }
        (None, Isolation::Contained) => Target::plain(asked.min(own), reachable),
        (_, Isolation::Contained) => Target::plain(asked, reachable),
        (Some(Isolation::Sealed), Isolation::CleanRoom) if ready => Target::plain(asked, reachable),
        // A clean room starts empty and captured, so the namespace must be sealed and ready first.
        (Some(Isolation::Sealed | Isolation::Contained) | None, Isolation::CleanRoom) => {
            held(Isolation::Sealed, "CleanRoom: it is sealed, captured and empty before that")
        }
        (Some(Isolation::CleanRoom), Isolation::Open) if ready => Target::plain(asked, reachable),
        (_, Isolation::Open) => held(as_is, "Open: only a clean room that is Ready opens"),
    }
}

/// Returns the target of a sealed inspection namespace. It becomes a clean room that reaches nobody, once it is Ready and nothing ran in
/// it when it was isolated.
fn inspection(quarantine: &Quarantine) -> Target {
    let status = quarantine.status.as_ref();
    let is_ready = status.is_some_and(|status| {
        status.isolation == Some(Isolation::Sealed)
            && conditions::is_true(&status.conditions, conditions::READY)
    });
    match status.and_then(|status| status.contents) {
        Some(Contents { workloads: 0, unmanaged_pods: 0 }) if is_ready => {
            Target::plain(Isolation::CleanRoom, Vec::new())
        }
        Some(Contents { workloads: 0, unmanaged_pods: 0 }) | None => Target::held(
            Isolation::Sealed,
            "it becomes an inspection namespace once it is sealed, if nothing ran in it".to_owned(),
        ),
        Some(_) => Target::held(
            Isolation::Sealed,
            "it becomes no inspection namespace, as something ran in it when it was isolated".to_owned(),
        ),
    }
}

/// Returns whether everything is in place that the level needs, except what a person accepted for the claimant.
fn is_ready(quarantine: &Quarantine, recovery: &ServiceRecovery) -> bool {
    let Some(status) = &quarantine.status else { return false };
    let Some(ready) = conditions::find(&status.conditions, conditions::READY) else { return false };
    let of_network =
        |a: &AcceptedControl| a.control == ControlName::Network && a.namespace.0 == quarantine.name_any();
    // This reason is set only if everything else was found in place.
    let accepted =
        ready.reason == conditions::NETWORK_NOT_ENFORCED && recovery.spec.accepted.iter().any(of_network);
    ready.status == "True" || accepted
}

/// Returns whether a change from the enforced level loosens anything. Everything is then read live first.
#[must_use]
pub fn loosens(enforced: Option<Isolation>, level: Isolation) -> bool {
    enforced.is_some_and(|enforced| level > enforced)
}

/// Returns why a claimant gets nothing looser now, whatever it has requested before: its attempt has ended, or a person has ordered it.
fn stands_still(recovery: &ServiceRecovery, claim: &Claim) -> Option<String> {
    // Without a status, nobody has ordered anything.
    let status = recovery.status.as_ref()?;
    if status.attempt != claim.attempt {
        return Some(format!("attempt {} has ended", claim.attempt));
    }
    if status.isolating.is_some() {
        return Some("it is being isolated again".to_owned());
    }
    let hold = status.standing_orders.as_ref().and_then(|orders| orders.hold.as_ref())?;
    Some(format!("it is on hold by {} (Decision {})", hold.by, hold.decision))
}

/// Returns the claimant's ServiceRecovery if it matches the claim, or else what does not match.
fn matching<'a>(
    namespace: &str,
    claim: &Claim,
    recovery: Option<&'a ServiceRecovery>,
) -> Result<&'a ServiceRecovery, String> {
    let who = format!("{}/{}", claim.plan_namespace, claim.service_recovery());
    let Some(recovery) = recovery.filter(|r| r.metadata.deletion_timestamp.is_none()) else {
        return Err(format!(
            "the claim is held by ServiceRecovery {who}, which is not there: nothing is loosened"
        ));
    };
    let spec = &recovery.spec;
    let mismatch = |what: &str, theirs: &str, claimed: &str| {
        Err(format!(
            "ServiceRecovery {who} has {what} {theirs}, the claim {claimed}: nothing changes until they agree"
        ))
    };
    if spec.plan_ref.uid != claim.plan_uid {
        return mismatch("plan UID", &spec.plan_ref.uid, &claim.plan_uid);
    }
    if spec.service != claim.service {
        return mismatch("service", &spec.service, &claim.service);
    }
    if spec.attempt != claim.attempt {
        return mismatch("attempt", &spec.attempt.to_string(), &claim.attempt.to_string());
    }
    if !spec.namespaces.iter().any(|n| n.0 == namespace) {
        return Err(format!(
            "ServiceRecovery {who} does not name namespace {namespace}: nothing is loosened"
        ));
    }
    Ok(recovery)
}

/// Controls of an isolation that are in place, as read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlsInPlace {
    /// The isolation lists have the namespace at the target level.
    pub listed: bool,
    /// The namespace has label and annotations of the target level.
    pub labelled: bool,
    /// The fence was verified at the target level; to open, verified to be gone.
    pub fenced: bool,
    /// Network policies are as the target wants them.
    pub network: bool,
    /// Evidence of this sealing is stored.
    pub captured: bool,
    /// Workloads' specs start nothing.
    pub stopped: bool,
    /// No pod is alive.
    pub empty: bool,
    /// ServiceAccounts were recreated in this sealing.
    pub renewed: bool,
}

#[cfg(test)]
impl ControlsInPlace {
    /// All controls.
    pub(crate) const ALL: Self = Self {
        listed: true,
        labelled: true,
        fenced: true,
        network: true,
        captured: true,
        stopped: true,
        empty: true,
        renewed: true,
    };
}

/// Next action towards a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Write the isolation lists.
    List,
    /// Write (or, to open, remove) label and annotations.
    Label,
    /// Probe the fence until it denies writes, or, to open, no longer denies them.
    Probe,
    /// Write the network policies, or, to open, restore the previous ones.
    Network,
    /// Capture evidence.
    Capture,
    /// Scale workloads to zero.
    Stop,
    /// Wait for the last pod to end.
    AwaitPods,
    /// Recreate ServiceAccounts, which revokes tokens issued before.
    Identity,
    /// None: the target is reached.
    Done,
}

/// Returns the first outstanding action, in this order: lists, network, label, fence, capture, then workloads and identities. When
/// isolation tightens, a failed action does not prevent those after it. Into and out of a clean room, the network is ready before the
/// label permits anything.
#[must_use]
pub fn next_action(level: Isolation, in_place: ControlsInPlace) -> NextAction {
    let steps: &[(bool, NextAction)] = match level {
        Isolation::Sealed => &[
            (in_place.listed, NextAction::List),
            (in_place.network, NextAction::Network),
            (in_place.labelled, NextAction::Label),
            (in_place.fenced, NextAction::Probe),
            (in_place.captured, NextAction::Capture),
            (in_place.stopped, NextAction::Stop),
            (in_place.empty, NextAction::AwaitPods),
            (in_place.renewed, NextAction::Identity),
        ],
        Isolation::Contained => &[
            (in_place.listed, NextAction::List),
            (in_place.network, NextAction::Network),
            (in_place.labelled, NextAction::Label),
            (in_place.fenced, NextAction::Probe),
            (in_place.captured, NextAction::Capture),
        ],
        Isolation::CleanRoom => &[
            (in_place.network, NextAction::Network),
            (in_place.labelled, NextAction::Label),
            (in_place.fenced, NextAction::Probe),
        ],
        Isolation::Open => &[
            (in_place.network, NextAction::Network),
            (in_place.labelled, NextAction::Label),
            (in_place.fenced, NextAction::Probe),
        ],
    };
    steps.iter().find(|(done, _)| !done).map_or(NextAction::Done, |(_, next)| *next)
}

/// Returns whether evidence of this sealing is still to be captured. It is captured when the level is entered from a level at which
/// anything could run.
#[must_use]
pub fn needs_capture(quarantine: &Quarantine, level: Isolation) -> bool {
    let status = quarantine.status.as_ref();
    match level {
        Isolation::CleanRoom | Isolation::Open => false,
        Isolation::Sealed | Isolation::Contained => {
            let before = status.and_then(|s| s.isolation);
            let kept = status.is_some_and(|s| s.capture.is_some());
            // Sealed was eased to Contained: nothing has run in between.
            let eased = before == Some(Isolation::Sealed) && level == Isolation::Contained;
            // No level has been verified yet, so that what was captured is of this first sealing. An operator that was killed after
            // stopping workloads must not replace it by a capture without their pods.
            let is_first = before.is_none();
            !kept || (before != Some(level) && !eased && !is_first)
        }
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
