//! Isolation: the admission policies as data ([`policies`]), what enforces each control ([`controls`]) and verifies it ([`probe`]), the
//! evidence, and isolating without an operator ([`offline`]). `resurgam_core::isolation` decides; the code here reads and writes.

pub mod api_servers;
pub mod controls;
pub mod egress_exceptions;
pub mod ensure;
pub mod evidence;
pub mod impact;
pub mod offline;
pub mod other_policies;
pub mod policies;
pub mod preflight;
pub mod probe;
pub mod records;
pub mod verify_as_caller;

pub use resurgam_core::isolation::{
    MANAGED_BY, OPERATOR, PROBER, PROBER_WITHIN, PROBERS, RELEASE_FINALIZER, Seal, ending, failure, gitops,
    observation, pass, pod_security, retry, status, target, tighten, wanted,
};

pub use controls::{identity, label, list, network, workloads};
