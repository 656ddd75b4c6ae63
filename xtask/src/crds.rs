//! `cargo xtask crds`: writes `charts/resurgam/files/crds/*.yaml` from the types.

use std::path::Path;

use anyhow::{Context, Result};

/// Arguments of `cargo xtask crds`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail where a file differs from what would be written.
    #[arg(long)]
    check: bool,
}

/// Writes (or checks) one file for each kind.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/resurgam/files/crds");
    std::fs::create_dir_all(&folder)?;
    for crd in resurgam::api::crds() {
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        let text = serde_yaml::to_string(&crd)?;
        if args.check {
            let found = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            anyhow::ensure!(found == text, "{} is stale: run `cargo xtask crds`", path.display());
        } else {
            std::fs::write(&path, text)?;
        }
    }
    Ok(())
}
