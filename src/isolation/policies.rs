//! The admission policies as data: `policies/*.yaml`, one binding for each, and the same as static manifests.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::ObjectMeta;

pub use resurgam_core::isolation::policy_names::*;

use super::MANAGED_BY;
use super::controls::list;
use crate::api::{MANAGED_BY_LABEL, OPERATOR_NAMESPACE, RECORDS_NAMESPACE};

/// Version of the policies, increased by each release that changes one. An operator does not modify policies of a newer version.
pub const VERSION: u64 = 8;
/// Annotation with [`VERSION`] on policies and bindings.
pub const VERSION_ANNOTATION: &str = "resurgam.dev/policy-version";
const SOURCES: [&str; 14] = [
    include_str!("policies/namespace-lock.yaml"),
    include_str!("policies/write-fence.yaml"),
    include_str!("policies/quarantine-lock.yaml"),
    include_str!("policies/decision.yaml"),
    include_str!("policies/plan-author.yaml"),
    include_str!("policies/single-writer.yaml"),
    include_str!("policies/own-guard.yaml"),
    include_str!("policies/credential-guard.yaml"),
    include_str!("policies/account-guard.yaml"),
    include_str!("policies/rights-guard.yaml"),
    include_str!("policies/volume-guard.yaml"),
    include_str!("policies/install-guard.yaml"),
    include_str!("policies/operator-limit.yaml"),
    include_str!("policies/workload-limit.yaml"),
];
const STATIC_SOURCE: &str = include_str!("policies/static/policy-guard.yaml");

/// A policy and its binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The policy.
    pub policy: ValidatingAdmissionPolicy,
    /// The binding, with Deny and Audit in all namespaces.
    pub binding: ValidatingAdmissionPolicyBinding,
}

/// Returns all policies, each with its binding.
///
/// # Errors
/// A policy file does not parse. A unit test parses them all.
pub fn all() -> Result<Vec<Policy>, serde_yaml::Error> {
    let mut policies = SOURCES.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let is_fence = |p: &&Policy| p.policy.metadata.name.as_deref() == Some(WRITE_FENCE);
    let by_list = policies.iter().find(is_fence).map(|fence| by_list(fence.policy.clone()));
    policies.extend(by_list);
    Ok(policies)
}

/// Returns the write fence for namespaces on an isolation list: the same rules, with the level from the list instead of the label. One
/// write of a list fences any number of namespaces, and passes no webhook on namespaces.
fn by_list(mut fence: ValidatingAdmissionPolicy) -> Policy {
    fence.metadata.name = Some(LIST_FENCE.to_owned());
    if let Some(spec) = &mut fence.spec {
        spec.param_kind =
            Some(ParamKind { api_version: Some("v1".to_owned()), kind: Some("ConfigMap".to_owned()) });
        if let Some(constraints) = &mut spec.match_constraints {
            constraints.namespace_selector = Some(may_be_isolated());
        }
        // Namespaces that the cluster and the operator need are never fenced, whatever a list says.
        spec.match_conditions = Some(vec![MatchCondition {
            name: "listed".to_owned(),
            expression: "has(params.data) && ['_sealed', '_contained', '_clean-room'].exists(l, l in params.data && \
                params.data[l].contains('\\n' + request.namespace + '\\n')) && !request.namespace.startsWith('kube-') && \
                !(request.namespace in ['default', 'resurgam-system', 'resurgam-records'])"
                .to_owned(),
        }]);
        for variable in spec.variables.iter_mut().flatten().filter(|variable| variable.name == "level") {
            // The tightest level on any list applies.
            variable.expression =
                "['sealed', 'contained', 'clean-room'].filter(l, '_' + l in params.data && \
                params.data['_' + l].contains('\\n' + request.namespace + '\\n'))[0]"
                    .to_owned();
        }
    }
    let binding = binding(&fence);
    Policy { policy: fence, binding }
}

/// Selects all namespaces except those that are never isolated and have frequent writes, since the API server evaluates both lists at
/// each write.
fn may_be_isolated() -> LabelSelector {
    let names =
        ["kube-system", "kube-public", "kube-node-lease", "default", OPERATOR_NAMESPACE, RECORDS_NAMESPACE];
    let requirement = LabelSelectorRequirement {
        key: "kubernetes.io/metadata.name".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(names.map(str::to_owned).into()),
    };
    LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None }
}

/// Returns the policies as static manifests for the API server, named as it requires: those without a parameter, and one that denies
/// changes to all others.
///
/// # Errors
/// A policy file does not parse. A unit test parses them all.
pub fn all_static() -> Result<Vec<Policy>, serde_yaml::Error> {
    let mut policies = all()?;
    policies
        .retain(|Policy { policy, .. }| policy.spec.as_ref().is_none_or(|spec| spec.param_kind.is_none()));
    policies.push(read(STATIC_SOURCE)?);
    for Policy { policy, binding } in &mut policies {
        let name = static_name(policy.metadata.name.as_deref().unwrap_or_default());
        if let Some(spec) = &mut binding.spec {
            spec.policy_name = Some(name.clone());
        }
        binding.metadata.name = Some(name.clone());
        policy.metadata.name = Some(name);
    }
    Ok(policies)
}

fn read(source: &str) -> Result<Policy, serde_yaml::Error> {
    let mut policy: ValidatingAdmissionPolicy = serde_yaml::from_str(source)?;
    let version = (VERSION_ANNOTATION.to_owned(), VERSION.to_string());
    policy.metadata.annotations.get_or_insert_default().extend([version]);
    let binding = binding(&policy);
    Ok(Policy { policy, binding })
}

/// Returns what happens if every isolation list is lost. Policies that match writes in the whole cluster then allow them: the label still
/// fences, and the operator recreates the lists. Policies that match few writes deny them.
fn without_lists(policy: &ValidatingAdmissionPolicy) -> &'static str {
    match policy.metadata.name.as_deref() {
        Some(LIST_FENCE | ACCOUNT_GUARD) => "Allow",
        _ => "Deny",
    }
}

fn binding(policy: &ValidatingAdmissionPolicy) -> ValidatingAdmissionPolicyBinding {
    let parameter = policy.spec.as_ref().and_then(|spec| spec.param_kind.as_ref());
    ValidatingAdmissionPolicyBinding {
        metadata: ObjectMeta {
            name: policy.metadata.name.clone(),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            annotations: policy.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: policy.metadata.name.clone(),
            validation_actions: Some(vec!["Deny".to_owned(), "Audit".to_owned()]),
            param_ref: parameter.map(|_| ParamRef {
                name: None,
                namespace: Some(OPERATOR_NAMESPACE.to_owned()),
                parameter_not_found_action: Some(without_lists(policy).to_owned()),
                selector: Some(list::selector()),
            }),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::api::{Action, INCIDENT_ANNOTATION, ISOLATION_LABEL, Isolation, REASON_ANNOTATION};
    use crate::isolation::{OPERATOR, RELEASE_FINALIZER};

    #[test]
    fn every_policy_parses_fails_closed_and_denies_as_forbidden() {
        let policies = all().unwrap();
        let names: Vec<_> = policies.iter().map(|p| p.policy.metadata.name.as_deref().unwrap()).collect();
        let locks = [NAMESPACE_LOCK, WRITE_FENCE, QUARANTINE_LOCK, DECISION, PLAN_AUTHOR, SINGLE_WRITER];
        let guards = [OWN_GUARD, CREDENTIAL_GUARD, ACCOUNT_GUARD, RIGHTS_GUARD, VOLUME_GUARD, INSTALL_GUARD];
        let limits = [OPERATOR_LIMIT, WORKLOAD_LIMIT];
        assert_eq!(names, [&locks[..], &guards[..], &limits[..], &[LIST_FENCE]].concat());
        for Policy { policy, binding } in policies.iter().chain(&all_static().unwrap()) {
            let name = policy.metadata.name.as_deref().unwrap();
            let spec = policy.spec.as_ref().unwrap();
            assert_eq!(spec.failure_policy.as_deref(), Some("Fail"), "{name}");
            for validation in spec.validations.as_ref().unwrap() {
                assert_eq!(validation.reason.as_deref(), Some("Forbidden"), "{name}");
                assert!(validation.message_expression.is_some(), "{name}");
            }
            assert_eq!(binding.metadata.name.as_deref(), Some(name));
            assert_eq!(binding.metadata.annotations, policy.metadata.annotations, "{name}");
            assert_eq!(binding.metadata.labels.as_ref().unwrap()[MANAGED_BY_LABEL], MANAGED_BY, "{name}");
            let bound = binding.spec.as_ref().unwrap();
            assert_eq!(bound.policy_name.as_deref(), Some(name));
            assert_eq!(bound.validation_actions.as_ref().unwrap()[0], "Deny");
            // Without its parameters a guard denies, except guards that match writes in the whole cluster.
            assert_eq!(bound.param_ref.is_some(), spec.param_kind.is_some(), "{name}");
            let wanted = if [LIST_FENCE, ACCOUNT_GUARD].contains(&name) { "Allow" } else { "Deny" };
            assert!(
                bound
                    .param_ref
                    .as_ref()
                    .is_none_or(|p| p.parameter_not_found_action.as_deref() == Some(wanted)),
                "{name}"
            );
        }
    }

    #[test]
    fn policies_that_say_something_else_bear_another_version() {
        let said: Vec<_> = all().unwrap().into_iter().chain(all_static().unwrap()).collect();
        let said =
            said.iter().map(|p| format!("{:?}{:?}", p.policy.spec, p.binding.spec)).collect::<String>();
        let said: String = Sha256::digest(said).iter().map(|byte| format!("{byte:02x}")).collect();
        let known = (8, "e3ffad75e923ab5ba8d0ca77e4f8ba7915630308d8fef613ccbb62603ea95b5a");
        assert_eq!((VERSION, said.as_str()), known, "raise VERSION, or an older operator takes them back");
    }

    #[test]
    fn policies_and_code_agree_on_names() {
        let text = SOURCES.concat();
        for word in [
            ISOLATION_LABEL,
            REASON_ANNOTATION,
            INCIDENT_ANNOTATION,
            OPERATOR,
            RELEASE_FINALIZER,
            list::CONFIG_MAPS[0],
            list::CONFIG_MAPS[1],
            list::LABEL,
            &format!("'{}'", list::ROLES_KEY),
        ] {
            assert!(text.contains(word), "{word}");
        }
        assert!(text.contains(&format!("== '{}'", Isolation::CleanRoom.label().unwrap())));
        // resurgam-decision uses the action in lower case as its verb.
        for action in Action::all() {
            assert_eq!(action.as_str().to_lowercase(), action.verb());
        }
    }

    #[test]
    fn static_manifests_are_valid_and_guard_all_policies() {
        let all_static = all_static().unwrap();
        for Policy { policy, .. } in &all_static {
            let name = policy.metadata.name.as_deref().unwrap();
            assert!(name.ends_with(STATIC) && policy.spec.as_ref().unwrap().param_kind.is_none(), "{name}");
        }
        let has = |name| all_static.iter().any(|p| p.policy.metadata.name == Some(static_name(name)));
        assert!([NAMESPACE_LOCK, WRITE_FENCE, QUARANTINE_LOCK, POLICY_GUARD].into_iter().all(has));
        let prefix = STATIC_SOURCE.contains("oldObject.metadata.name.startsWith('resurgam-')");
        assert!(
            prefix
                && all().unwrap().iter().all(|p| p
                    .policy
                    .metadata
                    .name
                    .as_deref()
                    .unwrap()
                    .starts_with("resurgam-"))
        );
    }

    #[test]
    fn no_role_of_ours_holds_a_wildcard_verb() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/resurgam/templates/rbac");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 4);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let verbs = text.split("verbs:").skip(1).filter_map(|rest| rest.split(']').next());
            assert!(verbs.into_iter().all(|verbs| !verbs.contains('*')), "{}", file.display());
        }
    }
}
