//! Output of a watch, by fault.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn event(kind: &str, name: &str, version: usize) -> String {
    let object = serde_json::json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": version.to_string()}});
    format!("{}\n", serde_json::json!({"type": kind, "object": object}))
}

/// Everything that is handed on by then.
fn all(shaper: &mut Shaper, now: Duration) -> Vec<Out> {
    std::iter::from_fn(|| shaper.hand_on(now)).collect()
}

fn lines(events: &[String]) -> Vec<Out> {
    events.iter().map(|event| Out::Line(Bytes::from(event.clone()))).collect()
}

#[test]
fn without_faults_every_line_passes_at_once_however_it_is_cut() {
    let events = [event("ADDED", "a", 1), event("MODIFIED", "a", 2), "not JSON\n".to_owned()];
    let bytes = events.concat();
    for size in 1..bytes.len() {
        let mut shaper = Shaper::default();
        let mut out = Vec::new();
        for chunk in bytes.as_bytes().chunks(size) {
            assert!(shaper.take(SECOND, chunk, |_| None).is_empty());
            out.extend(all(&mut shaper, SECOND));
        }
        assert_eq!(out, lines(&events));
    }
}

#[test]
fn a_watch_that_lags_tells_everything_and_late() {
    let mut shaper = Shaper::new(SECOND * 3);
    let events = [event("MODIFIED", "a", 1), event("MODIFIED", "a", 2)];
    shaper.take(SECOND, events[0].as_bytes(), |_| None);
    shaper.take(SECOND * 2, events[1].as_bytes(), |_| None);
    assert_eq!(shaper.due(), Some(SECOND * 4));
    assert_eq!(all(&mut shaper, SECOND * 3), []);
    assert_eq!(all(&mut shaper, SECOND * 4), lines(&events[..1]));
    assert_eq!(all(&mut shaper, SECOND * 5), lines(&events[1..]));
}

#[test]
fn held_back_changes_collapse_but_additions_and_ends_do_not() {
    let mut shaper = Shaper::default();
    let events = [
        event("MODIFIED", "a", 1),
        event("ADDED", "b", 2),
        event("MODIFIED", "b", 3),
        event("MODIFIED", "a", 4),
        event("DELETED", "b", 5),
    ];
    let mut first = Some((Fault::EventHeld, SECOND));
    let struck = shaper.take(SECOND, events.concat().as_bytes(), |_| first.take());
    assert_eq!(struck, [Fault::EventHeld, Fault::Coalesced]);
    assert_eq!(all(&mut shaper, SECOND), []);
    assert_eq!(all(&mut shaper, SECOND * 2), lines(&events[1..]));
}

#[test]
fn faults_of_an_event() {
    let [first, second] = [event("ADDED", "a", 1), event("MODIFIED", "a", 2)];
    let half = first[..first.len() / 2].to_owned();
    let gone = String::from_utf8(GONE.to_vec()).unwrap();
    for (fault, text, end) in [
        (Fault::EventTwice, vec![first.clone(), first.clone(), second.clone()], vec![]),
        (Fault::WatchBroken, vec![half], vec![Out::Break]),
        (Fault::WatchGone, vec![gone], vec![Out::End]),
    ] {
        let mut shaper = Shaper::default();
        let mut chosen = Some((fault, SECOND));
        let both = format!("{first}{second}");
        let struck = shaper.take(SECOND, both.as_bytes(), |object| {
            assert_eq!(object, "n/a");
            chosen.take()
        });
        assert_eq!(struck, [fault]);
        assert_eq!(all(&mut shaper, SECOND), [lines(&text), end].concat(), "{fault:?}");
    }
}

proptest! {
    #[test]
    fn delays_and_repeats_keep_order_and_the_last_state_of_objects(
        came in prop::collection::vec((0..3usize, 0..4u64, 0..3u8), 1..40),
        lag in 0..3u64,
    ) {
        let mut shaper = Shaper::new(Duration::from_millis(lag * 5));
        let mut now = Duration::ZERO;
        let mut last = std::collections::BTreeMap::new();
        let mut told = Vec::new();
        for (version, (object, wait, fault)) in came.into_iter().enumerate() {
            now += Duration::from_millis(wait);
            let name = ["a", "b", "c"][object];
            last.insert(name, version);
            let chosen = [None, Some((Fault::EventHeld, Duration::from_millis(7))), Some((Fault::EventTwice, SECOND))];
            shaper.take(now, event("MODIFIED", name, version).as_bytes(), |_| chosen[usize::from(fault)]);
            told.extend(all(&mut shaper, now));
        }
        shaper.end(now, false);
        told.extend(all(&mut shaper, now + SECOND));
        prop_assert_eq!(told.pop(), Some(Out::End));
        let mut before = 0;
        let mut heard = std::collections::BTreeMap::new();
        for out in told {
            let Out::Line(line) = out else { panic!("{out:?}") };
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let version: usize = value["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            prop_assert!(version >= before);
            before = version;
            heard.insert(value["object"]["metadata"]["name"].as_str().unwrap().to_owned(), version);
        }
        let last: std::collections::BTreeMap<_, _> = last.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
        prop_assert_eq!(heard, last);
    }
}
