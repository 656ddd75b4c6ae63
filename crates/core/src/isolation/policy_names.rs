//! Names of the admission policies. What each refuses is in their manifests.

/// Keeps labels and `resurgam.dev/*` annotations of a quarantined namespace, and the namespace.
pub const NAMESPACE_LOCK: &str = "resurgam-namespace-lock";
/// Refuses writes and connections in a quarantined namespace.
pub const WRITE_FENCE: &str = "resurgam-write-fence";
/// The same, for namespaces that are on an isolation list: no label is needed.
pub const LIST_FENCE: &str = "resurgam-list-fence";
/// The policies that fence a namespace's writes. Each refuses by itself.
pub const FENCES: [&str; 2] = [WRITE_FENCE, LIST_FENCE];
/// Keeps Quarantines from being lifted or eased.
pub const QUARANTINE_LOCK: &str = "resurgam-quarantine-lock";
/// Vouches for who made a Decision.
pub const DECISION: &str = "resurgam-decision";
/// Keeps plans from whoever may not use their account.
pub const PLAN_AUTHOR: &str = "resurgam-plan-author";
/// Keeps what the operator says to the operator.
pub const SINGLE_WRITER: &str = "resurgam-single-writer";
/// Keeps accounts of quarantined namespaces from writing elsewhere.
pub const ACCOUNT_GUARD: &str = "resurgam-account-guard";
/// Keeps rights from accounts of quarantined namespaces, and rights over those namespaces from everybody.
pub const RIGHTS_GUARD: &str = "resurgam-rights-guard";
/// Keeps volumes and snapshots of quarantined namespaces.
pub const VOLUME_GUARD: &str = "resurgam-volume-guard";
/// Keeps what isolation rests on: our namespace, the guards' ConfigMap, Incidents, Decisions.
pub const OWN_GUARD: &str = "resurgam-own-guard";
/// Keeps the accounts that the other policies let through from being lent.
pub const CREDENTIAL_GUARD: &str = "resurgam-credential-guard";
/// Keeps our kinds and what is in our namespace while anything is quarantined.
pub const INSTALL_GUARD: &str = "resurgam-install-guard";
/// Bounds what the operator's own accounts may do.
pub const OPERATOR_LIMIT: &str = "resurgam-operator-limit";
/// Bounds what the operator does to workloads, and where.
pub const WORKLOAD_LIMIT: &str = "resurgam-workload-limit";
/// Keeps the policies themselves. A static manifest only: policies in the API are not asked about policies.
pub const POLICY_GUARD: &str = "resurgam-policy-guard";
/// What the API server wants the names of static manifests to end with.
pub const STATIC: &str = ".static.k8s.io";

/// What a policy is called as a static manifest.
#[must_use]
pub fn static_name(policy: &str) -> String {
    format!("{policy}{STATIC}")
}
