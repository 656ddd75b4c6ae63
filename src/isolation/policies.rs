//! The admission policies, as data: `policies/*.yaml`, and one binding for each.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
};
use kube::core::ObjectMeta;

use crate::api::MANAGED_BY_LABEL;

/// Keeps labels and `resurgam.dev/*` annotations of a quarantined namespace, and the namespace.
pub const NAMESPACE_LOCK: &str = "resurgam-namespace-lock";
/// Refuses writes and connections in a quarantined namespace.
pub const WRITE_FENCE: &str = "resurgam-write-fence";
/// Keeps Quarantines from being lifted or eased.
pub const QUARANTINE_LOCK: &str = "resurgam-quarantine-lock";
/// Vouches for who made a Decision.
pub const DECISION: &str = "resurgam-decision";
/// Keeps what the operator says to the operator.
pub const SINGLE_WRITER: &str = "resurgam-single-writer";

/// Label of ours on whatever we make, with [`MANAGED_BY_LABEL`] as its key.
pub const MANAGED_BY: &str = "resurgam";

const SOURCES: [&str; 5] = [
    include_str!("policies/namespace-lock.yaml"),
    include_str!("policies/write-fence.yaml"),
    include_str!("policies/quarantine-lock.yaml"),
    include_str!("policies/decision.yaml"),
    include_str!("policies/single-writer.yaml"),
];

/// A policy and what puts it into force.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What is refused.
    pub policy: ValidatingAdmissionPolicy,
    /// Deny and audit, everywhere.
    pub binding: ValidatingAdmissionPolicyBinding,
}

/// All policies of ours, each with its binding.
///
/// # Errors
/// A policy file that does not parse; a unit test reads them all.
pub fn all() -> Result<Vec<Policy>, serde_yaml::Error> {
    SOURCES
        .into_iter()
        .map(|source| {
            let policy: ValidatingAdmissionPolicy = serde_yaml::from_str(source)?;
            let binding = binding(&policy);
            Ok(Policy { policy, binding })
        })
        .collect()
}

fn binding(policy: &ValidatingAdmissionPolicy) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: ObjectMeta {
            name: policy.metadata.name.clone(),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: policy.metadata.name.clone(),
            validation_actions: Some(vec!["Deny".to_owned(), "Audit".to_owned()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Action, INCIDENT_ANNOTATION, ISOLATION_LABEL, Isolation, REASON_ANNOTATION};
    use crate::isolation::{OPERATOR, RELEASE_FINALIZER};

    #[test]
    fn every_policy_parses_fails_closed_and_denies_as_forbidden() {
        let policies = all().unwrap();
        let names: Vec<_> = policies.iter().map(|p| p.policy.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, [NAMESPACE_LOCK, WRITE_FENCE, QUARANTINE_LOCK, DECISION, SINGLE_WRITER]);
        for Policy { policy, binding } in &policies {
            let name = policy.metadata.name.as_deref().unwrap();
            let spec = policy.spec.as_ref().unwrap();
            assert_eq!(spec.failure_policy.as_deref(), Some("Fail"), "{name}");
            for validation in spec.validations.as_ref().unwrap() {
                assert_eq!(validation.reason.as_deref(), Some("Forbidden"), "{name}");
                assert!(validation.message_expression.is_some(), "{name}");
            }
            let bound = binding.spec.as_ref().unwrap();
            assert_eq!(bound.policy_name.as_deref(), Some(name));
            assert_eq!(bound.validation_actions.as_ref().unwrap()[0], "Deny");
        }
    }

    #[test]
    fn policies_and_code_agree_on_names() {
        let text = SOURCES.concat();
        for word in [ISOLATION_LABEL, REASON_ANNOTATION, INCIDENT_ANNOTATION, OPERATOR, RELEASE_FINALIZER] {
            assert!(text.contains(word), "{word}");
        }
        assert!(text.contains(&format!("== '{}'", Isolation::CleanRoom.label().unwrap())));
        // resurgam-decision takes an action in lower case for its verb.
        for action in [Action::Retry, Action::Override] {
            assert_eq!(action.as_str().to_lowercase(), action.verb());
        }
    }

    #[test]
    fn no_role_of_ours_holds_a_wildcard_verb() {
        let text = include_str!("../../deploy/rbac.yaml");
        assert!(!text.contains("verbs: [\"*\"]") && !text.contains("verbs: ['*']"));
    }
}
