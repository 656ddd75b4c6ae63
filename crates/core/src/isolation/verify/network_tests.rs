use super::*;

fn ways(before: Connectivity, after: Connectivity) -> BeforeAfter {
    BeforeAfter { before, after }
}

fn failed() -> Connectivity {
    Connectivity::Failed("timed out".to_owned())
}

fn unknown() -> Connectivity {
    Connectivity::Unknown("its pod did not run".to_owned())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn tried(ingress: Connectivity, egress: Connectivity) -> NodeProbe {
    NodeProbe {
        ingress: ways(Connectivity::Connected, ingress),
        egress: ways(Connectivity::Connected, egress),
    }
}

fn fine() -> BeforeAfter {
    ways(Connectivity::Connected, Connectivity::Connected)
}

#[test]
fn enforced_means_connected_before_and_denied_after_both_ways() {
    let links = [Connectivity::Connected, failed(), unknown()];
    for control in links.iter().flat_map(|b| links.iter().map(|a| ways(b.clone(), a.clone()))) {
        for ingress in links.iter().flat_map(|b| links.iter().map(|a| ways(b.clone(), a.clone()))) {
            for egress in links.iter().flat_map(|b| links.iter().map(|a| ways(b.clone(), a.clone()))) {
                let node = NodeProbe { ingress: ingress.clone(), egress: egress.clone() };
                let verdict = judge(&control, &node);
                let holds = control == fine() && node == tried(failed(), failed());
                let leaks =
                    ingress.after == Connectivity::Connected || egress.after == Connectivity::Connected;
                assert_eq!(verdict == NodeVerdict::Enforced, holds, "{control:?} {node:?}");
                assert_eq!(matches!(verdict, NodeVerdict::NotEnforced(_)), leaks, "{control:?} {node:?}");
            }
        }
    }
}

#[test]
fn network_without_any_connectivity_is_inconclusive() {
    let dead = ways(failed(), failed());
    let node = NodeProbe { ingress: dead.clone(), egress: dead.clone() };
    let NodeVerdict::Inconclusive(why) = judge(&dead, &node) else { panic!("it shows nothing") };
    assert!(why.contains("between two pods without policies failed") && why.contains("timed out"), "{why}");
}

#[test]
fn a_report_that_is_missing_or_malformed_is_unknown() {
    let report = r#"{"targets": {"control": {"connected": true}, "node-1": {"connected": false, "detail": "refused"}}}"#;
    assert_eq!(Connectivity::read(Some(report), "control"), Connectivity::Connected);
    assert_eq!(Connectivity::read(Some(report), "node-1"), Connectivity::Failed("refused".into()));
    for (message, target) in [
        (None, "control"),
        (Some(""), "control"),
        (Some("{"), "control"),
        (Some("{}"), "control"),
        (Some(report), "other"),
    ] {
        assert!(
            matches!(Connectivity::read(message, target), Connectivity::Unknown(_)),
            "{message:?} {target}"
        );
    }
}

#[test]
fn a_node_that_leaks_stays_so_until_a_try_shows_otherwise() {
    let existing: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();
    let mut known = NodeRecords::new();
    let leak = NodeVerdict::NotEnforced("leak".into());
    record_probes(
        &mut known,
        [("a".to_owned(), leak), ("b".to_owned(), NodeVerdict::Enforced)].into(),
        &existing,
        at(1),
    );
    let found = verdict(&known, 2, None, at(0));
    assert_eq!((found.state, found.tried), (ControlState::NotEnforced, Some(at(1))));
    assert!(found.message.contains("on node a leak"), "{}", found.message);
    let mut both = known.clone();
    both.insert("b".to_owned(), known["a"].clone());
    let found = verdict(&both, 2, None, at(0));
    assert!(found.message.contains("on node a (and 1 more) leak"), "{}", found.message);
    record_probes(
        &mut known,
        [("a".to_owned(), NodeVerdict::Inconclusive("no pods".into()))].into(),
        &existing,
        at(2),
    );
    assert_eq!(verdict(&known, 2, Some("no pods"), at(0)).state, ControlState::NotEnforced);
    record_probes(&mut known, [("a".to_owned(), NodeVerdict::Enforced)].into(), &existing, at(3));
    assert_eq!(verdict(&known, 2, None, at(0)).state, ControlState::Tested);
    // A node that is gone holds nobody up.
    record_probes(
        &mut known,
        [("a".to_owned(), NodeVerdict::NotEnforced("leak".into()))].into(),
        &existing,
        at(4),
    );
    record_probes(&mut known, BTreeMap::new(), &["b".to_owned()].into(), at(5));
    assert_eq!(verdict(&known, 1, None, at(0)).state, ControlState::Tested);
}

#[test]
fn nothing_tried_is_unverifiable_and_says_why() {
    let found = verdict(&NodeRecords::new(), 2, Some("no image"), at(0));
    assert_eq!((found.state, found.tried), (ControlState::Unverifiable, None));
    assert!(found.message.ends_with("could not be tried: no image"), "{}", found.message);
    let unclear = NodeRecord { verdict: NodeVerdict::Inconclusive("its pod did not run".into()), at: at(1) };
    let found = verdict(&[("a".to_owned(), unclear)].into(), 1, None, at(0));
    assert_eq!(found.state, ControlState::Unverifiable);
    assert!(found.message.ends_with("node a: its pod did not run"), "{}", found.message);
}

#[test]
fn tested_says_on_how_many_nodes_and_what_could_not_be_tried() {
    let held = |second| NodeRecord { verdict: NodeVerdict::Enforced, at: at(second) };
    let known: NodeRecords = [("a".to_owned(), held(1)), ("b".to_owned(), held(7))].into();
    let found = verdict(&known, 40, Some("node c: no room"), at(0));
    assert_eq!((found.state, found.tried), (ControlState::Tested, Some(at(7))));
    assert!(
        found.message.contains("on 2 of 40 nodes (a, b). Not all could be tried: node c: no room"),
        "{}",
        found.message
    );
    // As many as are listed are all of them; of more, it says that there are more.
    for (nodes, listed) in [("abc", "on 3 of 3 nodes (a, b, c)"), ("abcde", "on 5 of 5 nodes (a, b, c, …)")]
    {
        let known: NodeRecords = nodes.chars().map(|node| (node.to_string(), held(1))).collect();
        let found = verdict(&known, known.len(), None, at(0));
        assert!(found.message.contains(listed), "{}", found.message);
    }
}

#[test]
fn outdated_verdicts_do_not_count_as_tested() {
    let held = NodeRecord { verdict: NodeVerdict::Enforced, at: at(10) };
    let found = verdict(&[("a".to_owned(), held)].into(), 1, Some("no room"), at(11));
    assert_eq!(found.state, ControlState::Unverifiable);
    assert!(found.message.ends_with("and not since: no room"), "{}", found.message);
    let held = NodeRecord { verdict: NodeVerdict::Enforced, at: at(10) };
    assert_eq!(verdict(&[("a".to_owned(), held)].into(), 1, None, at(10)).state, ControlState::Tested);
}

#[test]
fn nodes_take_turns_and_those_that_leak_come_first() {
    let ready: BTreeSet<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
    let known = |verdict, second| NodeRecord { verdict, at: at(second) };
    let nodes: NodeRecords = [
        ("a".to_owned(), known(NodeVerdict::Enforced, 9)),
        ("b".to_owned(), known(NodeVerdict::Enforced, 1)),
        ("d".to_owned(), known(NodeVerdict::NotEnforced("leak".into()), 8)),
        ("e".to_owned(), known(NodeVerdict::Enforced, 5)),
    ]
    .into();
    assert_eq!(choose_nodes(&ready, &nodes), ["d", "c", "b"]);
}

#[test]
fn any_termination_message_but_a_valid_report_is_no_connection() {
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<String>().for_each(|text| {
        for text in [text.clone(), format!("{{\"targets\":{{\"a\":{text}}}}}")] {
            if Connectivity::read(Some(&text), "a") == Connectivity::Connected {
                assert!(serde_json::from_str::<ConnectorReport>(&text).unwrap().targets["a"].connected);
            }
        }
    });
}
