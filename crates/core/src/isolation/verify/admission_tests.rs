use super::*;
use ControlState::{Enforced, NotEnforced, Tested, Unverifiable};

/// Everything on servers `a`, `b` and so on showed this.
fn probed(shown: &[ProbeResult]) -> ProbeReport {
    let on = |(number, seen): (usize, &ProbeResult)| {
        let server = char::from(b'a' + u8::try_from(number).unwrap()).to_string();
        PROBED_POLICIES.map(|(control, policy)| PolicyProbe {
            server: server.clone(),
            listed: None,
            control,
            policy,
            result: seen.clone(),
        })
    };
    ProbeReport { probes: shown.iter().enumerate().flat_map(on).collect(), unknown: None }
}

fn unclear() -> ProbeResult {
    ProbeResult::Inconclusive("RBAC says no".to_owned())
}

fn away() -> ProbeResult {
    ProbeResult::Unreachable("Connection refused".to_owned())
}

#[test]
fn control_is_tested_only_if_every_api_server_denies() {
    use ProbeResult::{Admitted, Denied};
    // (what the servers showed, the state, what is said of the fence, does it hold, does it hold anywhere)
    let cases: [(&[ProbeResult], ControlState, &str, bool, bool); 10] = [
        (&[Denied], Tested, "tried, and refused by the policy at a", true, true),
        (&[Denied, Denied], Tested, "tried, and refused by the policy at a, b", true, true),
        (
            &[Denied, Admitted],
            NotEnforced,
            "tried, and not refused by resurgam-write-fence at b; refused at a",
            false,
            true,
        ),
        (&[Admitted], NotEnforced, "tried, and not refused by resurgam-write-fence at a", false, false),
        // Who lets through does, whoever else is silent.
        (
            &[Admitted, away(), unclear()],
            NotEnforced,
            "tried, and not refused by resurgam-write-fence at a",
            false,
            false,
        ),
        (
            &[Denied, away()],
            Unverifiable,
            "tried, and refused by the policy at a. Listed, and not tried: b: Connection refused",
            true,
            true,
        ),
        (
            &[away(), Denied, away()],
            Unverifiable,
            "tried, and refused by the policy at b. Listed, and not tried: a: Connection refused, and 1 more",
            true,
            true,
        ),
        (&[away()], Enforced, "written; could not be tried at a: Connection refused", false, false),
        // Who answers, and does not say that it refuses, is not down.
        (&[Denied, unclear()], Enforced, "written; could not be tried at b: RBAC says no", false, true),
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
    assert!(
        !ProbeReport::default().holds() && !ProbeReport::default().holds_somewhere(),
        "nothing was tried"
    );
}

#[test]
fn each_policy_counts_for_its_control_and_none_is_left_out() {
    for (number, (control, policy)) in PROBED_POLICIES.into_iter().enumerate() {
        let mut through = probed(&[ProbeResult::Denied, ProbeResult::Denied]);
        through.probes[PROBED_POLICIES.len() + number].result = ProbeResult::Admitted;
        assert!(!through.holds());
        assert_eq!(through.obstacles(), [format!("{policy} does not refuse at this level yet at b")]);
        for name in [ControlName::Lock, ControlName::Fence, ControlName::Guard] {
            let (state, message) = through.of(name);
            assert_eq!(state, if name == control { NotEnforced } else { Tested }, "{policy}: {message}");
        }
        let mut missing = probed(&[ProbeResult::Denied]);
        missing.probes.remove(number);
        assert!(!missing.holds(), "{policy} was not tried");
    }
}

#[test]
fn nothing_is_tested_while_the_api_servers_are_unknown() {
    let mut one = probed(&[ProbeResult::Denied]);
    one.unknown = Some("forbidden".to_owned());
    let (state, message) = one.of(ControlName::Lock);
    assert_eq!(state, Unverifiable);
    assert!(message.ends_with("Whether there are others is not known: forbidden"), "{message}");
    assert!(one.holds(), "that is no reason to leave it open");
}

#[test]
fn guard_names_its_unprobed_policy_and_shortens_server_lists() {
    let (_, message) = probed(&vec![ProbeResult::Denied; 6]).of(ControlName::Guard);
    assert_eq!(
        message,
        "tried, and refused by the policy at a, b, c, d and 2 more; that on volumes is not tried, as that would take a right \
         to write them"
    );
}
