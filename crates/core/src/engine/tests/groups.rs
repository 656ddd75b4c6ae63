//! `together`: in together, out together, one failure holds all.

use k8s_openapi::jiff::Timestamp;

use super::story::{Story, plan_with, story};
use super::{Look, look_at};
use crate::api::Reason;
use crate::api::service_recovery::StepState;
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::{Asked, Effect, GateKey, Presence, Refusal, StepProgress};

const CORE: &str = "- {name: dns, together: core}\n- {name: idp, together: core}";

#[test]
fn members_enter_the_clean_room_only_when_all_pass() {
    let mut s = story(CORE);
    s.says("idp", Phase::BeforeRestore, Verdict::Unknown);
    s.run(300);
    assert_eq!((s.stage("dns"), s.asked("dns")), (Stage::PreChecks, vec![]));
    assert_eq!(s.blocks("dns"), ["WaitingForGroup: idp"]);
    s.says("dns", Phase::BeforeRestore, Verdict::Unknown);
    s.run(60);
    assert_eq!(s.blocks("dns"), ["GateUnknown: images"], "its own comes first");
    s.says("dns", Phase::BeforeRestore, Verdict::Pass);
    s.says("idp", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn members_open_only_when_all_pass() {
    let mut s = story(CORE);
    s.says("idp", Phase::BeforeRelease, Verdict::Unknown);
    s.run(300);
    for service in ["dns", "idp"] {
        assert_eq!(
            (s.stage(service), s.isolation(service)),
            (Stage::PostChecks, Isolation::CleanRoom),
            "{service}"
        );
    }
    assert_eq!(s.blocks("dns"), ["WaitingForGroup: idp"]);
    s.says("idp", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn one_failure_holds_all_and_each_says_whose() {
    let mut s = story(CORE);
    s.says("idp", Phase::BeforeRelease, Verdict::Fail);
    s.run(300);
    assert_eq!((s.needs("idp"), s.needs("dns")), (Some("GateFailed"), None));
    assert_eq!(s.isolation("dns"), Isolation::CleanRoom);
    assert_eq!(s.status("dns").waiting_for.as_deref(), Some("WaitingForGroup: idp"));
    s.says("idp", Phase::BeforeRelease, Verdict::Pass);
    s.retry("idp");
    s.run(120);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
    assert_eq!((s.status("dns").attempt, s.status("idp").attempt), (1, 2), "only who failed begins again");
}

#[test]
fn no_member_is_claimed_while_another_cannot_be() {
    let mut s = story(CORE);
    let found = s.seen("idp").quarantines[0].found.take();
    s.run(300);
    assert_eq!(s.done("dns"), [Effect::Adopt]);
    assert_eq!(
        (s.blocks("idp"), s.blocks("dns")),
        (vec!["QuarantineMissing: idp".to_owned()], vec!["WaitingForGroup: idp".to_owned()])
    );
    s.seen("idp").quarantines[0].found = found;
    s.run(60);
    assert_eq!(s.stage("dns"), Stage::Recovered);
}

#[test]
fn group_waits_for_all_dependencies_and_takes_one_slot() {
    let top = "incidentRef: {name: nov}\nmaxParallel: 1";
    let mut s = Story::of(plan_with(
        top,
        "- {name: base}\n- {name: dns, together: core}\n- {name: idp, together: core, dependsOn: [base]}",
    ));
    s.run(5);
    assert_eq!(s.blocks("dns"), ["Dependency: base"]);
    s.run(120);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
    assert_eq!(s.reached("dns", Stage::PreChecks), s.reached("idp", Stage::PreChecks));
}

#[test]
fn inner_edges_order_steps_and_nothing_else() {
    let mut s = story("- {name: web, together: core, dependsOn: [db]}\n- {name: db, together: core}");
    s.run(120);
    let step = |s: &Story, service: &str| {
        s.timed(service).into_iter().find(|(_, e)| matches!(e, Effect::Step { .. })).unwrap().0
    };
    assert!(step(&s, "web") >= s.reached("db", Stage::PostChecks));
    assert_eq!(s.reached("web", Stage::Restoring), s.reached("db", Stage::Restoring));
    assert_eq!((s.stage("web"), s.stage("db")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn steps_wait_for_a_member_that_starts_over() {
    let mut s = story("- {name: web, together: core, dependsOn: [db]}\n- {name: db, together: core}");
    s.says("web", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    let of = s.seen("web");
    (of.status.stage, of.status.steps[0].state) = (Stage::Restoring, StepState::Pending);
    let db = s.seen("db");
    db.status.stage = Stage::PreChecks;
    db.status.steps.clear();
    let decided = look_at(&s.world.plan, &s.world.seen, s.id("web"));
    assert_eq!((decided.effect, decided.status.blocked_by[0].reason.as_str()), (None, "WaitingForSteps"));
}

#[test]
fn steps_wait_for_those_of_a_mate_that_has_any() {
    let asked = "gates: {beforeRestore: [{name: a, http: {url: 'https://x/'}}], beforeRelease: [{name: b, http: {url: 'https://x/'}}]}";
    let ungated = "ungated: {reason: bought in}";
    let mut s = story(&format!(
        "- {{name: web, together: core, dependsOn: [outside]}}\n- {{name: outside, together: core, namespaces: [], {asked}, {ungated}}}"
    ));
    s.run(120);
    assert_eq!((s.stage("outside"), s.stage("web")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn members_reach_each_other_in_the_clean_room() {
    let mut s = story(CORE);
    s.run(60);
    let rooms: Vec<Vec<String>> = s
        .done("dns")
        .into_iter()
        .filter_map(|e| match e {
            Effect::Ask { isolation: Isolation::CleanRoom, reachable, .. } => Some(reachable),
            _ => None,
        })
        .collect();
    assert_eq!(rooms, [vec!["dns".to_owned(), "idp".to_owned()]]);
}

#[test]
fn dependents_learn_which_member_holds_the_group_up() {
    let mut s = story(&format!("{CORE}\n- {{name: web, dependsOn: [dns]}}"));
    s.says("idp", Phase::BeforeRestore, Verdict::Fail);
    s.run(300);
    let told = &s.status("web").blocked_by[0];
    assert_eq!(told.name, "dns");
    assert!(told.message.starts_with("held up by idp (GateFailed"), "{}", told.message);
}

#[test]
fn member_with_failed_first_steps_is_named_for_both_reasons() {
    let mut s = story("- {name: web, together: core, dependsOn: [db]}\n- {name: db, together: core}");
    s.steps_end("db", StepProgress::Failed("no such Deployment".to_owned()));
    s.run(300);
    assert_eq!(s.blocks("web"), ["WaitingForSteps: db", "WaitingForGroup: db"]);
}

#[test]
fn regressed_members_report_only_their_own_decision() {
    let mut s = story(CORE);
    s.run(60);
    for service in ["dns", "idp"] {
        s.says(service, Phase::Continuous, Verdict::Fail);
    }
    s.world.seen.incident = Presence::Missing;
    s.run(300);
    for service in ["dns", "idp"] {
        assert_eq!(s.blocks(service), ["Regressed: up"], "{service}");
    }
}

#[test]
fn member_that_is_behind_and_denied_is_named_once() {
    let mut s = story(CORE);
    while s.stage("idp") != Stage::Restoring {
        s.run(1);
    }
    let (reason, message) = (Reason::RecoverNotGranted, "may not".to_owned());
    s.seen("idp").refused = Some(Refusal { reason, message, again_at: Timestamp::MAX, since: None });
    s.run(60);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::PostChecks, Stage::Restoring));
    assert_eq!(s.blocks("dns"), ["WaitingForGroup: idp"]);
}

/// A member at a stage of its first attempt: how its namespace is isolated, what was asked for in which attempt, and what its gates say.
type Member = (Stage, Isolation, Option<(Isolation, i64)>, Verdict);

/// One look at the first of a group whose members stand so.
fn first_of(phase: Phase, members: &[Member]) -> Look {
    let names = ["dns", "idp", "ntp"];
    let services: Vec<_> =
        names[..members.len()].iter().map(|name| format!("- {{name: {name}, together: core}}")).collect();
    let mut s = story(&services.join("\n"));
    s.run(60);
    for (service, &(stage, isolation, asked, verdict)) in names.into_iter().zip(members) {
        s.quarantine(service).isolation = Some(isolation);
        let of = s.seen(service);
        of.status.stage = stage;
        of.asked = asked.map(|(isolation, attempt)| Asked { isolation, attempt });
        let name = if phase == Phase::BeforeRestore { "images" } else { "up" };
        let mut state = of.gates[&GateKey { phase: Phase::Continuous, name: "up".to_owned() }].clone();
        state.verdict = verdict;
        of.gates.insert(GateKey { phase, name: name.to_owned() }, state);
    }
    look_at(&s.world.plan, &s.world.seen, 0)
}

/// What `dns` asks for, with `idp` beside it.
fn beside(phase: Phase, dns: Member, idp: Member) -> Option<Isolation> {
    match first_of(phase, &[dns, idp]).effect {
        Some(Effect::Ask { isolation, .. }) => Some(isolation),
        _ => None,
    }
}

#[test]
fn only_mates_that_are_behind_are_waited_for() {
    use Isolation::{CleanRoom, Open};
    use Stage::{PostChecks, Reconnecting, Recovered, Restoring};
    use Verdict::{Pass, Unknown};
    let room = Some((CleanRoom, 1));
    let (ready, behind) = ((PostChecks, CleanRoom, room, Pass), (Restoring, CleanRoom, room, Pass));
    for (mate, is_behind) in [
        (behind, true),
        ((PostChecks, CleanRoom, room, Unknown), true),
        (ready, false),
        ((Reconnecting, CleanRoom, room, Unknown), false),
        ((Recovered, Open, Some((Open, 1)), Unknown), false),
    ] {
        let blocks = first_of(Phase::BeforeRelease, &[ready, mate, behind]).status.blocked_by;
        let names: Vec<&str> =
            blocks.iter().filter(|b| b.reason == Reason::WaitingForGroup).map(|b| b.name.as_str()).collect();
        assert_eq!(names, if is_behind { vec!["idp", "ntp"] } else { vec!["ntp"] }, "{mate:?}");
    }
}

#[test]
fn one_enters_the_clean_room_once_each_mate_is_in_it_or_may_be() {
    use Isolation::{CleanRoom, Contained, Open, Sealed};
    use Stage::{PostChecks, PreChecks, Restoring};
    use Verdict::{Pass, Unknown};
    let ready = (Restoring, Sealed, Some((Sealed, 1)), Pass);
    for (mate, enters) in [
        (ready, true),
        ((PreChecks, Sealed, None, Pass), false),
        ((Restoring, Contained, Some((Sealed, 1)), Pass), false),
        ((Restoring, Sealed, Some((Sealed, 1)), Unknown), false),
        ((Restoring, CleanRoom, Some((CleanRoom, 1)), Unknown), true),
        ((Restoring, Sealed, Some((CleanRoom, 1)), Unknown), true),
        ((Restoring, Sealed, Some((CleanRoom, 0)), Unknown), false),
        ((Restoring, Sealed, Some((Open, 0)), Unknown), false),
        ((PostChecks, CleanRoom, Some((CleanRoom, 1)), Unknown), true),
    ] {
        let asks = beside(Phase::BeforeRestore, ready, mate);
        assert_eq!(asks, enters.then_some(CleanRoom), "{mate:?}");
    }
}

#[test]
fn one_opens_once_each_mate_is_open_or_may_be() {
    use Isolation::{CleanRoom, Open};
    use Stage::{PostChecks, Reconnecting, Recovered, Restoring};
    use Verdict::{Pass, Unknown};
    let ready = (Reconnecting, CleanRoom, Some((CleanRoom, 1)), Pass);
    for (mate, opens) in [
        (ready, true),
        ((Restoring, CleanRoom, Some((CleanRoom, 1)), Pass), false),
        ((PostChecks, CleanRoom, Some((CleanRoom, 1)), Pass), true),
        ((PostChecks, CleanRoom, Some((CleanRoom, 1)), Unknown), false),
        ((Reconnecting, CleanRoom, Some((CleanRoom, 1)), Unknown), false),
        ((Reconnecting, CleanRoom, Some((Open, 1)), Unknown), true),
        ((Reconnecting, CleanRoom, Some((Open, 0)), Unknown), false),
        ((Recovered, Open, Some((Open, 1)), Unknown), true),
    ] {
        let asks = beside(Phase::BeforeRelease, ready, mate);
        assert_eq!(asks, opens.then_some(Open), "{mate:?}");
    }
}
