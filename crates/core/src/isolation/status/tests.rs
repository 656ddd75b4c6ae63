use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::api::conditions::{
    FENCE_INTACT, HOST_NETWORK_PODS, NETWORK_NOT_ENFORCED, READY, RECONCILING, STALLED, find, is_true,
};
use crate::api::quarantine::{Capture, LostTokenSecrets};
use crate::api::{QuarantineLevel, QuarantineSpec};
use crate::isolation::pass::{ControlFailure, FenceState};
use crate::isolation::target::{ControlsInPlace, Target};
use crate::isolation::verify::admission::{PROBED_POLICIES, PolicyProbe, ProbeReport, ProbeResult};
use crate::isolation::verify::network::NetworkVerdict;

fn quarantine(enforced: Option<Isolation>, kept: bool) -> Quarantine {
    let spec =
        QuarantineSpec { isolation: QuarantineLevel::Sealed, reason: "breach".into(), ..Default::default() };
    let mut quarantine = Quarantine::new("library", spec);
    quarantine.metadata.generation = Some(3);
    quarantine.status = Some(QuarantineStatus {
        isolation: enforced,
        capture: kept.then(|| evidence("0")),
        ..QuarantineStatus::default()
    });
    quarantine
}

fn evidence(digit: &str) -> Capture {
    Capture {
        digest: format!("sha256:{}", digit.repeat(64)),
        at: Time(Timestamp::UNIX_EPOCH),
        objects: 1,
        logs: None,
        snapshots: Vec::new(),
        missing: Vec::new(),
    }
}

const ALL: ControlsInPlace = ControlsInPlace::ALL;

fn pass(level: Isolation, found: ControlsInPlace) -> Pass {
    let mut pass = Pass::new(Target {
        level,
        reachable: Vec::new(),
        allow_egress: Vec::new(),
        allow_egress_to: Vec::new(),
        privileged: false,
        held: None,
        overrules: false,
    });
    pass.in_place = found;
    pass.fenced_off = found.labelled || found.listed;
    pass.probed = (found.labelled && found.fenced).then(|| probed(|_| ProbeResult::Denied));
    pass
}

/// What trying each control on one API server showed.
fn probed(seen: impl Fn(ControlName) -> ProbeResult) -> ProbeReport {
    let one = |(control, policy)| PolicyProbe {
        server: "a".to_owned(),
        listed: None,
        control,
        policy,
        result: seen(control),
    };
    ProbeReport { probes: PROBED_POLICIES.map(one).into(), unknown: None }
}

fn intact() -> ClusterState {
    let fence = FenceState { drift: None, newer: false, epoch: 1 };
    ClusterState { fence, network: Some(NetworkVerdict::unverifiable("no image")) }
}

fn after_pass(quarantine: &Quarantine, pass: &Pass) -> QuarantineStatus {
    after(quarantine, pass, &intact(), Timestamp::from_second(100).unwrap())
}

#[test]
fn ready_means_that_everything_was_seen_to_hold() {
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
        let status = after_pass(&quarantine(None, false), &pass(Isolation::Sealed, found));
        assert_eq!(is_true(&status.conditions, READY), found == ALL, "{found:?}");
        assert_eq!(is_true(&status.conditions, RECONCILING), found != ALL, "{found:?}");
        assert_eq!(find(&status.conditions, STALLED), None);
        assert_eq!(status.observed_generation, Some(3));
    }
}

#[test]
fn a_level_is_not_said_to_be_enforced_before_it_was_seen_to_be() {
    use Isolation::{CleanRoom, Contained, Open, Sealed};
    let unseen = ControlsInPlace { fenced: false, ..ALL };
    let uncaptured = ControlsInPlace { captured: false, stopped: false, empty: false, ..ALL };
    for (before, level, found, expected) in [
        (None, Sealed, unseen, None),
        (None, Sealed, uncaptured, Some(Contained)),
        (Some(Open), Sealed, uncaptured, Some(Contained)),
        (Some(Contained), Sealed, uncaptured, Some(Contained)),
        (Some(Contained), Sealed, ControlsInPlace { stopped: false, empty: false, ..ALL }, Some(Sealed)),
        (Some(Sealed), CleanRoom, unseen, Some(Sealed)),
        (Some(Sealed), CleanRoom, ALL, Some(CleanRoom)),
        (Some(CleanRoom), Open, unseen, Some(CleanRoom)),
        (Some(CleanRoom), Open, ALL, Some(Open)),
    ] {
        let status = after_pass(&quarantine(before, true), &pass(level, found));
        assert_eq!(status.isolation, expected, "{before:?} to {level:?}");
    }
}

#[test]
fn evidence_of_an_earlier_sealing_is_not_shown_for_this_one() {
    let uncaptured = ControlsInPlace { captured: false, stopped: false, empty: false, ..ALL };
    let again =
        after_pass(&quarantine(Some(Isolation::CleanRoom), true), &pass(Isolation::Sealed, uncaptured));
    assert_eq!(again.capture, None);
    let mut captured = pass(Isolation::Sealed, ALL);
    captured.capture = Some(evidence("1"));
    let sealed = after_pass(&quarantine(Some(Isolation::CleanRoom), true), &captured);
    assert_eq!(sealed.capture, Some(evidence("1")));
    let open = after_pass(&quarantine(Some(Isolation::CleanRoom), true), &pass(Isolation::Open, ALL));
    assert_eq!(open.capture, Some(evidence("0")), "kept as history");
}

#[test]
fn failure_names_its_culprit_and_is_reconciling_or_stalled() {
    for stalled in [false, true] {
        let mut troubled =
            pass(Isolation::Sealed, ControlsInPlace { captured: false, stopped: false, empty: false, ..ALL });
        troubled.failure = Some(PassFailure {
            reason: QuarantineReason::CaptureFailed,
            message: "no space in /evidence".into(),
            stalled,
        });
        let status = after_pass(&quarantine(None, false), &troubled);
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!(
            (ready.reason.as_str(), ready.message.as_str()),
            ("CaptureFailed", "no space in /evidence")
        );
        assert_eq!(ready.status, if stalled { "False" } else { "Unknown" });
        assert_eq!(is_true(&status.conditions, STALLED), stalled);
        assert_eq!(is_true(&status.conditions, RECONCILING), !stalled);
    }
}

fn failure(stalled: bool) -> ControlFailure {
    ControlFailure {
        reason: QuarantineReason::NetworkFailed,
        message: "webhook v refuses it".into(),
        stalled,
    }
}

/// Whatever else holds: a control that failed is not said to.
#[test]
fn failed_control_is_not_enforced_and_stalls_after_a_minute() {
    for (name, stalled) in [
        (ControlName::Lock, false),
        (ControlName::Guard, true),
        (ControlName::Network, false),
        (ControlName::Network, true),
        (ControlName::Workloads, true),
        (ControlName::Identity, false),
    ] {
        let mut failing = pass(Isolation::Sealed, ALL);
        failing.failures.insert(name, failure(stalled));
        let status = after_pass(&quarantine(None, true), &failing);
        let control = control(&status, name);
        assert_eq!(
            (control.state, control.message.as_str()),
            (ControlState::NotEnforced, "webhook v refuses it")
        );
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!(ready.status, if stalled { "False" } else { "Unknown" }, "{name:?}");
        assert_eq!(
            (is_true(&status.conditions, STALLED), is_true(&status.conditions, RECONCILING)),
            (stalled, !stalled)
        );
        assert!(ready.message.starts_with(&format!("{name:?}: webhook v")), "{}", ready.message);
    }
}

#[test]
fn foreign_policies_are_reported_when_own_cannot_be_written() {
    let mut failing = pass(Isolation::Sealed, ALL);
    let long = ControlFailure { message: format!("webhook v {}", "x".repeat(600)), ..failure(false) };
    failing.failures.insert(ControlName::Network, long);
    failing.other_policies.unknown = vec!["list ciliumnetworkpolicies.cilium.io: 500".to_owned()];
    let status = after_pass(&quarantine(None, true), &failing);
    let message = &control(&status, ControlName::Network).message;
    assert!(
        message.starts_with("webhook v") && message.contains("ciliumnetworkpolicies.cilium.io"),
        "{message}"
    );
    assert!(!control(&status, ControlName::Workloads).message.contains("cilium"));
}

#[test]
fn two_culprits_of_one_control_are_both_named() {
    let of = |webhook: &str| ControlFailure {
        message: format!("webhook {webhook} {}", "x".repeat(400)),
        ..failure(false)
    };
    let mut both = of("a");
    both.add(&of("b"));
    both.add(&of("b"));
    let mut failing = pass(Isolation::Sealed, ALL);
    failing.failures.insert(ControlName::Workloads, both);
    let status = after_pass(&quarantine(None, true), &failing);
    let message = &control(&status, ControlName::Workloads).message;
    assert!(message.contains("webhook a") && message.contains("; webhook b"), "{message}");
}

#[test]
fn stalled_failures_are_reported_before_retried_ones() {
    let mut failing = pass(Isolation::Sealed, ALL);
    failing.failures.insert(
        ControlName::Lock,
        ControlFailure { reason: QuarantineReason::LabelFailed, ..failure(false) },
    );
    failing.failures.insert(ControlName::Network, failure(true));
    let status = after_pass(&quarantine(None, true), &failing);
    let ready = find(&status.conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "NetworkFailed"));
    assert!(
        ready.message.contains("Network: ") && ready.message.contains("; and Lock: "),
        "{}",
        ready.message
    );
}

/// Either isolates: a webhook that keeps the label from being written hides nothing of what the list does.
#[test]
fn a_list_alone_isolates_and_is_not_ready() {
    let mut listed = pass(Isolation::Sealed, ControlsInPlace { labelled: false, ..ALL });
    listed.probed = Some(probed(|_| ProbeResult::Denied));
    listed
        .failures
        .insert(ControlName::Lock, ControlFailure { reason: QuarantineReason::LabelFailed, ..failure(true) });
    let status = after_pass(&quarantine(None, true), &listed);
    assert_eq!(status.isolation, Some(Isolation::Sealed));
    assert!(!is_true(&status.conditions, READY));
    assert_eq!(control(&status, ControlName::Fence).state, ControlState::Tested);
    assert_eq!(control(&status, ControlName::Lock).state, ControlState::NotEnforced);
    let neither = pass(Isolation::Sealed, ControlsInPlace { labelled: false, listed: false, ..ALL });
    assert_eq!(after_pass(&quarantine(None, true), &neither).isolation, None);
}

#[test]
fn unmanaged_pods_stay_listed_while_isolated() {
    let mut found = pass(Isolation::Sealed, ALL);
    found.unmanaged = vec!["database-1".into()];
    let mut stood = quarantine(None, true);
    stood.status = Some(after_pass(&stood, &found));
    assert_eq!(stood.status.as_ref().unwrap().unmanaged_pods, ["database-1"]);
    for level in [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open] {
        assert_eq!(after_pass(&stood, &pass(level, ALL)).unmanaged_pods, ["database-1"], "{level:?}");
    }
}

#[test]
fn lost_token_secrets_stay_listed_until_the_next_isolation() {
    let lost = |names: &[&str], unknown: &str| LostTokenSecrets {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        unknown: unknown.to_owned(),
    };
    let mut found = pass(Isolation::Sealed, ALL);
    let mut stood = quarantine(None, true);
    assert_eq!(after_pass(&stood, &found).lost_token_secrets, None);
    found.lost_token_secrets = Some(lost(&["worker", "api"], ""));
    stood.status = Some(after_pass(&stood, &found));
    assert_eq!(stood.status.as_ref().unwrap().lost_token_secrets, Some(lost(&["api", "worker"], "")));
    for level in [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open] {
        let kept = after_pass(&stood, &pass(level, ALL)).lost_token_secrets;
        assert_eq!(kept, Some(lost(&["api", "worker"], "")), "{level:?}");
    }
    found.lost_token_secrets = Some(lost(&["api"], "forbidden"));
    let more = after_pass(&stood, &found).lost_token_secrets;
    assert_eq!(more, Some(lost(&["api", "worker"], "forbidden")));
    let many: Vec<String> = (0..70).map(|n| format!("token-{n:02}")).collect();
    found.lost_token_secrets = Some(LostTokenSecrets { names: many, unknown: String::new() });
    let bounded = after_pass(&stood, &found).lost_token_secrets.unwrap();
    assert_eq!((bounded.names.len(), bounded.unknown.as_str()), (64, "there are more than 64"));
    stood.status.as_mut().unwrap().isolation = Some(Isolation::Open);
    let again = pass(Isolation::Contained, ControlsInPlace { captured: false, ..ALL });
    assert_eq!(after_pass(&stood, &again).lost_token_secrets, None);
}

#[test]
fn only_what_was_tried_and_refused_is_tested() {
    let tried = |lock: ProbeResult, fence: ProbeResult| {
        let mut pass = pass(
            Isolation::Contained,
            ControlsInPlace { listed: true, labelled: true, ..ControlsInPlace::default() },
        );
        pass.probed = Some(probed(|control| match control {
            ControlName::Lock => lock.clone(),
            ControlName::Fence => fence.clone(),
            _ => ProbeResult::Inconclusive("not now".into()),
        }));
        let status = after_pass(&quarantine(None, false), &pass);
        (status.controls[0].state, status.controls[1].state, status.tested.unwrap())
    };
    use ControlState::{Enforced, NotEnforced, Tested};
    assert_eq!(tried(ProbeResult::Denied, ProbeResult::Admitted), (Tested, NotEnforced, "1/4".to_owned()));
    let unclear = ProbeResult::Inconclusive("quota".into());
    assert_eq!(tried(unclear, ProbeResult::Denied), (Enforced, Tested, "1/4".to_owned()));
    let sealed = after_pass(&quarantine(None, false), &pass(Isolation::Sealed, ALL));
    assert_eq!(control(&sealed, ControlName::Network).state, ControlState::Unverifiable);
}

#[test]
fn unreachable_api_server_is_reported_and_blocks_nothing() {
    let mut reduced = pass(Isolation::Sealed, ALL);
    let mut shown = probed(|_| ProbeResult::Denied);
    let away = probed(|_| ProbeResult::Unreachable("Connection refused".into())).probes;
    shown.probes.extend(away.into_iter().map(|tried| PolicyProbe { server: "b".into(), ..tried }));
    reduced.in_place.fenced = shown.holds();
    reduced.probed = Some(shown);
    let status = after_pass(&quarantine(None, true), &reduced);
    assert!(is_true(&status.conditions, READY));
    for name in [ControlName::Lock, ControlName::Fence, ControlName::Guard] {
        let control = control(&status, name);
        assert_eq!(control.state, ControlState::Unverifiable);
        assert!(
            control.message.contains("Listed, and not tried: b: Connection refused"),
            "{}",
            control.message
        );
    }
}

#[test]
fn unverified_fence_does_not_change_the_network_control() {
    let gone = |found, before| {
        let mut pass = pass(Isolation::Sealed, found);
        pass.probed = Some(probed(|_| ProbeResult::Admitted));
        let status = after_pass(&quarantine(before, true), &pass);
        let network = control(&status, ControlName::Network).clone();
        (network.state, network.message, is_true(&status.conditions, READY))
    };
    let unseen = ControlsInPlace { labelled: true, ..ControlsInPlace::default() };
    let (state, message, ready) = gone(unseen, Some(Isolation::Sealed));
    let written = "policies were written before, and are not read again yet";
    assert_eq!((state, message.as_str(), ready), (ControlState::Enforced, written, false));
    for before in [None, Some(Isolation::Open)] {
        let (state, message, ready) = gone(unseen, before);
        assert_eq!(
            (state, message.as_str(), ready),
            (ControlState::NotEnforced, "policies are not written", false)
        );
    }
    // Where they were written in spite of it, they are told of as they are.
    let (state, _, ready) = gone(ControlsInPlace { network: true, ..unseen }, None);
    assert_eq!((state, ready), (ControlState::Unverifiable, false));
}

#[test]
fn nothing_new_means_the_same_status_whatever_the_time() {
    let mut quarantine = quarantine(None, true);
    let pass = pass(Isolation::Sealed, ALL);
    quarantine.status = Some(after_pass(&quarantine, &pass));
    let later = after(&quarantine, &pass, &intact(), Timestamp::from_second(999).unwrap());
    assert_eq!(Some(later), quarantine.status);
}

#[test]
fn missing_policies_are_reported() {
    let mut known = intact();
    known.fence.drift = Some("apply resurgam-write-fence: forbidden".into());
    let status = after(&quarantine(None, true), &pass(Isolation::Sealed, ALL), &known, Timestamp::UNIX_EPOCH);
    let told = find(&status.conditions, FENCE_INTACT).unwrap();
    assert_eq!(
        (told.status.as_str(), told.message.as_str()),
        ("False", "apply resurgam-write-fence: forbidden")
    );
}

fn control(status: &QuarantineStatus, name: ControlName) -> &Control {
    status.controls.iter().find(|control| control.name == name).unwrap()
}

fn network(state: ControlState) -> ClusterState {
    let verdict =
        NetworkVerdict { state, message: "told".into(), tried: Some(Timestamp::from_second(50).unwrap()) };
    ClusterState { network: Some(verdict), ..intact() }
}

fn with(quarantine: &Quarantine, level: Isolation, known: &ClusterState) -> QuarantineStatus {
    after(quarantine, &pass(level, ALL), known, Timestamp::from_second(100).unwrap())
}

#[test]
fn unenforced_network_is_not_ready_and_stalled() {
    use ControlState::{NotEnforced, Tested, Unverifiable};
    for level in [Isolation::Contained, Isolation::Sealed, Isolation::CleanRoom, Isolation::Open] {
        for state in [Tested, NotEnforced, Unverifiable] {
            let status = with(&quarantine(Some(level), true), level, &network(state));
            let blocked = state == NotEnforced && level != Isolation::Open;
            let ready = find(&status.conditions, READY).unwrap();
            assert_eq!(ready.status, if blocked { "False" } else { "True" }, "{level:?} {state:?}");
            assert_eq!(ready.reason == NETWORK_NOT_ENFORCED, blocked, "{level:?} {state:?}");
            assert_eq!(is_true(&status.conditions, STALLED), blocked);
            assert!(!is_true(&status.conditions, RECONCILING));
            let control = control(&status, ControlName::Network);
            let (said, tried) = if level == Isolation::Open {
                (ControlState::NotRequired, None)
            } else {
                (state, Some(Time(Timestamp::from_second(50).unwrap())))
            };
            assert_eq!((control.state, control.tried.clone()), (said, tried), "{level:?}");
        }
    }
}

#[test]
fn ready_needs_a_probed_network_and_survives_operator_restart() {
    let trying = ClusterState { network: None, ..intact() };
    let mut stood = quarantine(Some(Isolation::Sealed), true);
    let first = with(&stood, Isolation::Sealed, &trying);
    assert_eq!(find(&first.conditions, READY).unwrap().reason, "TryingNetwork");
    assert!(is_true(&first.conditions, RECONCILING));
    for state in [ControlState::Tested, ControlState::NotEnforced] {
        let told = with(&stood, Isolation::Sealed, &network(state));
        stood.status = Some(told.clone());
        assert_eq!(with(&stood, Isolation::Sealed, &trying), told, "{state:?}");
    }
    // What was said of pods on the network of their node ends with them.
    let mut uncut = pass(Isolation::Contained, ControlsInPlace { empty: false, ..ALL });
    uncut.host_network_pods = vec!["agent".to_owned()];
    let at = Timestamp::from_second(100).unwrap();
    let told = after(&stood, &uncut, &network(ControlState::Tested), at);
    stood.status = Some(told.clone());
    assert_eq!(after(&stood, &uncut, &trying, at), told);
    assert_eq!(find(&told.conditions, READY).unwrap().reason, HOST_NETWORK_PODS);
    let after_them = with(&stood, Isolation::Contained, &trying);
    assert_eq!(control(&after_them, ControlName::Network).state, ControlState::Enforced);
    assert_eq!(find(&after_them.conditions, READY).unwrap().reason, "TryingNetwork");
}

#[test]
fn a_control_says_when_it_was_tried_and_keeps_saying_so() {
    let mut tried = pass(Isolation::Sealed, ALL);
    tried.tried = Some(Timestamp::from_second(70).unwrap());
    let mut stood = quarantine(None, true);
    stood.status = Some(after_pass(&stood, &tried));
    let of = |status: &QuarantineStatus| status.controls[1].tried.as_ref().map(|t| t.0.as_second());
    assert_eq!(of(stood.status.as_ref().unwrap()), Some(70));
    assert_eq!(of(&after_pass(&stood, &pass(Isolation::Sealed, ALL))), Some(70));
}

#[test]
fn a_pod_that_lingers_is_named_and_the_end_of_others_is_no_news() {
    let mut waiting = pass(Isolation::Sealed, ControlsInPlace { empty: false, ..ALL });
    let told = |waiting: &Pass| {
        let status = after_pass(&quarantine(None, true), waiting);
        find(&status.conditions, READY).unwrap().message.clone()
    };
    waiting.alive = (1..=8).map(|n| format!("web-{n}")).collect();
    let all = told(&waiting);
    assert_eq!(all, "pods have yet to end: web-1");
    waiting.alive.truncate(1);
    assert_eq!(told(&waiting), all);
}

#[test]
fn status_between_levels_does_not_revert_the_loosening() {
    use crate::api::service_recovery::{PlanRef, ServiceRecoverySpec};
    use crate::api::{Claim, DnsLabel, ServiceRecovery};
    use crate::isolation::target::{PlanState, target};
    let claim = Claim {
        plan_uid: "plan-1".into(),
        plan_namespace: "recovery".into(),
        plan: "council".into(),
        service: "library".into(),
        attempt: 1,
        display: String::new(),
    };
    for (from, to) in [(Isolation::Sealed, Isolation::CleanRoom), (Isolation::CleanRoom, Isolation::Open)] {
        let mut stood = quarantine(Some(from), true);
        stood.status = Some(after_pass(&stood, &pass(from, ALL)));
        stood.status.as_mut().unwrap().claimed_by = Some(claim.clone());
        let recovery = ServiceRecovery::new(
            "council.library",
            ServiceRecoverySpec {
                plan_ref: PlanRef { name: "council".into(), uid: "plan-1".into() },
                service: "library".into(),
                tier: None,
                namespaces: vec![DnsLabel("library".into())],
                attempt: 1,
                isolation: Some(to),
                reachable: Vec::new(),
                allow_egress: Vec::new(),
                allow_egress_to: Vec::new(),
                pod_security: crate::api::PodSecurity::Baseline,
                accepted: Vec::new(),
            },
        );
        let wanted = |quarantine: &Quarantine| target(quarantine, Some(&recovery), PlanState::Allows).level;
        assert_eq!(wanted(&stood), to);
        // The label is changed, and the first try still met the old level: what stands in the status still grants it.
        let mut going = pass(to, ControlsInPlace { fenced: false, ..ALL });
        assert!(going.is_between(Some(from)));
        // Told all the same, it would be taken back.
        let mut told = stood.clone();
        told.status = Some(after_pass(&stood, &going));
        assert_eq!(wanted(&told), from);
        // A fence that will not let go is told, and taken back: closed is the safe side.
        going.failure = Some(PassFailure {
            reason: QuarantineReason::FenceNotVerified,
            message: String::new(),
            stalled: true,
        });
        assert!(!going.is_between(Some(from)));
        assert!(!pass(to, ALL).is_between(Some(from)), "it is there");
        assert!(
            !pass(from, ControlsInPlace { fenced: false, ..ALL }).is_between(Some(to)),
            "tightening is told as it goes"
        );
        assert!(!pass(from, ControlsInPlace { fenced: false, ..ALL }).is_between(None), "so is isolating");
    }
}

#[test]
fn host_network_pods_are_reported_until_they_end() {
    let pods = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (level, empty, found, message) in [
        (Isolation::Contained, false, pods(&["agent"]), Some(": agent. ")),
        (Isolation::CleanRoom, false, pods(&["a", "b", "c", "d", "e"]), Some(": a, b, c and 2 more. ")),
        // Seen before what runs was stopped, in the same pass.
        (Isolation::Sealed, true, pods(&["agent"]), None),
        (Isolation::Sealed, false, pods(&["agent"]), Some(": agent. ")),
        (Isolation::Contained, false, pods(&[]), None),
        (Isolation::Open, false, pods(&["agent"]), None),
    ] {
        let mut pass = pass(level, ControlsInPlace { empty, ..ALL });
        pass.host_network_pods = found;
        let known = network(ControlState::Tested);
        let status =
            after(&quarantine(Some(level), true), &pass, &known, Timestamp::from_second(100).unwrap());
        let told = control(&status, ControlName::Network);
        assert_eq!(told.state == ControlState::NotEnforced, message.is_some(), "{level:?} {told:?}");
        assert!(message.is_none_or(|message| told.message.contains(message)), "{told:?}");
        let ready = find(&status.conditions, READY).unwrap();
        // While processes are kept alive, sealing cures it; in a clean room a person has to accept it.
        let reason = match level {
            Isolation::Contained => HOST_NETWORK_PODS,
            _ => NETWORK_NOT_ENFORCED,
        };
        let blocked = message.is_some() && level != Isolation::Sealed;
        assert_eq!(ready.reason == reason, blocked, "{level:?} {ready:?}");
    }
}

#[test]
fn controls_are_verified_since_the_one_tried_longest_ago() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let control = |(name, seconds): (ControlName, Option<i64>)| Control {
        name,
        state: ControlState::Tested,
        message: String::new(),
        since: None,
        tried: seconds.map(|seconds| Time(at(seconds))),
    };
    let status = |tried: [Option<i64>; 3]| QuarantineStatus {
        isolation: Some(Isolation::Sealed),
        controls: [ControlName::Lock, ControlName::Fence, ControlName::Guard]
            .into_iter()
            .zip(tried)
            .map(control)
            .collect(),
        ..QuarantineStatus::default()
    };
    let whole = status([Some(3), Some(1), Some(2)]);
    assert_eq!(last_verified(&whole, Isolation::Sealed), Some(at(1)));
    assert_eq!(last_verified(&whole, Isolation::Contained), None, "that is another level");
    assert_eq!(last_verified(&status([Some(3), None, Some(2)]), Isolation::Sealed), None);
    let mut broken = whole;
    broken.controls[2].state = ControlState::NotEnforced;
    assert_eq!(last_verified(&broken, Isolation::Sealed), None);
    assert_eq!(last_verified(&QuarantineStatus::default(), Isolation::Sealed), None);
}
