//! Which isolation a Quarantine is to enforce, from its spec, its one claim and what the claimant asks.
//!
//! The rule behind it: tightening needs a clear wish, loosening needs a clear wish *and* proof. Whatever is missing or does
//! not match leaves the level as it is enforced.

use kube::ResourceExt;

use crate::api::quarantine::ControlName;
use crate::api::service_recovery::AcceptedControl;
use crate::api::{
    Claim, ClusterService, Isolation, PodSecurity, Quarantine, ServiceRecovery, conditions,
    protected_namespace,
};

/// What is to be enforced, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The level.
    pub level: Isolation,
    /// Namespaces that a clean room may talk to, beside itself.
    pub reachable: Vec<String>,
    /// Services of the cluster itself that a clean room may talk to.
    pub allow_egress: Vec<ClusterService>,
    /// A person has accepted that its pods use their nodes' network, processes and files.
    pub privileged: bool,
    /// Why the claimant does not get what it asks for, for people.
    pub held: Option<String>,
    /// A hold takes back, or keeps back, what the claim's attempt was let into: that attempt is over, as far as loosening goes.
    pub overrules: bool,
}

impl Target {
    fn plain(level: Isolation, reachable: Vec<String>) -> Self {
        Self { level, reachable, allow_egress: Vec::new(), privileged: false, held: None, overrules: false }
    }

    fn held(level: Isolation, why: String) -> Self {
        Self { held: Some(why), ..Self::plain(level, Vec::new()) }
    }
}

/// What is known of the plan that the claim names, from what speaks for loosening to what speaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanState {
    /// It is there, with the UID of the claim, and is not being deleted; what the claimant depends on is recovered and healthy.
    Allows,
    /// It is there, and whether what the claimant depends on is healthy is not known yet: nothing is loosened before.
    Unknown,
    /// It is there, and what the claimant depends on is not recovered and healthy just now: nothing is loosened for it either.
    Refuses,
    /// It is not there, or nobody looked: nothing is loosened for it.
    Gone,
}

/// The level at which a new Quarantine is to be on the isolation lists before anything else is read. `None`: not without a look, as
/// something was enforced before, a plan has claimed it, it is on its way out, or its namespace is never isolated.
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

/// The level to enforce. `recovery` is the ServiceRecovery that the claim names, read live; `plan` what is known of the plan.
#[must_use]
pub fn target(quarantine: &Quarantine, recovery: Option<&ServiceRecovery>, plan: PlanState) -> Target {
    let mut target = match quarantine.spec.hold {
        Some(hold) => hold_at(quarantine, hold.into(), recovery),
        None => unheld(quarantine, recovery, plan),
    };
    // Whoever is not heeded reaches nothing, and gets no hole either.
    if target.level == Isolation::CleanRoom && !target.reachable.is_empty() {
        target.allow_egress = recovery.map(|r| r.spec.allow_egress.clone()).unwrap_or_default();
        target.privileged = recovery.is_some_and(|r| r.spec.pod_security == PodSecurity::Privileged);
    }
    target
}

/// Held: at that level, whatever the spec or a claim says. What is sealed stays sealed.
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
        // Unclaimed: the spec, but for a level that only a recovery leads to. A claim that vanished seals nothing.
        let level = match enforced {
            Some(level @ (Isolation::CleanRoom | Isolation::Open)) => level,
            Some(Isolation::Sealed | Isolation::Contained) | None => own,
        };
        return Target::plain(level, Vec::new());
    };
    // Tighter by the spec is always heeded while nothing has been let in yet.
    let as_is = match enforced {
        None => own,
        Some(level @ (Isolation::CleanRoom | Isolation::Open)) => level,
        Some(level @ (Isolation::Sealed | Isolation::Contained)) => level.min(own),
    };
    let (recovery, asked) = match matching(&quarantine.name_any(), claim, recovery) {
        Ok(recovery) => (recovery, recovery.spec.isolation),
        Err(why) => return Target::held(as_is, why),
    };
    // What it was let into was taken back: this attempt proved itself to a world that is no more.
    if status.overruled.as_ref() == Some(claim) {
        let why = format!("{} was held: its next attempt begins anew", claim.display_name());
        return Target::held(as_is, why);
    }
    let reachable = recovery.spec.reachable.iter().map(|name| name.0.clone()).collect();
    let held = |level, why: &str| Target::held(level, format!("{} asks for {why}", claim.display_name()));
    let Some(asked) = asked else {
        return Target::plain(as_is, reachable);
    };
    let loosens = enforced.is_none_or(|enforced| asked > enforced);
    if loosens && asked > own {
        let against = match plan {
            PlanState::Allows => None,
            PlanState::Refuses => Some("what it depends on is not all recovered and healthy"),
            PlanState::Unknown => Some("whether what it depends on is healthy has yet to be heard"),
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
        // Processes are never brought back to life by containing, and what is sealed stays sealed.
        (Some(Isolation::Sealed), Isolation::Contained) => {
            held(Isolation::Sealed, "Contained while it is sealed")
        }
        (None, Isolation::Contained) => Target::plain(asked.min(own), reachable),
        (_, Isolation::Contained) => Target::plain(asked, reachable),
        (Some(Isolation::Sealed), Isolation::CleanRoom) if ready => Target::plain(asked, reachable),
        // The clean room begins empty and captured: sealed and ready comes before it.
        (Some(Isolation::Sealed | Isolation::Contained) | None, Isolation::CleanRoom) => {
            held(Isolation::Sealed, "CleanRoom: it is sealed, captured and empty before that")
        }
        (Some(Isolation::CleanRoom), Isolation::Open) if ready => Target::plain(asked, reachable),
        (_, Isolation::Open) => held(as_is, "Open: only a clean room that is Ready opens"),
    }
}

/// Is all in place that the level needs, but for what a person has accepted for the claimant?
fn is_ready(quarantine: &Quarantine, recovery: &ServiceRecovery) -> bool {
    let Some(status) = &quarantine.status else { return false };
    let Some(ready) = conditions::find(&status.conditions, conditions::READY) else { return false };
    let of_network =
        |a: &AcceptedControl| a.control == ControlName::Network && a.namespace.0 == quarantine.name_any();
    // That reason is given where everything else was found in place.
    let accepted =
        ready.reason == conditions::NETWORK_NOT_ENFORCED && recovery.spec.accepted.iter().any(of_network);
    ready.status == "True" || accepted
}

/// Does going from what is enforced to this loosen anything? Then everything is read afresh first.
#[must_use]
pub fn loosens(enforced: Option<Isolation>, level: Isolation) -> bool {
    enforced.is_some_and(|enforced| level > enforced)
}

/// The claimant's ServiceRecovery, if it is truly the claimant's; else what does not match.
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

/// Which parts of an isolation are in place, by what was read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlsInPlace {
    /// The isolation lists have the namespace at the target.
    pub listed: bool,
    /// The namespace bears label and annotations of the target.
    pub labelled: bool,
    /// The fence was seen to refuse, at that level; to open, seen to refuse no more.
    pub fenced: bool,
    /// Network policies are as the target wants them.
    pub network: bool,
    /// Evidence of this sealing is kept.
    pub captured: bool,
    /// Workloads' specs start nothing.
    pub stopped: bool,
    /// No pod lives.
    pub empty: bool,
    /// Service accounts were made anew in this sealing.
    pub renewed: bool,
}

#[cfg(test)]
impl ControlsInPlace {
    /// All in place.
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

/// What comes next on the way to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write the isolation lists.
    List,
    /// Write (or, to open, remove) label and annotations.
    Label,
    /// Try the fence, until it is seen to refuse, or, to open, to refuse no more.
    Probe,
    /// Write the network policies, or, to open, restore what was there.
    Network,
    /// Keep evidence.
    Capture,
    /// Workloads to zero.
    Stop,
    /// Wait for the last pod to go.
    AwaitPods,
    /// Make service accounts anew: tokens issued before are void.
    Identity,
    /// Nothing: it is as it should be.
    Done,
}

/// What is outstanding first, in the order of work: lists, network, label, fence verified, capture, then workloads and identities.
/// Where isolation tightens, what fails keeps nothing that comes after it from being done. Into a clean room, and out of it, the
/// network is ready before the label lets anything in or out.
#[must_use]
pub fn next(level: Isolation, in_place: ControlsInPlace) -> Next {
    let steps: &[(bool, Next)] = match level {
        Isolation::Sealed => &[
            (in_place.listed, Next::List),
            (in_place.network, Next::Network),
            (in_place.labelled, Next::Label),
            (in_place.fenced, Next::Probe),
            (in_place.captured, Next::Capture),
            (in_place.stopped, Next::Stop),
            (in_place.empty, Next::AwaitPods),
            (in_place.renewed, Next::Identity),
        ],
        Isolation::Contained => &[
            (in_place.listed, Next::List),
            (in_place.network, Next::Network),
            (in_place.labelled, Next::Label),
            (in_place.fenced, Next::Probe),
            (in_place.captured, Next::Capture),
        ],
        Isolation::CleanRoom => &[
            (in_place.network, Next::Network),
            (in_place.labelled, Next::Label),
            (in_place.fenced, Next::Probe),
        ],
        Isolation::Open => &[
            (in_place.network, Next::Network),
            (in_place.labelled, Next::Label),
            (in_place.fenced, Next::Probe),
        ],
    };
    steps.iter().find(|(done, _)| !done).map_or(Next::Done, |(_, next)| *next)
}

/// Has evidence of this sealing to be taken? It has when the level is entered, from whatever was let run before.
#[must_use]
pub fn needs_capture(quarantine: &Quarantine, level: Isolation) -> bool {
    let status = quarantine.status.as_ref();
    match level {
        Isolation::CleanRoom | Isolation::Open => false,
        Isolation::Sealed | Isolation::Contained => {
            let before = status.and_then(|s| s.isolation);
            let kept = status.is_some_and(|s| s.capture.is_some());
            // Sealed eased to Contained: nothing has run in between.
            let eased = before == Some(Isolation::Sealed) && level == Isolation::Contained;
            !kept || (before != Some(level) && !eased)
        }
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
