//! What an answer of the API server to a dry-run shows of the policies that are to refuse it. Only a refusal by the policy's own name
//! counts.

use kube::core::Status;

use super::admission::Seen;
use crate::api::Isolation;
use crate::isolation::policy_names::{FENCES, static_name};

/// The answer to a dry-run.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It would have been written.
    Accepted,
    /// The API server said something else, in its own terms and as people read it.
    Status(Box<Status>, String),
    /// Nobody answered: why, and as people read it.
    Unanswered(String, String),
    /// It failed on the way, and how.
    Failed(String),
}

impl Answer {
    /// Did one of these policies refuse it?
    #[must_use]
    pub fn is_refused_by(&self, policies: &[&str]) -> bool {
        matches!(self, Self::Status(status, _) if !refusals(status, policies).is_empty())
    }

    /// Does it show that the namespace is free of the fence? What else refuses a pod, such as a quota, is not ours to judge, as long as it
    /// was admission that refused. Whoever was turned away before that saw no fence, and no answer is no proof.
    ///
    /// # Errors
    /// It is not, or nobody can say: why.
    pub fn shows_open(&self) -> Result<(), String> {
        let (status, text) = match self {
            Self::Accepted => return Ok(()),
            Self::Status(status, text) => (status, text),
            Self::Unanswered(_, text) | Self::Failed(text) => return Err(text.clone()),
        };
        let by_rights = status.message.contains("User \"") && status.message.contains(" cannot ");
        let by_admission =
            matches!(status.code, 400 | 403 | 422) && !by_rights && refusals(status, &FENCES).is_empty();
        if by_admission { Ok(()) } else { Err(text.clone()) }
    }

    /// Returns what it shows of policies of which each refuses by itself. All of them say the level in their message. Any of them
    /// isolates; but what loosens has to be agreed by all that refuse, else one of them is stale.
    #[must_use]
    pub fn judge(&self, policies: &[&str], level: Isolation) -> Seen {
        let (status, text) = match self {
            Self::Accepted => return Seen::LetThrough,
            Self::Status(status, text) => (status, text),
            Self::Unanswered(why, _) => return Seen::Unanswered(why.clone()),
            Self::Failed(why) => return Seen::Unclear(why.clone()),
        };
        let refusals = refusals(status, policies);
        if refusals.is_empty() {
            return Seen::Unclear(text.clone());
        }
        let at = |level: Isolation| {
            let said = format!("is quarantined ({})", level.label().unwrap_or("open"));
            move |text: &&str| text.contains(&said)
        };
        let is_refused = match level {
            // Between the two, nothing is let through that either refuses.
            Isolation::Contained | Isolation::Sealed => {
                refusals.iter().any(|text| at(Isolation::Contained)(text) || at(Isolation::Sealed)(text))
            }
            Isolation::CleanRoom | Isolation::Open => refusals.iter().all(at(level)),
        };
        if is_refused { Seen::Refused } else { Seen::LetThrough }
    }
}

/// What these policies said, if it was they that refused.
fn refusals<'a>(status: &'a Status, policies: &[&str]) -> Vec<&'a str> {
    let causes =
        status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let named = |name: &str| format!("ValidatingAdmissionPolicy '{name}'");
    let by = |text: &&str| {
        policies
            .iter()
            .any(|policy| text.contains(&named(policy)) || text.contains(&named(&static_name(policy))))
    };
    if status.code != 403 {
        return Vec::new();
    }
    std::iter::once(status.message.as_str()).chain(causes).filter(by).collect()
}

/// Returns what the fence shows to who isolates without an operator. `policy`: the answer to a NetworkPolicy, which who may `repair` is
/// let through; `pod`: the answer to a pod, which it refuses everybody.
#[must_use]
pub fn as_caller(policy: Seen, pod: Seen) -> Seen {
    match (pod, policy) {
        (Seen::Unclear(why) | Seen::Unanswered(why), Seen::LetThrough) => Seen::Unclear(format!(
            "it does not refuse you a NetworkPolicy, which is right if you may repair this Quarantine, and a hole if not; a pod, \
             which it refuses everybody, could not be tried: {why}"
        )),
        // The right to create pods is not needed to respond: the first answer says more.
        (Seen::Unclear(_) | Seen::Unanswered(_), policy) => policy,
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, message: &str) -> Answer {
        let status = Status::failure(message, "Forbidden").with_code(code);
        Answer::Status(Box::new(status), format!("try: {message}"))
    }

    #[test]
    fn open_is_what_admission_let_through_or_refused_for_reasons_of_its_own() {
        assert_eq!(Answer::Accepted.shows_open(), Ok(()));
        for of_others in ["exceeded quota: q", "a limit that a pod cannot exceed", "not for User \"prober\""]
        {
            let refusal = format!("pods \"resurgam-probe\" is forbidden: {of_others}");
            assert_eq!(answer(403, &refusal).shows_open(), Ok(()), "{refusal}");
        }
        for closed in [
            answer(
                403,
                "ValidatingAdmissionPolicy 'resurgam-write-fence' with binding 'x' denied request: no",
            ),
            answer(
                403,
                "pods is forbidden: User \"prober\" cannot create resource \"pods\" in API group \"\"",
            ),
            answer(
                403,
                "users \"prober\" is forbidden: User \"operator\" cannot impersonate resource \"users\"",
            ),
            answer(401, "Unauthorized"),
            answer(404, "namespaces \"a\" not found"),
            answer(429, "Too many requests"),
            answer(500, "etcdserver: request timed out"),
            Answer::Unanswered("no answer".to_owned(), "try: no answer".to_owned()),
            Answer::Failed("try: no certificate".to_owned()),
        ] {
            let text = format!("{closed:?}");
            assert!(closed.shows_open().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_refusal_by_the_policy_at_this_level_counts() {
        let refusal = "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'resurgam-write-fence' with binding \
            'resurgam-write-fence' denied request: namespace a is quarantined (sealed): CREATE pods";
        let by_list = refusal.replace("write-fence", "list-fence").replace("(sealed)", "(contained)");
        for (answer, expected) in [
            (answer(403, refusal), Seen::Refused),
            (answer(403, &refusal.replace("fence' with", "fence.static.k8s.io' with")), Seen::Refused),
            (answer(403, &refusal.replace("(sealed)", "(contained)")), Seen::Refused),
            (answer(403, &by_list), Seen::Refused),
            (answer(403, &refusal.replace("(sealed)", "(clean-room)")), Seen::LetThrough),
            (Answer::Accepted, Seen::LetThrough),
        ] {
            assert_eq!(answer.judge(&FENCES, Isolation::Sealed), expected);
        }
        for unclear in [
            answer(403, "User \"prober\" cannot create resource \"pods\""),
            answer(403, &refusal.replace("resurgam-write-fence", "another")),
            answer(422, refusal),
            answer(500, "etcdserver: request timed out"),
            Answer::Failed("try: no certificate".to_owned()),
        ] {
            assert!(matches!(unclear.judge(&FENCES, Isolation::Sealed), Seen::Unclear(_)));
        }
    }

    #[test]
    fn a_clean_room_is_one_only_where_all_fences_agree() {
        let said = |fence: &str, level: &str| {
            format!(
                "ValidatingAdmissionPolicy '{fence}' with binding 'b' denied request: namespace a is quarantined ({level}): no"
            )
        };
        let answer = |first: String, second: Option<String>| {
            let mut status = Status::failure(&first, "Forbidden").with_code(403);
            let causes: Vec<_> =
                std::iter::once(first).chain(second).map(|message| json!({"message": message})).collect();
            status.details = serde_json::from_value(json!({"causes": causes})).unwrap();
            Answer::Status(Box::new(status), "try".to_owned())
        };
        let (write, list) = (FENCES[0], FENCES[1]);
        for (first, second, expected) in [
            (said(write, "clean-room"), Some(said(list, "clean-room")), Seen::Refused),
            (said(write, "clean-room"), None, Seen::Refused),
            (said(write, "clean-room"), Some(said(list, "sealed")), Seen::LetThrough),
            (said(list, "sealed"), Some(said(write, "clean-room")), Seen::LetThrough),
            (said(write, "clean-room"), Some("by another policy".to_owned()), Seen::Refused),
        ] {
            assert_eq!(answer(first, second).judge(&FENCES, Isolation::CleanRoom), expected);
        }
    }

    #[test]
    fn who_isolates_without_an_operator_is_refused_a_pod_or_does_not_know() {
        let (unclear, silent) = (Seen::Unclear("403".to_owned()), Seen::Unanswered("no answer".to_owned()));
        for (policy, pod, expected) in [
            (Seen::LetThrough, Seen::Refused, Seen::Refused),
            (Seen::LetThrough, Seen::LetThrough, Seen::LetThrough),
            (unclear.clone(), Seen::LetThrough, Seen::LetThrough),
            (silent.clone(), unclear.clone(), silent.clone()),
        ] {
            assert_eq!(as_caller(policy.clone(), pod.clone()), expected, "{policy:?} {pod:?}");
        }
        for pod in [unclear, silent] {
            assert!(
                matches!(as_caller(Seen::LetThrough, pod), Seen::Unclear(why) if why.contains("a pod, which"))
            );
        }
    }
}
