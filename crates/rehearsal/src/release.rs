//! An earlier state of this repository: CRDs, RBAC and operator, to upgrade from and to roll back to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;

use crate::{install_of, repository, upgrade_to};

/// A checkout of an earlier state.
#[derive(Clone, Debug)]
pub struct Release {
    folder: PathBuf,
    operator: PathBuf,
    has_list_fence: bool,
}

impl Release {
    /// Returns the state at a commit with its operator built. Dependencies that both states share are built once. `None`: the commit is
    /// not in the local history.
    ///
    /// # Errors
    /// The checkout or the build fails.
    pub fn of(commit: &str) -> Result<Option<Self>> {
        let repository = repository(".").canonicalize()?;
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(&repository).args(arguments);
            git
        };
        let known = git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).stderr(Stdio::null()).status();
        if !known.is_ok_and(|known| known.success()) {
            return Ok(None);
        }
        let target = repository.join("target");
        let folder = target.join("releases").join(commit);
        std::fs::create_dir_all(&folder)?;
        let mut archive = git(&["archive", commit]).stdout(Stdio::piped()).spawn().context("git archive")?;
        let tar = archive.stdout.take().context("git archive says nothing")?;
        // As old as the commit: what was built of it before is not built again.
        let laid_out = Command::new("tar").arg("-x").arg("-C").arg(&folder).stdin(tar).status()?;
        ensure!(archive.wait()?.success() && laid_out.success(), "{commit} cannot be laid out");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .current_dir(&folder)
            .args(["build", "--quiet", "--locked", "--package", "resurgam", "--bin", "resurgam"])
            .env("CARGO_BUILD_BUILD_DIR", &target)
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .status()
            .context("cargo cannot be run")?;
        ensure!(built.success(), "the operator of {commit} does not build");
        let operator = folder.join("target/debug/resurgam");
        let named =
            git(&["grep", "--quiet", "resurgam-list-fence", commit, "--", "src", "crates"]).status()?;
        Ok(Some(Self { folder, operator, has_list_fence: named.success() }))
    }

    /// Returns whether it has a list fence.
    pub(crate) fn has_list_fence(&self) -> bool {
        self.has_list_fence
    }

    /// Returns the path of its operator.
    #[must_use]
    pub fn operator(&self) -> &Path {
        &self.operator
    }

    /// Installs its CRDs and RBAC in a cluster without isolation.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn install(&self, cluster: &ControlPlane) -> Result<()> {
        install_of(cluster, &self.folder).await
    }

    /// Replaces CRDs and RBAC by its own while something is isolated.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn upgrade(&self, cluster: &ControlPlane) -> Result<()> {
        upgrade_to(cluster, &self.folder).await
    }
}
