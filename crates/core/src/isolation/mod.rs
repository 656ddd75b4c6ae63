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
pub mod seal;
pub mod status;
pub mod target;
pub mod tighten;
pub mod verify;
pub mod wanted;

pub use seal::Seal;

/// Value of the label [`crate::api::MANAGED_BY_LABEL`] on every object that the operator creates.
pub const MANAGED_BY: &str = "resurgam";
/// User name of the operator's ServiceAccount. The policy `resurgam-single-writer` contains it too.
pub const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
/// User name of the account that the operator impersonates to probe the fence. It may create pods and patch namespaces, and nothing else.
pub const PROBER: &str = "system:serviceaccount:resurgam-system:resurgam-prober";
/// Name of a ServiceAccount that exists in no namespace. With [`PROBERS`] as its only group, the operator impersonates it to probe what
/// accounts of an isolated namespace may not do.
pub const PROBER_WITHIN: &str = "resurgam-probe";
/// Group of [`PROBER_WITHIN`]. It may patch namespaces, and nothing else.
pub const PROBERS: &str = "resurgam:probers";
/// Finalizer of a Quarantine: the release has to be carried out before the object is removed.
pub const RELEASE_FINALIZER: &str = "resurgam.dev/release";
