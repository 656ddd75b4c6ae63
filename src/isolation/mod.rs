//! Isolation: the admission policies as data, the network, workloads to zero and back, identities made anew, what delivers, the
//! capture, and how each control is
//! tried. The decisions are pure ([`target`], the planning half of [`workloads`] and [`network`]); the controller acts.

pub mod api_servers;
pub mod controls;
pub mod ensure;
pub mod evidence;
pub mod failure;
pub mod holes;
pub mod impact;
pub mod observation;
pub mod offline;
pub mod other_policies;
pub mod policies;
pub mod preflight;
pub mod probe;
pub mod records;
pub mod target;
pub mod verify_as_caller;

pub use resurgam_core::isolation::{deliverers, pod_security, tighten};

pub use controls::{identity, label, list, network, workloads};

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
