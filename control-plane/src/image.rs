//! Images for the real node: a program of this machine with the libraries that it is linked to, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::run;

/// Writes an archive with an OCI image of `program` as its entrypoint, followed by `arguments`, and says where it is.
pub(crate) fn image(
    folder: &Path,
    name: &str,
    program: &Path,
    arguments: &[&str],
) -> anyhow::Result<PathBuf> {
    let file = program.file_name().context("the program has no name")?;
    let work = folder.join("image").join(file);
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let (root, layout) = (work.join("root"), work.join("layout"));
    let entrypoint = Path::new("/usr/bin").join(file);
    put(&root, program, &entrypoint)?;
    for library in libraries(program)? {
        put(&root, &library, &library)?;
    }
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let layer = work.join("layer.tar");
    archive(&root, &layer)?;
    let layer = blob(&layout, &fs::read(&layer)?)?;
    let mut command = vec![entrypoint.to_string_lossy().into_owned()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": arch, "os": "linux", "config": {"Entrypoint": command},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let of_type = |mut descriptor: Value, media_type: &str| {
        descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{media_type}"));
        descriptor
    };
    let config = of_type(blob(&layout, config.to_string().as_bytes())?, "config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [of_type(layer, "layer.v1.tar")],
    });
    let mut manifest = of_type(blob(&layout, manifest.to_string().as_bytes())?, "manifest.v1+json");
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    let image = work.join("image.tar");
    archive(&layout, &image)?;
    Ok(image)
}

/// The libraries that a program is linked to, and the loader that finds them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if String::from_utf8_lossy(&output.stderr).contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {}: {}", program.display(), said.trim());
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`; the kernel's own has no path.
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn put(root: &Path, from: &Path, to: &Path) -> anyhow::Result<()> {
    let to = root.join(to.strip_prefix("/").unwrap_or(to));
    fs::create_dir_all(to.parent().context("a path without a folder")?)?;
    fs::copy(from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn archive(folder: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("tar").args(["--owner=0", "--group=0", "-cf"]).arg(to).arg("-C").arg(folder).arg("."))
}

/// Keeps content under its digest, and describes it.
fn blob(layout: &Path, content: &[u8]) -> anyhow::Result<Value> {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(layout.join("blobs/sha256").join(&digest), content)?;
    Ok(json!({"digest": format!("sha256:{digest}"), "size": content.len()}))
}
