//! The clean room follows its dependencies.

use k8s_openapi::jiff::SignedDuration;

use super::story::{Story, plan, story};
use crate::api::Reason;
use crate::api::service_recovery::StepState;
use crate::api::{ClusterService, Isolation, Phase, Stage, Verdict};
use crate::engine::{Effect, Refusal, Room, ServiceObservation, decide};
use crate::plan::ServiceId;

const CHAIN: &str = "- {name: dns}\n- {name: db}\n- {name: web, dependsOn: [db, dns], cleanRoom: {allowEgress: [APIServer, DNS]}}";

/// `web` in its clean room, held there by a gate that does not pass.
fn in_the_clean_room() -> Story {
    let mut s = story(CHAIN);
    s.says("web", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!((s.stage("web"), s.isolation("web")), (Stage::PostChecks, Isolation::CleanRoom));
    s
}

fn reachable(s: &mut Story) -> Vec<String> {
    s.seen("web").room.reachable.clone()
}

fn follows(s: &Story) -> Vec<(Room, Vec<ServiceId>)> {
    let follow = |effect| match effect {
        Effect::Follow { room, dependencies } => {
            Some((room, dependencies.iter().map(|key| s.id(&key.service)).collect()))
        }
        _ => None,
    };
    s.done("web").into_iter().filter_map(follow).collect()
}

#[test]
fn clean_room_reaches_group_and_dependencies_requested_once() {
    let mut s = in_the_clean_room();
    assert_eq!(reachable(&mut s), ["db", "dns", "web"]);
    s.run(600);
    assert_eq!(follows(&s), [], "nothing changed, nothing is asked");
}

#[test]
fn clean_room_follows_a_dependency_that_regresses_and_returns() {
    let mut s = in_the_clean_room();
    s.says("db", Phase::Continuous, Verdict::Fail);
    s.run(60);
    assert_eq!(s.needs("db"), Some("Regressed"));
    assert_eq!(reachable(&mut s), ["dns", "web"]);
    assert!(follows(&s).last().unwrap().1.is_empty(), "cutting off waits for no proof");
    s.says("db", Phase::Continuous, Verdict::Pass);
    s.run(60);
    assert_eq!(s.needs("db"), None);
    assert_eq!(reachable(&mut s), ["db", "dns", "web"]);
    assert_eq!(follows(&s).last().unwrap().1, [s.id("db")], "what comes in is read live");
}

#[test]
fn a_dependency_that_is_isolated_again_goes_out_at_once() {
    let mut s = in_the_clean_room();
    s.quarantine("db").isolation = Some(Isolation::Contained);
    s.run(1);
    assert_eq!(reachable(&mut s), ["dns", "web"]);
}

#[test]
fn clean_room_excludes_unrecovered_and_foreign_dependencies() {
    let changes: [fn(&mut ServiceObservation); 2] =
        [|of| of.status.stage = Stage::Reconnecting, |of| of.other_plan = Some("uid-0".to_owned())];
    for change in changes {
        let mut s = in_the_clean_room();
        change(s.seen("db"));
        let id = s.id("web");
        let effect = decide(&s.world.plan, &s.world.seen).services.swap_remove(id).effect;
        let Some(Effect::Follow { room, .. }) = effect else { panic!("{effect:?}") };
        assert_eq!(room.reachable, ["dns", "web"]);
    }
}

#[test]
fn momentarily_unknown_gate_disconnects_no_dependency() {
    let mut s = in_the_clean_room();
    s.says("db", Phase::Continuous, Verdict::Unknown);
    s.run(120);
    assert_eq!(reachable(&mut s), ["db", "dns", "web"]);
}

#[test]
fn a_room_is_cut_off_even_where_a_person_is_waited_for() {
    let mut s = in_the_clean_room();
    s.says("web", Phase::BeforeRelease, Verdict::Fail);
    s.run(60);
    assert_eq!(s.needs("web"), Some("GateFailed"));
    s.quarantine("db").isolation = Some(Isolation::Contained);
    s.run(1);
    assert_eq!(reachable(&mut s), ["dns", "web"]);
}

#[test]
fn removals_do_not_wait_for_additions() {
    let mut s = in_the_clean_room();
    s.quarantine("db").isolation = Some(Isolation::Contained);
    s.run(60);
    let before = follows(&s).len();
    s.quarantine("db").isolation = Some(Isolation::Open);
    s.quarantine("dns").isolation = Some(Isolation::Contained);
    s.run(5);
    let rooms: Vec<_> = follows(&s)[before..].iter().map(|(room, _)| room.reachable.clone()).collect();
    assert_eq!(rooms[0], ["web"], "out first");
    assert_eq!(reachable(&mut s), ["db", "web"]);
}

#[test]
fn egress_exceptions_are_the_plans_and_reported_in_clean_room() {
    use ClusterService::{ApiServer, Dns};
    let mut s = in_the_clean_room();
    assert_eq!(s.seen("web").room.allow_egress, [Dns, ApiServer]);
    assert_eq!(s.status("web").holes, [Dns, ApiServer]);
    assert_eq!(s.status("db").holes, []);
    // The plan is amended: the hole is closed again, without a proof of anything.
    s.world.plan = plan(
        "- {name: dns}\n- {name: db}\n- {name: web, dependsOn: [db, dns], cleanRoom: {allowEgress: [DNS]}}",
    );
    s.quarantine("db").isolation = Some(Isolation::Contained);
    s.run(5);
    assert_eq!(s.seen("web").room.allow_egress, [Dns]);
    assert_eq!(s.status("web").holes, [Dns]);
    s.quarantine("db").isolation = Some(Isolation::Open);
    s.says("web", Phase::BeforeRelease, Verdict::Pass);
    s.run(600);
    assert_eq!(s.stage("web"), Stage::Recovered);
    assert_eq!(s.status("web").holes, []);
    assert_eq!(s.seen("web").room, Room::default());
}

/// One look at `web` in its clean room, with a step to be begun, in a world that was changed so.
fn about_to_step(change: impl FnOnce(&mut Story)) -> Option<Effect> {
    let mut s = in_the_clean_room();
    let of = s.seen("web");
    of.status.stage = Stage::Restoring;
    of.status.steps[0].state = StepState::Running;
    of.steps.clear();
    change(&mut s);
    let id = s.id("web");
    decide(&s.world.plan, &s.world.seen).services.swap_remove(id).effect
}

#[test]
fn removed_egress_is_applied_first_and_added_egress_waits() {
    let step = about_to_step(|_| {});
    assert!(matches!(step, Some(Effect::Step { .. })), "{step:?}");
    let less = about_to_step(|s| {
        let id = s.id("web");
        s.world.plan.services[id].allow_egress.clear();
    });
    let Some(Effect::Follow { room, .. }) = less else { panic!("{less:?}") };
    assert_eq!((room.allow_egress.len(), room.reachable.len()), (0, 3));
    let more = about_to_step(|s| s.seen("web").room.allow_egress.clear());
    assert!(matches!(more, Some(Effect::Step { .. })), "{more:?}");
}

#[test]
fn denied_clean_room_change_is_retried_at_its_retry_time() {
    for (wait, asks) in [(1, false), (0, true)] {
        let effect = about_to_step(|s| {
            let again_at = s.world.seen.now.checked_add(SignedDuration::from_secs(wait)).unwrap();
            let (reason, message) = (Reason::Refused, "may not".to_owned());
            let id = s.id("web");
            s.world.plan.services[id].allow_egress.clear();
            s.seen("web").refused = Some(Refusal { reason, message, again_at, since: None });
        });
        assert_eq!(matches!(effect, Some(Effect::Follow { .. })), asks, "{wait} s before: {effect:?}");
    }
}
