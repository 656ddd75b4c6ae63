use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::api::service_recovery::{HoldStatus, Isolating, PlanRef, ServiceRecoverySpec, StandingOrders};
use crate::api::{
    DnsLabel, QuarantineLevel, QuarantineSpec, QuarantineStatus, Reason, ServiceRecoveryStatus,
};
use Isolation::{CleanRoom, Contained, Open, Sealed};

fn quarantine(own: QuarantineLevel, enforced: Option<Isolation>, ready: bool, claimed: bool) -> Quarantine {
    let spec = QuarantineSpec { isolation: own, reason: "breach".into(), ..Default::default() };
    let mut quarantine = Quarantine::new("library", spec);
    let mut status = QuarantineStatus { isolation: enforced, ..QuarantineStatus::default() };
    conditions::set(
        &mut status.conditions,
        conditions::READY,
        ready.into(),
        "X",
        "",
        None,
        Timestamp::UNIX_EPOCH,
    );
    status.claimed_by = claimed.then(|| Claim {
        plan_uid: "plan-1".into(),
        plan_namespace: "recovery".into(),
        plan: "council".into(),
        service: "library".into(),
        attempt: 2,
        display: String::new(),
    });
    quarantine.status = Some(status);
    quarantine
}

fn recovery(asked: Option<Isolation>) -> ServiceRecovery {
    ServiceRecovery::new(
        "council.library",
        ServiceRecoverySpec {
            plan_ref: PlanRef { name: "council".into(), uid: "plan-1".into() },
            service: "library".into(),
            tier: None,
            namespaces: vec![DnsLabel("library".into())],
            attempt: 2,
            isolation: asked,
            reachable: vec![DnsLabel("shared-dns".into())],
            allow_egress: vec![ClusterService::Dns],
            allow_egress_to: Vec::new(),
            pod_security: crate::api::PodSecurity::Baseline,
            accepted: Vec::new(),
        },
    )
}

const LEVELS: [Option<Isolation>; 5] = [None, Some(Sealed), Some(Contained), Some(CleanRoom), Some(Open)];
const OWN: [QuarantineLevel; 2] = [QuarantineLevel::Contained, QuarantineLevel::Sealed];

/// The other tests here ask it what loosens.
#[test]
fn to_loosen_is_to_go_up_from_what_is_enforced() {
    for (number, enforced) in LEVELS.into_iter().enumerate() {
        for (other, level) in LEVELS.into_iter().enumerate() {
            let Some(level) = level else { continue };
            assert_eq!(loosens(enforced, level), number > 0 && other > number, "{enforced:?} to {level:?}");
        }
    }
}

#[test]
fn granted_level_is_kept_while_the_plan_waits_or_is_gone() {
    for (own, level) in OWN.into_iter().flat_map(|own| [(own, CleanRoom), (own, Open)]) {
        for plan in [PlanState::Gone, PlanState::Refuses, PlanState::Unknown] {
            let got = target(&quarantine(own, Some(level), true, true), Some(&recovery(Some(level))), plan);
            assert_eq!((got.level, got.held), (level, None), "{plan:?}");
            assert_eq!(got.reachable, ["shared-dns"]);
            // Nothing is enforced yet, and no more is asked for than its spec gives.
            let first = target(&quarantine(own, None, false, true), Some(&recovery(Some(own.into()))), plan);
            assert_eq!((first.level, first.held), (own.into(), None), "{plan:?}");
        }
    }
}

#[test]
fn claimant_is_named_by_display_or_plan_and_service() {
    for (display, shown) in [("", "recovery/council/library"), ("the library", "the library")] {
        let mut q = quarantine(QuarantineLevel::Sealed, Some(Sealed), false, true);
        if let Some(claim) = q.status.as_mut().unwrap().claimed_by.as_mut() {
            display.clone_into(&mut claim.display);
        }
        let held = target(&q, Some(&recovery(Some(Open))), PlanState::Allows).held.unwrap();
        assert!(held.starts_with(&format!("{shown} asks for Open")), "{held}");
    }
}

#[test]
fn requested_levels_are_granted_in_a_safe_order() {
    // (spec, enforced, ready, asked) → enforced next
    let (c, s) = (QuarantineLevel::Contained, QuarantineLevel::Sealed);
    for (own, enforced, ready, asked, expected) in [
        (c, Some(Contained), true, None, Contained),
        (c, Some(Contained), true, Some(Sealed), Sealed),
        (c, Some(Contained), true, Some(CleanRoom), Sealed),
        (c, Some(Sealed), false, Some(CleanRoom), Sealed),
        (c, Some(Sealed), true, Some(CleanRoom), CleanRoom),
        (s, Some(Sealed), true, Some(CleanRoom), CleanRoom),
        (c, Some(CleanRoom), true, Some(CleanRoom), CleanRoom),
        (c, Some(CleanRoom), false, Some(Open), CleanRoom),
        (c, Some(CleanRoom), true, Some(Open), Open),
        (s, Some(Sealed), true, Some(Open), Sealed),
        (c, Some(Contained), true, Some(Open), Contained),
        (c, None, false, Some(Open), Contained),
        (s, None, false, Some(Contained), Sealed),
        // The next attempt: what is let in stays until Sealed is asked for; what is sealed stays sealed.
        (c, Some(CleanRoom), true, None, CleanRoom),
        (c, Some(CleanRoom), true, Some(Sealed), Sealed),
        (c, Some(Open), true, Some(Contained), Contained),
        (c, Some(Sealed), true, None, Sealed),
        (c, Some(Sealed), true, Some(Contained), Sealed),
        // Somebody tightens the spec of what is claimed.
        (s, Some(Contained), true, None, Sealed),
        (s, Some(CleanRoom), true, None, CleanRoom),
        (s, Some(Open), true, Some(Open), Open),
    ] {
        let got = target(&quarantine(own, enforced, ready, true), Some(&recovery(asked)), PlanState::Allows);
        assert_eq!(
            got.level, expected,
            "spec {own:?}, enforced {enforced:?}, ready {ready}, asked {asked:?}"
        );
        if asked.is_some_and(|asked| asked != expected) {
            assert!(got.held.is_some() || expected < asked.unwrap(), "the claimant is told why");
        }
    }
}

#[test]
fn only_a_new_quarantine_is_listed_before_any_read() {
    let new = |own| quarantine(own, None, false, false);
    let held = || {
        let mut held = new(QuarantineLevel::Contained);
        held.spec.hold = Some(QuarantineLevel::Sealed);
        held
    };
    let named = |name: &str| {
        let mut named = new(QuarantineLevel::Sealed);
        named.metadata.name = Some(name.to_owned());
        named
    };
    let ending = || {
        let mut ending = new(QuarantineLevel::Sealed);
        ending.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        ending
    };
    for (what, quarantine, expected) in [
        ("new", new(QuarantineLevel::Sealed), Some(Sealed)),
        ("new, to be contained", new(QuarantineLevel::Contained), Some(Contained)),
        ("held more tightly", held(), Some(Sealed)),
        ("claimed", self::quarantine(QuarantineLevel::Sealed, None, false, true), None),
        ("let out before", self::quarantine(QuarantineLevel::Sealed, Some(Open), true, false), None),
        ("enforced before", self::quarantine(QuarantineLevel::Sealed, Some(Sealed), true, false), None),
        ("of the operator's own namespace", named("resurgam-system"), None),
        ("on its way out", ending(), None),
    ] {
        assert_eq!(at_once(&quarantine), expected, "{what}");
    }
}

#[test]
fn mismatched_claim_changes_no_level() {
    let good = || recovery(Some(Open));
    let mut deleted = good();
    deleted.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    let mut other_plan = good();
    other_plan.spec.plan_ref.uid = "plan-2".into();
    let mut other_attempt = good();
    other_attempt.spec.attempt = 1;
    let mut other_service = good();
    other_service.spec.service = "museum".into();
    let mut elsewhere = good();
    elsewhere.spec.namespaces = vec![DnsLabel("museum".into())];
    for (name, recovery) in [
        ("missing", None),
        ("deleted", Some(deleted)),
        ("of another plan", Some(other_plan)),
        ("of another attempt", Some(other_attempt)),
        ("of another service", Some(other_service)),
        ("of another namespace", Some(elsewhere)),
    ] {
        for (own, enforced) in OWN.into_iter().flat_map(|own| LEVELS.map(|level| (own, level))) {
            let got = target(&quarantine(own, enforced, true, true), recovery.as_ref(), PlanState::Allows);
            assert!(got.held.is_some(), "{name}");
            assert!(!loosens(enforced, got.level), "{name}: {enforced:?} became {:?}", got.level);
            if let Some(level @ (CleanRoom | Open)) = enforced {
                assert_eq!(got.level, level, "{name}");
            }
        }
    }
}

#[test]
fn nothing_is_loosened_without_plan_or_healthy_dependencies() {
    for (own, enforced) in OWN.into_iter().flat_map(|own| LEVELS.map(|level| (own, level))) {
        for asked in LEVELS {
            let q = quarantine(own, enforced, true, true);
            for plan in [PlanState::Gone, PlanState::Refuses, PlanState::Unknown] {
                let got = target(&q, Some(&recovery(asked)), plan);
                assert!(
                    !loosens(enforced, got.level),
                    "{enforced:?}, asked {asked:?}, became {:?}",
                    got.level
                );
            }
        }
    }
}

/// A request of before stands in the spec, and is on its way, when a person stops the service.
#[test]
fn stopped_service_gets_nothing_looser() {
    let hold = HoldStatus {
        by: "wren".into(),
        decision: "d1".into(),
        reason: "wait".into(),
        since: Time(Timestamp::UNIX_EPOCH),
    };
    let isolating = Isolating {
        level: Sealed,
        reason: Reason::Aborted,
        message: String::new(),
        since: Time(Timestamp::UNIX_EPOCH),
    };
    let goes_on = ServiceRecoveryStatus { attempt: 2, ..Default::default() };
    let orders = StandingOrders { hold: Some(hold), ..Default::default() };
    let stops = [
        ("attempt 2 has ended", ServiceRecoveryStatus { attempt: 3, ..goes_on.clone() }),
        (
            "it is being isolated again",
            ServiceRecoveryStatus { isolating: Some(isolating), ..goes_on.clone() },
        ),
        (
            "on hold by wren (Decision d1)",
            ServiceRecoveryStatus { standing_orders: Some(orders), ..goes_on.clone() },
        ),
    ];
    for (enforced, asked) in [(Sealed, CleanRoom), (CleanRoom, Open)] {
        let q = quarantine(QuarantineLevel::Contained, Some(enforced), true, true);
        let mut recovery = recovery(Some(asked));
        recovery.status = Some(goes_on.clone());
        assert_eq!(target(&q, Some(&recovery), PlanState::Allows).level, asked);
        for (why, status) in stops.clone() {
            recovery.status = Some(status);
            let got = target(&q, Some(&recovery), PlanState::Allows);
            assert_eq!(got.level, enforced, "{why}");
            assert!(got.held.as_ref().is_some_and(|held| held.contains(why)), "{why}: {:?}", got.held);
            // It can still be tightened.
            recovery.spec.isolation = Some(Sealed);
            assert_eq!(target(&q, Some(&recovery), PlanState::Gone).level, Sealed, "{why}");
            recovery.spec.isolation = Some(asked);
        }
    }
}

#[test]
fn hold_overrides_every_request_and_never_loosens() {
    for (own, enforced) in OWN.into_iter().flat_map(|own| LEVELS.map(|level| (own, level))) {
        for (hold, asked) in OWN.into_iter().flat_map(|hold| LEVELS.map(|asked| (hold, asked))) {
            for claimed in [true, false] {
                let mut q = quarantine(own, enforced, true, claimed);
                q.spec.hold = Some(hold);
                let got = target(&q, Some(&recovery(asked)), PlanState::Allows);
                let case = format!("spec {own:?}, enforced {enforced:?}, hold {hold:?}, asked {asked:?}");
                let expected = if enforced == Some(Sealed) { Sealed } else { hold.into() };
                assert_eq!(got.level, expected, "{case}");
                assert!(!loosens(enforced, got.level), "{case}");
                assert!(got.held.unwrap().contains("release quarantines/library"), "{case}");
                let let_in = |level: Option<Isolation>| matches!(level, Some(CleanRoom | Open));
                assert_eq!(got.overrules, claimed && (let_in(enforced) || let_in(asked)), "{case}");
            }
        }
    }
}

#[test]
fn overruled_attempt_gets_nothing_looser_after_the_hold() {
    for enforced in [Contained, Sealed] {
        for asked in LEVELS {
            let mut q = quarantine(QuarantineLevel::Contained, Some(enforced), true, true);
            let status = q.status.as_mut().unwrap();
            status.overruled = status.claimed_by.clone();
            let got = target(&q, Some(&recovery(asked)), PlanState::Allows);
            assert_eq!((got.level, got.held.is_some()), (enforced, true), "asked {asked:?}");
        }
    }
    // The next attempt comes by its proper way.
    let mut q = quarantine(QuarantineLevel::Contained, Some(Sealed), true, true);
    let status = q.status.as_mut().unwrap();
    status.overruled = status.claimed_by.clone().map(|claim| Claim { attempt: 1, ..claim });
    assert_eq!(target(&q, Some(&recovery(Some(CleanRoom))), PlanState::Allows).level, CleanRoom);
}

#[test]
fn unclaimed_it_is_as_its_spec_says_but_what_recovered_stays_so() {
    for (own, enforced, expected) in [
        (QuarantineLevel::Contained, None, Contained),
        (QuarantineLevel::Sealed, None, Sealed),
        (QuarantineLevel::Sealed, Some(Contained), Sealed),
        (QuarantineLevel::Contained, Some(Sealed), Contained),
        (QuarantineLevel::Sealed, Some(CleanRoom), CleanRoom),
        (QuarantineLevel::Sealed, Some(Open), Open),
    ] {
        assert_eq!(target(&quarantine(own, enforced, true, false), None, PlanState::Gone).level, expected);
    }
}

#[test]
fn no_pod_goes_before_fence_network_and_capture_are_done() {
    for bits in 0..=255_u8 {
        let bit = |n: u8| bits & (1 << n) != 0;
        let found = ControlsInPlace {
            labelled: bit(0),
            fenced: bit(1),
            network: bit(2),
            captured: bit(3),
            stopped: bit(4),
            empty: bit(5),
            renewed: bit(6),
            listed: bit(7),
        };
        let next = next_action(Sealed, found);
        if matches!(next, NextAction::Stop | NextAction::AwaitPods | NextAction::Identity | NextAction::Done)
        {
            assert!(found.labelled && found.fenced && found.network && found.captured);
        }
        if next == NextAction::Identity {
            assert!(found.empty, "a pod that lives still would be left without its token");
        }
        if next == NextAction::Done {
            assert!(found.stopped && found.empty && found.renewed);
        }
    }
}

#[test]
fn the_label_lets_in_or_out_only_once_the_network_is_ready() {
    let found = ControlsInPlace { network: false, ..ControlsInPlace::default() };
    assert_eq!(next_action(CleanRoom, found), NextAction::Network);
    assert_eq!(next_action(Open, found), NextAction::Network);
    assert_eq!(next_action(Open, ControlsInPlace { network: true, ..found }), NextAction::Label);
    assert_eq!(next_action(Contained, found), NextAction::List);
    assert_eq!(next_action(Contained, ControlsInPlace { listed: true, ..found }), NextAction::Network);
    assert_eq!(
        next_action(Contained, ControlsInPlace { listed: true, network: true, ..found }),
        NextAction::Label
    );
}

#[test]
fn evidence_is_taken_once_for_each_sealing() {
    let with = |enforced, kept: bool| {
        let mut q = quarantine(QuarantineLevel::Contained, enforced, true, true);
        q.status.as_mut().unwrap().capture = kept.then(|| crate::api::quarantine::Capture {
            digest: format!("sha256:{}", "0".repeat(64)),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
            objects: 1,
            logs: None,
            snapshots: Vec::new(),
            missing: Vec::new(),
        });
        q
    };
    for (enforced, kept, level, expected) in [
        (None, false, Contained, true),
        (None, true, Sealed, false),
        (Some(Contained), true, Contained, false),
        (Some(Contained), false, Contained, true),
        (Some(Contained), true, Sealed, true),
        (Some(Sealed), true, Sealed, false),
        (Some(CleanRoom), true, Sealed, true),
        (Some(Open), true, Contained, true),
        (Some(Sealed), true, Contained, false),
        (Some(Sealed), true, CleanRoom, false),
    ] {
        assert_eq!(needs_capture(&with(enforced, kept), level), expected, "{enforced:?} to {level:?}");
    }
}

#[test]
fn denied_claimant_gets_no_egress_exception() {
    let given = |enforced, recovery: &ServiceRecovery, plan| {
        let quarantine = quarantine(QuarantineLevel::Sealed, Some(enforced), true, true);
        target(&quarantine, Some(recovery), plan).allow_egress
    };
    let wanted = recovery(Some(CleanRoom));
    assert_eq!(given(Sealed, &wanted, PlanState::Allows), [ClusterService::Dns]);
    assert_eq!(given(CleanRoom, &wanted, PlanState::Gone), [ClusterService::Dns], "it stays as it is");
    assert_eq!(given(Sealed, &wanted, PlanState::Gone), []);
    assert_eq!(given(Sealed, &recovery(Some(Sealed)), PlanState::Allows), []);
    assert_eq!(given(CleanRoom, &recovery(Some(Open)), PlanState::Allows), []);
    let mut other = recovery(Some(CleanRoom));
    other.spec.attempt = 1;
    assert_eq!(given(CleanRoom, &other, PlanState::Allows), []);
}

#[test]
fn acceptance_covers_exactly_one_control_in_one_namespace() {
    use crate::api::quarantine::ControlName::{Fence, Network};
    for (from, to) in [(Sealed, CleanRoom), (CleanRoom, Open)] {
        for (reason, namespace, control, granted) in [
            (conditions::NETWORK_NOT_ENFORCED, "library", Network, true),
            (conditions::NETWORK_NOT_ENFORCED, "museum", Network, false),
            (conditions::NETWORK_NOT_ENFORCED, "library", Fence, false),
            ("FenceNotVerified", "library", Network, false),
            ("StaticPods", "library", Network, false),
        ] {
            let mut stood = quarantine(QuarantineLevel::Sealed, Some(from), false, true);
            stood.status.as_mut().unwrap().conditions[0].reason = reason.into();
            let mut asks = recovery(Some(to));
            let plain = target(&stood, Some(&asks), PlanState::Allows);
            assert_eq!(plain.level, from, "not without a person");
            asks.spec.accepted = vec![AcceptedControl { namespace: DnsLabel(namespace.into()), control }];
            let accepted = target(&stood, Some(&asks), PlanState::Allows).level;
            assert_eq!(accepted == to, granted, "{from:?} to {to:?}: {reason} {namespace} {control:?}");
            assert_eq!(target(&stood, Some(&asks), PlanState::Gone).level, from);
        }
    }
}

#[test]
fn inspection_namespace_is_a_clean_room_once_sealed() {
    use crate::api::quarantine::{Contents, Purpose};
    let level = |enforced, ready, contents, claimed, hold| {
        let mut quarantine = quarantine(QuarantineLevel::Sealed, enforced, ready, claimed);
        quarantine.spec.purpose = Purpose::Inspection;
        quarantine.spec.hold = hold;
        quarantine.status.as_mut().unwrap().contents = contents;
        let target = target(&quarantine, Some(&recovery(Some(Open))), PlanState::Allows);
        assert!(target.level != CleanRoom || target.reachable.is_empty());
        (target.level, target.held.is_some())
    };
    let empty = Some(Contents::default());
    let filled = Some(Contents { workloads: 1, unmanaged_pods: 0 });
    assert_eq!(level(None, false, None, false, None), (Sealed, true));
    assert_eq!(level(Some(Contained), true, empty, false, None), (Sealed, true), "it is not sealed");
    assert_eq!(level(Some(Sealed), false, empty, false, None), (Sealed, true), "it is not Ready");
    assert_eq!(level(Some(Sealed), true, None, false, None), (Sealed, true), "nobody knows what was in it");
    assert_eq!(level(Some(Sealed), true, filled, false, None), (Sealed, true));
    assert_eq!(level(Some(Sealed), true, empty, false, None), (CleanRoom, false));
    assert_eq!(level(Some(CleanRoom), true, empty, false, None), (CleanRoom, false));
    // A hold overrules it, and no plan takes it over.
    assert_eq!(level(Some(CleanRoom), true, empty, false, Some(QuarantineLevel::Sealed)), (Sealed, true));
    for enforced in [Some(Sealed), Some(CleanRoom)] {
        assert_eq!(level(enforced, true, empty, true, None), (enforced.unwrap(), true));
    }
}
