//! What a person does next about a reason: who clears it, and the command, the repair or the Decision. Pure.

use crate::api::conditions::shorten;
use crate::api::{Action, Reason};
use crate::isolation::failure::{Culprit, repeated_culprit};

/// What to do next for each reason that does not clear without a person. In braces: the service's `owner`, `service`, `plan`, `namespace`
/// (the plan's) and `culprit`; `mender`, who repairs what the message names; and each action of a Decision.
const TABLE: &[(Reason, &str)] = &[
    // Reasons to ask for a Decision.
    (
        Reason::GateFailed,
        "{owner} mends what the gate names; then a recovery lead starts over: {Retry}; or goes on although it fails, as an exception: \
         {AcceptException}",
    ),
    (
        Reason::StepFailed,
        "{owner} mends what failed, or a platform engineer corrects the step in the plan; then a recovery lead starts over: {Retry}; or goes \
         on without the step, as an exception: {Skip}",
    ),
    (
        Reason::StepDenied,
        "a platform engineer grants the right (resurgam access PLAN.yaml --check prints the manifest), and it goes on by itself; or a \
         recovery lead begins a new attempt with {Retry}, or goes on without the step, as an exception, with {Skip}",
    ),
    (
        Reason::DeadlineExceeded,
        "{mender}, and it goes on by itself; or a recovery lead begins a new attempt with {Retry}",
    ),
    (
        Reason::RolloutNotRestorable,
        "a recovery lead accepts the specified revision, as an exception, with {Override}; or {owner} specifies the revision that served, \
         and a recovery lead starts over: {Retry}",
    ),
    (
        Reason::GateUnknown,
        "{mender}, and it goes on by itself; or a recovery lead begins a new attempt, which isolates a recovered service again, with {Retry}",
    ),
    (
        Reason::Regressed,
        "{owner} mends what the gate names, and the question ends by itself; or a recovery lead isolates the service and begins a new \
         attempt with {Retry}, or lets dependents go on, as an exception, with {AcceptException}",
    ),
    (
        Reason::Held,
        "who may release quarantines/{culprit} ends the hold, as no Decision does: kubectl patch quarantine {culprit} --type=merge -p \
         '{\"spec\":{\"hold\":null}}'",
    ),
    (Reason::IsolatedAgain, "a recovery lead brings the service back through its gates with {Retry}"),
    (
        Reason::AlreadyOpen,
        "a recovery lead has the namespace sealed, and brings the service back through its gates, with {Retry}",
    ),
    (Reason::ClaimLost, "a recovery lead has the namespace claimed again with {Retry}"),
    (
        Reason::ControlNotEnforced,
        "whoever runs what does not hold (for Network, the cluster's network) repairs it, and it goes on by itself; or a recovery lead goes \
         on without this control, as an exception, with {Override}",
    ),
    (
        Reason::Loosened,
        "whoever changed the plan puts back what is missing, and it goes on by itself; or a recovery lead accepts the loss, as an exception, \
         with {AcceptLoosening}",
    ),
    (
        Reason::HostAccess,
        "{owner} mends the workload, and a recovery lead starts over: {Retry}; or a platform engineer lists cleanRoom.hostAccess in the plan, and \
         a recovery lead accepts that with {AcceptLoosening}",
    ),
    (
        Reason::StepOverrunning,
        "whoever runs what the step waits for repairs it, and it goes on by itself; or a recovery lead goes on without the step, as an \
         exception, with {Skip}; or isolates the service, which ends what runs: resurgam decide {service} abort --reason TEXT -n {namespace}",
    ),
    (
        Reason::ApprovalNeeded,
        "those whom the message names approve it with {Approve}, where it says so in the name of their group (--group); or refuse it with \
         {Reject}",
    ),
    (Reason::OnHold, "a recovery lead lets it go on with {Unhold}"),
    (
        Reason::Superseded,
        "a recovery lead proves it again, through isolation, with {Retry}; or keeps what was proved, as an exception, with {AcceptException}",
    ),
    (Reason::StepsChanged, "a recovery lead has the steps of the present plan carried out with {Retry}"),
    // Blockers that a person has to clear.
    (
        Reason::Unreadable,
        "a cluster administrator installs the version of the operator that wrote the object, or a newer one, and it goes on by itself",
    ),
    (
        Reason::QuarantineNotGranted,
        "a platform engineer grants the plan's account create on quarantines (resurgam access PLAN.yaml --check prints the manifest), and it \
         goes on by itself; or who is on call isolates the namespace: resurgam quarantine NAMESPACE --incident INCIDENT --reason TEXT",
    ),
    (
        Reason::QuarantineReleased,
        "who is on call isolates it again, if it is to be recovered: resurgam quarantine {culprit} --incident INCIDENT --reason TEXT",
    ),
    (
        Reason::QuarantineMissing,
        "who is on call isolates it, and it goes on by itself: resurgam quarantine {culprit} --incident INCIDENT --reason TEXT",
    ),
    (
        Reason::QuarantineNotReady,
        "as the Quarantine's conditions say, and it goes on by itself: kubectl describe quarantine {culprit}",
    ),
    (
        Reason::OriginalNotIsolated,
        "who is on call isolates it, and it goes on by itself: resurgam quarantine {culprit} --isolation sealed --incident INCIDENT --reason \
         TEXT",
    ),
    (
        Reason::NamespaceNotGranted,
        "a platform engineer grants the plan's account create on namespaces (resurgam access PLAN.yaml --check prints the manifest), and it \
         goes on by itself; or who may creates it: kubectl create namespace NAMESPACE",
    ),
    (
        Reason::ClaimedByAnother,
        "whoever leads the recovery decides which plan recovers {culprit}; the other plan is deleted, which changes no isolation, and it goes \
         on by itself",
    ),
    (
        Reason::RecoverNotGranted,
        "a cluster administrator grants the plan's account recover on quarantines/{culprit}, by that name (resurgam access PLAN.yaml --check \
         prints the manifest), and it goes on by itself",
    ),
    (
        Reason::VeleroNotGranted,
        "who may release the namespace grants Velero's account recover on its Quarantine, by the commands in the message, and it goes on by \
         itself",
    ),
    (
        Reason::WildcardHolder,
        "a cluster administrator binds the account to a ClusterRole without a wildcard over resurgam.dev, and it goes on by itself",
    ),
    (
        Reason::Refused,
        "a cluster administrator installs the chart of this version, and it goes on by itself (resurgam version compares them)",
    ),
    (
        Reason::IncidentMissing,
        "the incident lead creates Incident {culprit}, or corrects incidentRef in the plan, and it goes on by itself",
    ),
    (
        Reason::IncidentUnknown,
        "the incident lead makes Incident {culprit} readable, and it goes on by itself: kubectl get incident {culprit} -o yaml",
    ),
    (
        Reason::ServiceAccountMissing,
        "a platform engineer creates it, and it goes on by itself: kubectl create serviceaccount {culprit} -n {namespace}",
    ),
    (
        Reason::ServiceAccountUnknown,
        "a platform engineer checks that it exists: kubectl get serviceaccount {culprit} -n {namespace}. It is read again by itself",
    ),
    (
        Reason::Suspended,
        "whoever suspended the plan ends that: kubectl patch rplan {plan} -n {namespace} --type=merge -p '{\"spec\":{\"suspend\":false}}', \
         and in Git if the plan comes from there",
    ),
    (
        Reason::Panicked,
        "a platform engineer reports this bug of the operator with its log (kubectl logs -n resurgam-system deployment/resurgam). It is tried \
         again every 10 s",
    ),
    // Problems of a plan.
    (
        Reason::UnknownService,
        "a platform engineer corrects the dependency in the plan, or adds the service that is missing",
    ),
    (
        Reason::Cycle,
        "a platform engineer removes one dependency of the cycle from the plan, or lists its services under together",
    ),
    (Reason::TierMissing, "a platform engineer gives {service} a tier in the plan"),
    (
        Reason::GroupTiersDiffer,
        "a platform engineer gives all services of the group the same tier in the plan",
    ),
    (
        Reason::ReplacesRecovered,
        "a platform engineer removes the namespace from replaces of {service}, or from the service that recovers it, in the plan",
    ),
    (Reason::NamespaceShared, "a platform engineer leaves the namespace to one service of the plan"),
    (
        Reason::ProtectedNamespace,
        "a platform engineer removes the namespace from the plan: it is never isolated",
    ),
    (Reason::DuplicateService, "a platform engineer renames one of the services in the plan"),
    (Reason::DuplicateGate, "a platform engineer renames one of the gates in the plan"),
    (Reason::UnknownGate, "a platform engineer corrects omitDefaultGates of {service} in the plan"),
    (Reason::DuplicateStep, "a platform engineer renames one of the steps in the plan"),
    (
        Reason::DuplicateResume,
        "a platform engineer removes one of the two entries under resume from the plan",
    ),
    (Reason::ResumeElsewhere, "a platform engineer corrects the namespace under resume in the plan"),
    (Reason::MalformedGate, "a platform engineer corrects the gate in the plan: exactly one type"),
    (Reason::MalformedStep, "a platform engineer corrects the step in the plan: exactly one action"),
    (
        Reason::MalformedResume,
        "a platform engineer corrects the entry under resume in the plan: exactly one object",
    ),
    (
        Reason::Ungated,
        "a platform engineer adds the gate that is missing to the plan, or says under ungated why there is none",
    ),
    (
        Reason::TagsNotProved,
        "a platform engineer adds an imageDigests gate before release to the plan, or pins the images by digest",
    ),
    (
        Reason::NothingToRestore,
        "a platform engineer removes the steps of {service} from the plan, or gives it a namespace",
    ),
];

/// What to do about a reason without a row: one of a newer version, or one that is not expected to last.
const OTHERWISE: &str =
    "a recovery lead reads the whole record: kubectl describe srec {plan}.{service} -n {namespace}";

/// What a remedy is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// Namespace of the plan.
    pub namespace: &'a str,
    /// Name of the plan.
    pub plan: &'a str,
    /// Name of the service.
    pub service: &'a str,
    /// Person or team that can clear the service's blockers.
    pub owner: Option<&'a str>,
    /// What blocks: a namespace, a gate, a step, an account.
    pub culprit: &'a str,
    /// What is wrong with it.
    pub message: &'a str,
}

impl Subject<'_> {
    /// Returns who clears this reason, and how. `actions`: those that a Decision may have.
    pub fn next_action(&self, reason: Reason, actions: &[Action]) -> String {
        let row = TABLE.iter().find(|(of, _)| *of == reason).map_or(OTHERWISE, |(_, text)| text);
        let mut text = self.fill(row);
        for action in actions {
            if !text.contains(&self.decision(*action)) {
                text = format!("{text}; or a recovery lead decides: {}", self.decision(*action));
            }
        }
        text
    }

    /// Returns who clears the block of this culprit.
    pub fn next_action_about(&self, culprit: &Culprit) -> String {
        format!("{}, and it goes on by itself", mender(culprit))
    }

    fn fill(&self, row: &str) -> String {
        let mut parts = row.split('{');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.split_once('}').and_then(|(name, rest)| Some((self.value(name)?, rest))) {
                Some((value, rest)) => text.extend([value.as_str(), rest]),
                None => text.extend(["{", part]),
            }
        }
        text
    }

    fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "owner" => self.owner.unwrap_or("the service's owner").to_owned(),
            "service" => self.service.to_owned(),
            "plan" => self.plan.to_owned(),
            "namespace" => self.namespace.to_owned(),
            "culprit" => self.culprit.to_owned(),
            "mender" => repeated_culprit(self.message)
                .map_or_else(|| "whoever runs what the message names repairs it".to_owned(), |c| mender(&c)),
            name => self.decision(*Action::all().iter().find(|action| action.as_str() == name)?),
        })
    }

    /// Returns the command that makes a Decision, with the right that it needs.
    fn decision(&self, action: Action) -> String {
        let Self { plan, namespace, service, .. } = self;
        let verb = action.verb();
        format!(
            "resurgam decide {service} {verb} --reason TEXT -n {namespace} (verb {verb} on recoveryplans/{plan})"
        )
    }

    /// Returns what is wrong, with the culprit's name before a message that does not begin with it.
    pub fn problem(&self) -> String {
        let Self { culprit, message, service, .. } = self;
        let is_named = culprit.is_empty()
            || culprit == service
            || message.starts_with(culprit)
            || message.contains(&format!(" {culprit} "));
        match (message.is_empty(), is_named) {
            (true, _) => (*culprit).to_owned(),
            (false, true) => (*message).to_owned(),
            (false, false) => format!("{culprit}: {message}"),
        }
    }
}

/// Returns who repairs what a culprit denies, and how.
fn mender(culprit: &Culprit) -> String {
    match culprit {
        Culprit::Webhook(name) => format!(
            "the administrator of webhook {name} repairs it, or a recovery lead removes it (kubectl get \
             validatingwebhookconfigurations,mutatingwebhookconfigurations)"
        ),
        Culprit::Quota(name) => {
            format!(
                "a recovery lead raises ResourceQuota {name}, which leaves no room (kubectl get resourcequotas -A)"
            )
        }
        Culprit::Policy(name) => format!(
            "the author of ValidatingAdmissionPolicy {name} adds an exemption (kubectl get validatingadmissionpolicy {name} -o yaml)"
        ),
        Culprit::Rights => "a cluster administrator grants the right that the message names".to_owned(),
        Culprit::ApiServer => "whoever runs what the message names repairs it".to_owned(),
    }
}

/// Returns the reasons with a row.
#[cfg(test)]
pub(super) fn reasons() -> impl Iterator<Item = Reason> {
    TABLE.iter().map(|(reason, _)| *reason)
}

/// Returns a problem and what to do about it, as one line. `limit`: bytes of the problem.
pub(super) fn sentence(problem: &str, next: &str, limit: usize) -> String {
    let problem = shorten(problem, limit);
    let end = if problem.ends_with(['.', '…', '!', '?']) || problem.is_empty() { "" } else { "." };
    format!("{problem}{end} Next: {next}")
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    /// States, and reasons that clear without a person.
    const NO_PERSON: [Reason; 23] = [
        Reason::WaitingForDependencies,
        Reason::AccountUnknown,
        Reason::Dormant,
        Reason::Progressing,
        Reason::NeedsDecision,
        Reason::NotNeeded,
        Reason::Unhealthy,
        Reason::Recovered,
        Reason::WithExceptions,
        Reason::NotRecovered,
        Reason::GatesPass,
        Reason::NotAsked,
        Reason::Stabilising,
        Reason::Stale,
        Reason::NotInPlan,
        Reason::PlanReplaced,
        Reason::Aborted,
        Reason::Contained,
        Reason::Other,
        Reason::GateFailing,
        // The message of `Prepared` names each gap.
        Reason::Prepared,
        Reason::NotPrepared,
        Reason::PreparationUnknown,
    ];

    fn has_row(reason: Reason) -> bool {
        TABLE.iter().any(|(of, _)| *of == reason)
    }

    #[test]
    fn every_reason_that_a_person_clears_says_what_to_do_next() {
        let clears = |reason: &Reason| reason.clears_by_itself() || NO_PERSON.contains(reason);
        let missing: Vec<_> =
            Reason::VARIANTS.iter().filter(|reason| !has_row(**reason) && !clears(reason)).collect();
        assert!(missing.is_empty(), "src/status/remedies.rs has no row for {missing:?}");
        let needless: Vec<_> = NO_PERSON.into_iter().filter(|reason| has_row(*reason)).collect();
        assert!(needless.is_empty(), "a row for what clears by itself: {needless:?}");
        let twice = TABLE.iter().filter(|(of, _)| TABLE.iter().filter(|(it, _)| it == of).count() > 1);
        assert_eq!(twice.count(), 0);
    }

    fn subject<'a>(culprit: &'a str, message: &'a str) -> Subject<'a> {
        Subject { namespace: "recovery", plan: "p", service: "web", owner: None, culprit, message }
    }

    #[test]
    fn braces_of_commands_stay_and_names_are_no_placeholders() {
        let text = subject("{Retry}", "").next_action(Reason::Held, &[]);
        assert!(text.contains("quarantine {Retry} --type=merge -p '{\"spec\":{\"hold\":null}}'"), "{text}");
    }

    #[test]
    fn an_action_that_is_offered_is_always_named() {
        let text = subject("x", "").next_action(Reason::Held, &[Action::Override]);
        assert!(text.ends_with(
            "resurgam decide web override --reason TEXT -n recovery (verb override on recoveryplans/p)"
        ));
        let text = subject("x", "").next_action(Reason::GateFailed, &[Action::Retry]);
        assert_eq!(text.matches("decide web retry").count(), 1, "{text}");
        assert!(
            subject("x", "")
                .next_action(Reason::Other, &[])
                .contains("kubectl describe srec p.web -n recovery")
        );
    }

    #[test]
    fn a_problem_names_its_culprit_once() {
        for (culprit, message, problem) in [
            ("up", "0 of 1 updated", "up: 0 of 1 updated"),
            ("shop", "namespace shop is held at Sealed", "namespace shop is held at Sealed"),
            ("Deployment shop/api", "Deployment shop/api: paused", "Deployment shop/api: paused"),
            ("web", "the plan requires less", "the plan requires less"),
            ("resume", "", "resume"),
        ] {
            assert_eq!(subject(culprit, message).problem(), problem);
        }
    }
}
