use super::*;
use ControlState::{Enforced, NotEnforced, Tested, Unverifiable};

/// Everything on servers `a`, `b` and so on showed this.
fn probed(shown: &[Seen]) -> Probed {
    let on = |(number, seen): (usize, &Seen)| {
        let server = char::from(b'a' + u8::try_from(number).unwrap()).to_string();
        TRIES.map(|(control, policy)| Tried {
            server: server.clone(),
            listed: None,
            control,
            policy,
            seen: seen.clone(),
        })
    };
    Probed { tries: shown.iter().enumerate().flat_map(on).collect(), unknown: None }
}

fn unclear() -> Seen {
    Seen::Unclear("RBAC says no".to_owned())
}

fn away() -> Seen {
    Seen::Unanswered("Connection refused".to_owned())
}

#[test]
fn a_control_is_tested_only_where_every_api_server_was_seen_to_refuse() {
    use Seen::{LetThrough, Refused};
    // (what the servers showed, the state, what is said of the fence, does it hold, does it hold anywhere)
    let cases: [(&[Seen], ControlState, &str, bool, bool); 10] = [
        (&[Refused], Tested, "tried, and refused by the policy at a", true, true),
        (&[Refused, Refused], Tested, "tried, and refused by the policy at a, b", true, true),
        (
            &[Refused, LetThrough],
            NotEnforced,
            "tried, and not refused by resurgam-write-fence at b; refused at a",
            false,
            true,
        ),
        (&[LetThrough], NotEnforced, "tried, and not refused by resurgam-write-fence at a", false, false),
        // Who lets through does, whoever else is silent.
        (
            &[LetThrough, away(), unclear()],
            NotEnforced,
            "tried, and not refused by resurgam-write-fence at a",
            false,
            false,
        ),
        (
            &[Refused, away()],
            Unverifiable,
            "tried, and refused by the policy at a. Listed, and not tried: b: Connection refused",
            true,
            true,
        ),
        (
            &[away(), Refused, away()],
            Unverifiable,
            "tried, and refused by the policy at b. Listed, and not tried: a: Connection refused, and 1 more",
            true,
            true,
        ),
        (&[away()], Enforced, "written; could not be tried at a: Connection refused", false, false),
        // Who answers, and does not say that it refuses, is not down.
        (&[Refused, unclear()], Enforced, "written; could not be tried at b: RBAC says no", false, true),
        (&[away(), unclear()], Enforced, "written; could not be tried at b: RBAC says no", false, false),
    ];
    for (shown, state, message, holds, somewhere) in cases {
        let probed = probed(shown);
        assert_eq!(probed.of(ControlName::Fence), (state, message.to_owned()), "{shown:?}");
        assert_eq!((probed.holds(), probed.holds_somewhere()), (holds, somewhere), "{shown:?}");
        assert_eq!(probed.obstacles().is_empty(), holds, "what does not hold says why: {shown:?}");
        for control in [ControlName::Lock, ControlName::Guard] {
            assert_eq!(probed.of(control).0, state, "{shown:?}");
        }
    }
    assert!(!Probed::default().holds() && !Probed::default().holds_somewhere(), "nothing was tried");
}

#[test]
fn each_policy_counts_for_its_control_and_none_is_left_out() {
    for (number, (control, policy)) in TRIES.into_iter().enumerate() {
        let mut through = probed(&[Seen::Refused, Seen::Refused]);
        through.tries[TRIES.len() + number].seen = Seen::LetThrough;
        assert!(!through.holds());
        assert_eq!(through.obstacles(), [format!("{policy} does not refuse at this level yet at b")]);
        for name in [ControlName::Lock, ControlName::Fence, ControlName::Guard] {
            let (state, message) = through.of(name);
            assert_eq!(state, if name == control { NotEnforced } else { Tested }, "{policy}: {message}");
        }
        let mut missing = probed(&[Seen::Refused]);
        missing.tries.remove(number);
        assert!(!missing.holds(), "{policy} was not tried");
    }
}

#[test]
fn nothing_is_tested_while_it_is_not_known_which_api_servers_there_are() {
    let mut one = probed(&[Seen::Refused]);
    one.unknown = Some("forbidden".to_owned());
    let (state, message) = one.of(ControlName::Lock);
    assert_eq!(state, Unverifiable);
    assert!(message.ends_with("Whether there are others is not known: forbidden"), "{message}");
    assert!(one.holds(), "that is no reason to leave it open");
}

#[test]
fn the_guard_says_which_of_it_is_not_tried_and_many_servers_stay_readable() {
    let (_, message) = probed(&vec![Seen::Refused; 6]).of(ControlName::Guard);
    assert_eq!(
        message,
        "tried, and refused by the policy at a, b, c, d and 2 more; that on volumes is not tried, as that would take a right \
         to write them"
    );
}
