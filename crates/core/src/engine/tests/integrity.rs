//! What a status says of each aspect that an attacker can change.

use super::story::{Story, story};
use crate::api::{Aspect, AspectState, Phase, Verdict};

fn state(s: &Story, service: &str, aspect: Aspect) -> Option<(AspectState, Vec<String>)> {
    let shown = s.status(service).integrity.iter().find(|of| of.aspect == aspect)?;
    Some((shown.state, shown.gates.clone()))
}

#[test]
fn recovered_service_says_what_was_proved_and_what_nobody_looked_at() {
    let mut s = story("- {name: db}");
    assert_eq!(state(&s, "db", Aspect::Images), None, "nothing is shown before an attempt");
    s.run(60);
    assert_eq!(state(&s, "db", Aspect::Images), Some((AspectState::Proved, vec!["images".to_owned()])));
    for aspect in Aspect::ALL.into_iter().filter(|aspect| *aspect != Aspect::Images) {
        assert_eq!(state(&s, "db", aspect), Some((AspectState::NotLookedAt, Vec::new())), "{aspect:?}");
    }
}

#[test]
fn aspect_is_not_proved_while_a_gate_fails_or_is_unknown() {
    for verdict in [Verdict::Fail, Verdict::Unknown] {
        let mut s = story("- {name: db}");
        s.says("db", Phase::BeforeRestore, verdict);
        s.run(60);
        let (shown, _) = state(&s, "db", Aspect::Images).unwrap();
        assert_eq!(shown, AspectState::NotProved, "{verdict:?}");
    }
}

#[test]
fn external_system_has_no_aspect_to_look_at() {
    let mut s = story(
        "- {name: dns, namespaces: [], omitDefaultGates: [images, up], ungated: {reason: external}, \
         gates: {beforeRelease: [{name: http, http: {url: 'https://dns.example'}}]}}",
    );
    s.run(60);
    assert_eq!(s.status("dns").integrity, []);
}

#[test]
fn pass_by_exception_is_not_shown_as_a_full_proof() {
    use crate::api::Proof;
    let mut s = story("- {name: db}");
    s.run(60);
    let service = &s.world.plan.services[s.id("db")];
    let mut status = s.status("db").clone();
    let images = |status: &_| crate::engine::integrity::shown(service, status)[0].state;
    assert_eq!(images(&status), AspectState::Proved);
    status.gates.iter_mut().find(|gate| gate.name == "images").unwrap().proof = Proof::Partial;
    assert_eq!(images(&status), AspectState::ProvedWithExceptions);
}
