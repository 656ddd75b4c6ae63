//! Of which version this binary is.

/// Annotation of the operator's Lease: the leader's [`full`] version.
pub const ANNOTATION: &str = "resurgam.dev/version";
/// As in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, if whoever built it said so: `RESURGAM_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("RESURGAM_COMMIT");

/// Version and commit: `0.1.0+31c1692`, or `0.1.0`.
#[must_use]
pub fn full() -> String {
    match COMMIT.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{VERSION}+{commit}"),
        None => VERSION.to_owned(),
    }
}
