//! `cargo xtask crds`: writes `charts/resurgam/files/crds/*.yaml` and `docs/api.md` from the types.

use std::path::Path;

use anyhow::{Context, Result};

mod reference;

/// Arguments of `cargo xtask crds`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a file differs.
    #[arg(long)]
    check: bool,
}

/// Writes or checks one file per kind, and the API reference.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("charts/resurgam/files/crds");
    std::fs::create_dir_all(&folder)?;
    let kinds = resurgam::api::crds();
    let mut files = vec![(root.join("docs/api.md"), reference::page(&kinds))];
    for crd in &kinds {
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        files.push((path, serde_yaml::to_string(crd)?));
    }
    for (path, text) in files {
        if args.check {
            let found = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            anyhow::ensure!(found == text, "{} is stale: run `cargo xtask crds`", path.display());
        } else {
            std::fs::write(&path, text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_as_the_types_say() {
        run(&Args { check: true }).unwrap();
    }
}
