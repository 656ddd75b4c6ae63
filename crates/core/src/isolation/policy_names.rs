//! Names of the admission policies. Their manifests say what each denies.

/// Protects the labels and `resurgam.dev/*` annotations of a quarantined namespace, and the namespace itself.
pub const NAMESPACE_LOCK: &str = "resurgam-namespace-lock";
/// Denies writes and connections in a quarantined namespace.
pub const WRITE_FENCE: &str = "resurgam-write-fence";
/// Denies the same in namespaces that are on an isolation list, without the label.
pub const LIST_FENCE: &str = "resurgam-list-fence";
/// Policies that deny writes in a namespace. Each is sufficient.
pub const FENCES: [&str; 2] = [WRITE_FENCE, LIST_FENCE];
/// Denies lifting or easing a Quarantine without the right to.
pub const QUARANTINE_LOCK: &str = "resurgam-quarantine-lock";
/// Ensures that `spec.by` of a Decision is its creator.
pub const DECISION: &str = "resurgam-decision";
/// Denies plans whose author may not use the plan's ServiceAccount.
pub const PLAN_AUTHOR: &str = "resurgam-plan-author";
/// Denies writes to the operator's own objects by others.
pub const SINGLE_WRITER: &str = "resurgam-single-writer";
/// Denies writes by ServiceAccounts of quarantined namespaces to other namespaces.
pub const ACCOUNT_GUARD: &str = "resurgam-account-guard";
/// Denies granting rights to accounts of quarantined namespaces, and rights over those namespaces to anyone.
pub const RIGHTS_GUARD: &str = "resurgam-rights-guard";
/// Protects volumes and snapshots of quarantined namespaces.
pub const VOLUME_GUARD: &str = "resurgam-volume-guard";
/// Protects what isolation depends on: our namespace, the isolation lists, Incidents, Decisions.
pub const OWN_GUARD: &str = "resurgam-own-guard";
/// Denies tokens and impersonation of the accounts that the other policies exempt.
pub const CREDENTIAL_GUARD: &str = "resurgam-credential-guard";
/// Protects our kinds and our namespace while anything is quarantined.
pub const INSTALL_GUARD: &str = "resurgam-install-guard";
/// Limits what the operator's own accounts may do.
pub const OPERATOR_LIMIT: &str = "resurgam-operator-limit";
/// Limits how and where the operator may change workloads.
pub const WORKLOAD_LIMIT: &str = "resurgam-workload-limit";
/// Protects the policies themselves. A static manifest only: policies in the API do not apply to policies.
pub const POLICY_GUARD: &str = "resurgam-policy-guard";
/// Suffix that the API server requires of names in static manifests.
pub const STATIC: &str = ".static.k8s.io";

/// Returns the name of a policy as a static manifest.
#[must_use]
pub fn static_name(policy: &str) -> String {
    format!("{policy}{STATIC}")
}
