//! Each case that asks a person is one line that says what to do next.

use super::*;
use crate::status::remedies;

/// The service, its owner, the reason, the culprit, and the message as the operator writes it.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// Questions, and the actions of the Decisions that answer them.
const QUESTIONS: &[(Case, &[&str])] = &[
    (
        (
            "integration",
            "Integration team, ext. 2210",
            "GateFailed",
            "images",
            "Deployment shared-integration/message-hub: image registry.example/message-hub@sha256:54e2… is not on the approved list",
        ),
        &["Retry", "AcceptException"],
    ),
    (
        (
            "housing",
            "",
            "StepFailed",
            "restore",
            "Job housing/restore-1 failed: BackoffLimitExceeded: pod restore-1-x7k2p exited with 3",
        ),
        &["Retry", "Skip"],
    ),
    (
        (
            "parking",
            "",
            "StepDenied",
            "start",
            "patch Deployment parking/web: deployments.apps \"web\" is forbidden: User \"system:serviceaccount:recovery:recovery\" cannot patch \
          resource \"deployments/scale\" in API group \"apps\" in the namespace \"parking\". It has failed since 2025-11-24T08:00:00Z, and is tried \
          again",
        ),
        &["Retry", "Skip"],
    ),
    (
        (
            "meshed-app",
            "",
            "DeadlineExceeded",
            "start",
            "Deployment meshed-app/app: Internal error occurred: failed calling webhook \"injector.mesh.example\": no endpoints available for \
          service \"injector\". It has failed since 2025-11-24T08:00:00Z, and is tried again",
        ),
        &["Retry"],
    ),
    (
        (
            "library",
            "",
            "DeadlineExceeded",
            "library-db",
            "its Quarantine is not ready: pods have yet to end: library-db/postgres-0",
        ),
        &["Retry"],
    ),
    (
        (
            "billing",
            "Finance systems",
            "RolloutNotRestorable",
            "Deployment billing/api",
            "Deployment billing/api: paused with 3 pods of revision 41; revision 42 starts. Kubernetes starts the specified revision. Override \
          accepts that, as an exception; or specify the revision that served and Retry",
        ),
        &["Retry", "Override"],
    ),
    (
        (
            "identity",
            "Identity team",
            "Regressed",
            "up",
            "up: Deployment identity/keycloak: 0 of 2 ready (CrashLoopBackOff: pod keycloak-5d9c-x2x1k); Deployment identity/ldap: 0 of 1 ready",
        ),
        &["Retry", "AcceptException"],
    ),
    (
        (
            "adult-care",
            "",
            "GateUnknown",
            "answers",
            "http://care.adult-care.svc:8080/health: no answer within 10 s",
        ),
        &["Retry"],
    ),
    (
        (
            "portal",
            "",
            "Held",
            "r03-portal",
            "namespace r03-portal is held at Sealed: who may release quarantines/r03-portal ends that by taking spec.hold away",
        ),
        &[],
    ),
    (
        (
            "payroll",
            "",
            "IsolatedAgain",
            "payroll",
            "namespace payroll was held while this attempt was under way: retry brings it back through its gates",
        ),
        &["Retry"],
    ),
    (
        (
            "licensing",
            "",
            "AlreadyOpen",
            "licensing",
            "namespace licensing is open already: retry seals it and brings it back through its gates",
        ),
        &["Retry"],
    ),
    (
        (
            "registry",
            "",
            "ClaimLost",
            "registry",
            "namespace registry is no longer claimed for this attempt: a retry claims it again",
        ),
        &["Retry"],
    ),
    (
        (
            "shared-web",
            "",
            "ControlNotEnforced",
            "shared-web/Network",
            "tried on 3 of 3 nodes, and node-2 lets traffic through. Override goes on without that control, as an exception",
        ),
        &["Override"],
    ),
    (
        (
            "databases",
            "",
            "Loosened",
            "databases",
            "the plan requires less than was last accepted: gate images (beforeRestore) is gone. AcceptLoosening takes the verb acceptloosening on \
          recoveryplans/three-boroughs in namespace recovery; or put it back in the plan",
        ),
        &["AcceptLoosening"],
    ),
    (
        (
            "backup-agent",
            "",
            "HostAccess",
            "backup-agent",
            "DaemonSet backup-agent/agent: hostPath /var/lib: Pod Security baseline forbids it. Mend it and Retry, or list cleanRoom.hostAccess in \
          the plan and accept that",
        ),
        &["Retry"],
    ),
    (
        (
            "housing",
            "",
            "StepOverrunning",
            "load",
            "it runs since 2025-11-24T08:00:00Z, longer than its timeout of 2h, and is not started again: Job step-load-1-5d3c: 1 of its pods runs",
        ),
        &["Skip"],
    ),
    (
        (
            "social-care",
            "",
            "ApprovalNeeded",
            "councils",
            "approved by ana (Decision social-care-approve-1); still needs 1 of party wcc (group wcc-leads)",
        ),
        &["Approve", "Reject", "Retry"],
    ),
    (
        (
            "parking",
            "",
            "OnHold",
            "parking",
            "on hold by jo since 2025-11-24T08:00:00Z (Decision parking-hold-1): the supplier is still inside",
        ),
        &["Unhold"],
    ),
    (
        (
            "databases",
            "",
            "Superseded",
            "databases",
            "compromisedSince is now 2025-10-01T00:00:00Z, and what was proved of it was proved for 2025-11-01T00:00:00Z",
        ),
        &["Retry", "AcceptException"],
    ),
    (
        ("planning", "", "StepsChanged", "planning", "the plan's steps changed while they were carried out"),
        &["Retry"],
    ),
];

/// Blockers that a person has to clear, and that no Decision does.
const BLOCKERS: &[Case] = &[
    (
        "adult-care",
        "",
        "Unreadable",
        "adult-care",
        "this version cannot read its ServiceRecovery: unknown variant Buried",
    ),
    (
        "housing",
        "",
        "QuarantineNotGranted",
        "housing",
        "system:serviceaccount:recovery:recovery may not create Quarantine housing",
    ),
    (
        "parking",
        "",
        "QuarantineReleased",
        "parking",
        "the Quarantine of namespace parking was deleted, and the plan makes none again",
    ),
    (
        "library",
        "",
        "QuarantineMissing",
        "library-web",
        "namespace library-web has no Quarantine, so nothing is recovered there",
    ),
    (
        "meshed-app",
        "",
        "QuarantineNotReady",
        "meshed-app",
        "label namespace meshed-app: admission webhook \"labels.policy.example\" denied the request: no",
    ),
    (
        "meshed-app",
        "",
        "Isolation",
        "meshed-app",
        "meshed-app is on its way to CleanRoom: pods \"web-0\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=4, limited: pods=4",
    ),
    (
        "payroll",
        "",
        "StepPending",
        "start",
        "patch Deployment payroll/web: ValidatingAdmissionPolicy 'require-team' with binding 'require-team' denied request: no team",
    ),
    (
        "billing",
        "",
        "ClaimedByAnother",
        "billing",
        "namespace billing is claimed by recovery/old-plan/billing: two plans cannot both recover it",
    ),
    (
        "identity",
        "",
        "RecoverNotGranted",
        "identity",
        "system:serviceaccount:recovery:recovery lacks recover on quarantines/identity by that name",
    ),
    (
        "shop",
        "",
        "VeleroNotGranted",
        "shop",
        "system:serviceaccount:velero:velero may not 'recover' quarantines.resurgam.dev/shop-new, so the fence refuses what it restores",
    ),
    (
        "shop",
        "",
        "WildcardHolder",
        "shop",
        "system:serviceaccount:velero:velero holds every verb on quarantines/shop-new by a wildcard, which is no grant",
    ),
    (
        "portal",
        "",
        "Refused",
        "portal",
        "create ServiceRecovery recovery/p.portal: servicerecoveries.resurgam.dev is forbidden: User \"resurgam\" cannot create",
    ),
    ("databases", "", "IncidentMissing", "nov-2025", "there is no Incident named nov-2025"),
    (
        "databases",
        "",
        "IncidentUnknown",
        "nov-2025",
        "this version cannot read Incident nov-2025: compromisedSince is no time",
    ),
    (
        "databases",
        "",
        "ServiceAccountMissing",
        "recovery",
        "there is no ServiceAccount recovery in namespace recovery",
    ),
    (
        "databases",
        "",
        "ServiceAccountUnknown",
        "recovery",
        "get ServiceAccount recovery/recovery: no answer within 15 s",
    ),
    ("databases", "", "Suspended", "three-boroughs", "the plan is suspended: it starts nothing new"),
    ("databases", "", "Panicked", "databases", "the operator panicked: index out of bounds"),
    (
        "web",
        "",
        "UnknownService",
        "databse",
        "web depends on databse, which the plan does not have. Did you mean database?",
    ),
    ("web", "", "Cycle", "db", "web → db → web: dropping web → db breaks it"),
    ("web", "", "TierMissing", "web", "web has no tier, which order: Tiers needs"),
    ("web", "", "GroupTiersDiffer", "web", "web is of tier 2, and db of its group of tier 1"),
    (
        "web",
        "",
        "OriginalNotIsolated",
        "web",
        "namespace web, the original that it is rebuilt beside, is not isolated: on-call staff isolate it",
    ),
    (
        "web",
        "",
        "NamespaceNotGranted",
        "web",
        "system:serviceaccount:recovery:recovery may not create namespace web-rebuilt",
    ),
    (
        "web",
        "",
        "ReplacesRecovered",
        "db",
        "web is to be rebuilt beside namespace db, which a service of the plan recovers",
    ),
    ("web", "", "NamespaceShared", "shop", "namespace shop belongs to web and to db"),
    ("web", "", "ProtectedNamespace", "kube-system", "namespace kube-system is never isolated"),
    ("web", "", "DuplicateService", "web", "two services are named web"),
    ("web", "", "DuplicateGate", "up", "two gates before release are named up"),
    ("web", "", "UnknownGate", "uo", "web leaves out the default gate uo, which the plan does not have"),
    ("web", "", "DuplicateStep", "start", "two steps are named start"),
    ("web", "", "DuplicateResume", "nightly", "web is to resume nightly twice"),
    (
        "web",
        "",
        "ResumeElsewhere",
        "nightly",
        "web is to resume nightly in namespace other, which it does not have",
    ),
    ("web", "", "MalformedGate", "up", "gate up sets workloads and http: exactly one"),
    ("web", "", "MalformedStep", "start", "step start sets no action: exactly one"),
    ("web", "", "MalformedResume", "web", "an entry under resume names no object"),
    ("web", "", "Ungated", "web", "web has no gate before restore"),
    (
        "web",
        "",
        "TagsNotProved",
        "images",
        "gate images lets tags pass before restore, and no imageDigests gate before release proves them",
    ),
    ("web", "", "NothingToRestore", "web", "web has steps and no namespace"),
];

/// The page's lines about one service.
fn lines(case: &Case, actions: Option<&[&str]>) -> Vec<String> {
    let (service, owner, reason, culprit, message) = case;
    let mut plan = plan();
    plan.spec.services[0].name = (*service).to_owned();
    plan.spec.services[0].owner = Some((*owner).to_owned()).filter(|owner| !owner.is_empty());
    let counts = plan.status.as_mut().unwrap();
    (counts.needs_decision, counts.blocked_by, counts.conditions) = (0, Vec::new(), Vec::new());
    let mut status = json!({
        "stage": "PreChecks", "isolation": "Sealed",
        "blockedBy": [{"reason": reason, "name": culprit, "message": message}],
    });
    if let Some(actions) = actions {
        let digest = format!("sha256:{}", "0a".repeat(32));
        status["decision"] =
            json!({"reason": reason, "digest": digest, "actions": actions, "since": at(60).to_string()});
    }
    let view = View::from_objects(&[plan], &[record(service, 1, &status)], Ok(&[]), Some(&lease(85)), at(90));
    let asks =
        if actions.is_some() { view.plans[0].services[0].decision.is_some() } else { view.needs_a_person() };
    assert!(asks, "{reason}");
    page(&view, 90).lines().filter(|line| line.contains(" Next: ")).map(str::to_owned).collect()
}

#[test]
fn one_line_says_what_to_do_next_in_each_case_that_asks_a_person() {
    let questions = QUESTIONS.iter().map(|(case, actions)| (case, lines(case, Some(actions)), *actions));
    let blockers = BLOCKERS.iter().map(|case| (case, lines(case, None), &[][..]));
    let all: Vec<_> = questions.chain(blockers).collect();
    for ((service, owner, reason, culprit, _), lines, actions) in &all {
        let [line] = lines.as_slice() else { panic!("{reason}: {lines:?}") };
        for part in [service, owner, reason, culprit] {
            assert!(line.contains(part), "{reason}: {part} is missing: {line}");
        }
        for action in *actions {
            let verb = action.to_lowercase();
            assert!(line.contains(&format!("resurgam decide {service} {verb} ")), "{reason}: {line}");
        }
    }
    let unasked: Vec<_> = remedies::reasons()
        .filter(|reason| !all.iter().any(|((_, _, name, ..), ..)| *name == reason.as_str()))
        .collect();
    assert!(unasked.is_empty(), "no case shows the line of {unasked:?}");
    let text: Vec<&str> = all.iter().flat_map(|(_, lines, _)| lines.iter().map(String::as_str)).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

#[test]
fn services_with_the_same_block_share_a_line() {
    let mut plan = plan();
    let counts = plan.status.as_mut().unwrap();
    counts.conditions.clear();
    let status = json!({
        "stage": "Isolated",
        "blockedBy": [{"reason": "IncidentMissing", "name": "nov-2025", "message": "there is no Incident named nov-2025"}],
    });
    let records: Vec<_> = ["a", "b", "c", "d"].map(|name| record(name, 1, &status)).into();
    let view = View::from_objects(&[plan], &records, Ok(&[]), Some(&lease(85)), at(90));
    let page = page(&view, 90);
    assert_eq!(
        page.matches("IncidentMissing: nov").count() + page.matches("IncidentMissing: there").count(),
        1,
        "{page}"
    );
    assert!(page.contains("a, b and 2 more services are held up: "), "{page}");
}
