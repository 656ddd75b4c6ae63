//! Version of this binary.

/// Annotation of the operator's Lease: the leader's [`full`] version.
pub const ANNOTATION: &str = "resurgam.dev/version";
/// Version in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, if the build set `RESURGAM_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("RESURGAM_COMMIT");

/// Version and commit: `0.1.0+31c1692`, or `0.1.0`.
#[must_use]
pub fn full() -> String {
    match COMMIT.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{VERSION}+{commit}"),
        None => VERSION.to_owned(),
    }
}

/// Returns whether another [`full`] version equals this one. Commits are compared if both are known.
#[must_use]
pub fn is_compatible(other: &str) -> bool {
    are_equal(&full(), other)
}

fn are_equal(one: &str, other: &str) -> bool {
    let parts =
        |text: &str| text.split_once('+').map(|(version, commit)| (version.to_owned(), commit.to_owned()));
    match (parts(one), parts(other)) {
        (Some(one), Some(other)) => one == other,
        (Some((version, _)), None) => version == other,
        (None, Some((version, _))) => version == one,
        (None, None) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_commit_is_no_difference() {
        assert!(
            are_equal("0.1.0", "0.1.0") && are_equal("0.1.0+abc", "0.1.0") && are_equal("0.1.0", "0.1.0+abc")
        );
        assert!(
            !are_equal("0.1.0+abc", "0.1.0+abd")
                && !are_equal("0.1.0", "0.2.0")
                && !are_equal("0.1.0+abc", "0.2.0+abc")
        );
    }
}
