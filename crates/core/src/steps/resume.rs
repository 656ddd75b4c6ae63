//! Step `resume`: hands a released service back to GitOps at an approved revision. One file for each controller.

use serde_json::Value;

use super::StepContext;
use crate::api::StepPhase;
use crate::api::step::ResumeStepSpec;

pub mod argocd;
pub mod flux;

/// How a step starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// It was started before in this attempt.
    Begun,
    /// By this merge patch.
    Write(Value),
    /// Not yet: something else has to end before, as the message says.
    Waits(String),
}

/// Returns why the step can never hand the service back.
pub(super) fn problem(spec: &ResumeStepSpec, phase: StepPhase) -> Option<String> {
    if phase != StepPhase::AfterRelease {
        return Some("hands an open namespace back: it needs phase AfterRelease".to_owned());
    }
    match (&spec.flux, &spec.argocd) {
        (Some(_), None) | (None, Some(_)) => None,
        _ => Some("names not exactly one of flux, argocd".to_owned()),
    }
}

/// Returns the token that tells this attempt's request from all others.
#[must_use]
pub fn token(context: &StepContext) -> String {
    format!("resurgam-{}-{}", context.attempt, &context.digest()[..16])
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a value for a message: never empty.
fn named<'a>(value: &'a str, none: &'a str) -> &'a str {
    if value.is_empty() { none } else { value }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resume_is_for_open_namespaces_only() {
        let spec = |value: Value| serde_json::from_value::<ResumeStepSpec>(value).unwrap();
        let flux = json!({"kind": "Kustomization", "namespace": "flux-system", "name": "shop", "revision": "sha1:0"});
        let one = spec(json!({"flux": flux}));
        assert_eq!(problem(&one, StepPhase::AfterRelease), None);
        assert!(problem(&one, StepPhase::CleanRoom).unwrap().contains("needs phase AfterRelease"));
        assert!(problem(&spec(json!({})), StepPhase::AfterRelease).unwrap().contains("exactly one"));
    }

    #[test]
    fn token_differs_between_attempts_and_claims() {
        let context = StepContext { attempt: 2, step: "gitops".to_owned(), ..StepContext::default() };
        let own = token(&context);
        assert!(own.starts_with("resurgam-2-"), "{own}");
        assert_eq!(own, token(&context.clone()));
        let later =
            StepContext { claimed_at: Some("2026-11-30T10:00:00Z".parse().unwrap()), ..context.clone() };
        assert_ne!(own, token(&later));
        assert_ne!(own, token(&StepContext { attempt: 3, ..context }));
    }
}
