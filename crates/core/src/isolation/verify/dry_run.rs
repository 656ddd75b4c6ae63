//! Judges the API server's answer to a dry-run request that a policy should deny. Only a denial that names the policy counts.

use kube::core::Status;

use super::admission::ProbeResult;
use crate::api::Isolation;
use crate::isolation::policy_names::{FENCES, static_name};

/// Answer to a dry-run request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The request would have succeeded.
    Accepted,
    /// The API server returned an error: its status, and the message.
    Status(Box<Status>, String),
    /// The API server did not answer: the reason, and the message.
    Unanswered(String, String),
    /// The request failed otherwise, with the message.
    Failed(String),
}

impl Answer {
    /// Returns whether one of these policies denied the request.
    #[must_use]
    pub fn is_refused_by(&self, policies: &[&str]) -> bool {
        matches!(self, Self::Status(status, _) if !refusals(status, policies).is_empty())
    }

    /// Checks that the namespace has no fence. A denial by other admission, such as a quota, counts as proof; an error before admission
    /// does not, as the request did not reach the fence.
    ///
    /// # Errors
    /// The fence denies writes, or the answer proves nothing: the reason.
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

    /// Returns the probe result for policies of which each is sufficient. Each names the level in its message. For isolation any of them
    /// suffices; for loosening all that deny must agree on the level, as otherwise one of them is stale.
    #[must_use]
    pub fn judge(&self, policies: &[&str], level: Isolation) -> ProbeResult {
        let (status, text) = match self {
            Self::Accepted => return ProbeResult::Admitted,
            Self::Status(status, text) => (status, text),
            Self::Unanswered(why, _) => return ProbeResult::Unreachable(why.clone()),
            Self::Failed(why) => return ProbeResult::Inconclusive(why.clone()),
        };
        let refusals = refusals(status, policies);
        if refusals.is_empty() {
            return ProbeResult::Inconclusive(text.clone());
        }
        let at = |level: Isolation| {
            let said = format!("is quarantined ({})", level.label().unwrap_or("open"));
            move |text: &&str| text.contains(&said)
        };
        let is_denied = match level {
            // Both levels deny the same requests.
            Isolation::Contained | Isolation::Sealed => {
                refusals.iter().any(|text| at(Isolation::Contained)(text) || at(Isolation::Sealed)(text))
            }
            Isolation::CleanRoom | Isolation::Open => refusals.iter().all(at(level)),
        };
        if is_denied { ProbeResult::Denied } else { ProbeResult::Admitted }
    }
}

/// Returns the messages of these policies, if one of them denied the request.
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

/// Returns the result for a caller who isolates without the operator. `policy`: result for a NetworkPolicy, which holders of `repair` may
/// write; `pod`: result for a pod, which is denied to everyone.
#[must_use]
pub fn as_caller(policy: ProbeResult, pod: ProbeResult) -> ProbeResult {
    match (pod, policy) {
        (ProbeResult::Inconclusive(why) | ProbeResult::Unreachable(why), ProbeResult::Admitted) => {
            ProbeResult::Inconclusive(format!(
                "it does not refuse you a NetworkPolicy, which is right if you may repair this Quarantine, and a hole if not; a pod, \
             which it refuses everybody, could not be tried: {why}"
            ))
        }
        // Responders need no right to create pods: the first answer says more.
        (ProbeResult::Inconclusive(_) | ProbeResult::Unreachable(_), policy) => policy,
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
    fn open_needs_an_answer_from_admission() {
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
            (answer(403, refusal), ProbeResult::Denied),
            (answer(403, &refusal.replace("fence' with", "fence.static.k8s.io' with")), ProbeResult::Denied),
            (answer(403, &refusal.replace("(sealed)", "(contained)")), ProbeResult::Denied),
            (answer(403, &by_list), ProbeResult::Denied),
            (answer(403, &refusal.replace("(sealed)", "(clean-room)")), ProbeResult::Admitted),
            (Answer::Accepted, ProbeResult::Admitted),
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
            assert!(matches!(unclear.judge(&FENCES, Isolation::Sealed), ProbeResult::Inconclusive(_)));
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
            (said(write, "clean-room"), Some(said(list, "clean-room")), ProbeResult::Denied),
            (said(write, "clean-room"), None, ProbeResult::Denied),
            (said(write, "clean-room"), Some(said(list, "sealed")), ProbeResult::Admitted),
            (said(list, "sealed"), Some(said(write, "clean-room")), ProbeResult::Admitted),
            (said(write, "clean-room"), Some("by another policy".to_owned()), ProbeResult::Denied),
        ] {
            assert_eq!(answer(first, second).judge(&FENCES, Isolation::CleanRoom), expected);
        }
    }

    #[test]
    fn caller_result_falls_back_to_the_pod_probe() {
        let (unclear, silent) =
            (ProbeResult::Inconclusive("403".to_owned()), ProbeResult::Unreachable("no answer".to_owned()));
        for (policy, pod, expected) in [
            (ProbeResult::Admitted, ProbeResult::Denied, ProbeResult::Denied),
            (ProbeResult::Admitted, ProbeResult::Admitted, ProbeResult::Admitted),
            (unclear.clone(), ProbeResult::Admitted, ProbeResult::Admitted),
            (silent.clone(), unclear.clone(), silent.clone()),
        ] {
            assert_eq!(as_caller(policy.clone(), pod.clone()), expected, "{policy:?} {pod:?}");
        }
        for pod in [unclear, silent] {
            assert!(
                matches!(as_caller(ProbeResult::Admitted, pod), ProbeResult::Inconclusive(why) if why.contains("a pod, which"))
            );
        }
    }
}
