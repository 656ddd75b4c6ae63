//! Decisions about isolation: what a Quarantine is to enforce ([`target`]), what is in place ([`observation`]), and what each control
//! writes ([`controls`]). The shell reads, writes and tries; it decides none of this.

pub mod api_servers;
pub mod controls;
pub mod egress_exceptions;
pub mod ending;
pub mod failure;
pub mod gitops;
pub mod observation;
pub mod other_policies;
pub mod pass;
pub mod pod_security;
pub mod policy_names;
pub mod retry;
pub mod status;
pub mod target;
pub mod tighten;
pub mod verify;
pub mod wanted;

/// Label of ours on whatever we make, with [`crate::api::MANAGED_BY_LABEL`] as its key.
pub const MANAGED_BY: &str = "resurgam";
/// The operator's account, as the API server knows it. The policy `resurgam-single-writer` names it too.
pub const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
/// The account that tries the fence, by impersonation: it may create pods and patch namespaces, and no more.
pub const PROBER: &str = "system:serviceaccount:resurgam-system:resurgam-prober";
/// Name of an account that no namespace has. With [`PROBERS`] as its only group, the operator tries as it what accounts of an isolated
/// namespace may not.
pub const PROBER_WITHIN: &str = "resurgam-probe";
/// The group of whoever tries as an account of an isolated namespace: it may patch namespaces, and no more.
pub const PROBERS: &str = "resurgam:probers";
/// Finalizer of a Quarantine: its deletion is a release, which has to be carried out.
pub const RELEASE_FINALIZER: &str = "resurgam.dev/release";
