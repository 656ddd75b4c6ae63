//! Images for the real node, built from files of this machine with the libraries that they are linked to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::run;

/// Content and configuration of an image.
#[derive(Debug, Clone, Default)]
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    user: Option<String>,
    files: Vec<(PathBuf, PathBuf)>,
    texts: Vec<(PathBuf, String)>,
}

impl Image {
    /// Returns an empty image of this name, such as `localhost/web:1`.
    #[must_use]
    pub fn new(name: &str) -> Image {
        Image { name: name.to_owned(), ..Image::default() }
    }

    /// Returns an image of this name with a program of this machine and its libraries. The entrypoint is the program with `arguments`.
    #[must_use]
    pub fn of_program(name: &str, program: &Path, arguments: &[&str]) -> Image {
        let place = Path::new("/usr/bin").join(program.file_name().unwrap_or_default());
        let mut image = Image::new(name).put(program, &place);
        image.entrypoint = vec![place.to_string_lossy().into_owned()];
        image.entrypoint.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        image
    }

    /// Adds a file of this machine at another path, with its libraries.
    #[must_use]
    pub fn put(mut self, file: &Path, place: &Path) -> Image {
        self.files.push((file.to_owned(), place.to_owned()));
        self
    }

    /// Adds a file or folder of this machine at the same path, with its libraries.
    #[must_use]
    pub fn with(self, path: impl AsRef<Path>) -> Image {
        let path = path.as_ref();
        self.put(path, path)
    }

    /// Adds a file with this content.
    #[must_use]
    pub fn with_text(mut self, path: &str, content: &str) -> Image {
        self.texts.push((path.into(), content.to_owned()));
        self
    }

    /// Sets user and group by number.
    #[must_use]
    pub fn run_as(mut self, user: &str) -> Image {
        self.user = Some(user.to_owned());
        self
    }

    /// Writes an archive of the image to `folder`, and returns its path and the image's name by digest.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<(PathBuf, String)> {
        let work = folder.join("image").join(self.name.replace(['/', ':'], "-"));
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        let (root, layout) = (work.join("root"), work.join("layout"));
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        for (file, place) in &self.files {
            copy(file, &root, place)?;
        }
        for library in libraries(self.files.iter().map(|(file, _)| file.as_path()))? {
            copy(&library, &root, &library)?;
        }
        for (place, text) in &self.texts {
            fs::write(in_root(&root, place)?, text)?;
        }
        let layer = work.join("layer.tar");
        archive(&root, &layer)?;
        let layer = blob(&layout, &fs::read(&layer)?)?;
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": arch, "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "User": self.user.as_deref().unwrap_or_default()},
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
        let manifest = of_type(blob(&layout, manifest.to_string().as_bytes())?, "manifest.v1+json");
        let repository = self.name.rsplit_once(':').map_or(self.name.as_str(), |(repository, _)| repository);
        let pinned = format!("{repository}@{}", manifest["digest"].as_str().unwrap_or_default());
        let called = |name: &str| {
            let mut manifest = manifest.clone();
            manifest["annotations"] = json!({"io.containerd.image.name": name});
            manifest
        };
        let index = json!({"schemaVersion": 2, "manifests": [called(&self.name), called(&pinned)]});
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
        let image = work.join("image.tar");
        archive(&layout, &image)?;
        Ok((image, pinned))
    }
}

/// Returns the libraries that files are linked to, and their loader.
fn libraries<'a>(files: impl Iterator<Item = &'a Path>) -> anyhow::Result<BTreeSet<PathBuf>> {
    let files: Vec<&Path> = files.filter(|file| file.is_file()).collect();
    if files.is_empty() {
        return Ok(BTreeSet::new());
    }
    // It ends with 1 if one of them is linked to nothing.
    let output = Command::new("ldd").args(&files).output().context("run ldd")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!said.contains("not found"), "ldd: {}", said.trim());
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, and `FILE:` before those of each of several files; the
    // kernel's own has no path.
    let paths = said.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Returns the path in the image of a file, and creates its folders.
fn in_root(root: &Path, place: &Path) -> anyhow::Result<PathBuf> {
    let place = root.join(place.strip_prefix("/").unwrap_or(place));
    fs::create_dir_all(place.parent().context("a path without a folder")?)?;
    Ok(place)
}

fn copy(from: &Path, root: &Path, place: &Path) -> anyhow::Result<()> {
    let to = in_root(root, place)?;
    run(Command::new("cp").arg("-RLT").arg(from).arg(to)).with_context(|| format!("copy {}", from.display()))
}

/// Makes a file readable by any user in the image.
fn archive(folder: &Path, to: &Path) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--mode=a+rX", "-cf"]).arg(to).arg("-C").arg(folder).arg(".");
    run(&mut tar)
}

/// Stores content under its digest, and returns its descriptor.
fn blob(layout: &Path, content: &[u8]) -> anyhow::Result<Value> {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(layout.join("blobs/sha256").join(&digest), content)?;
    Ok(json!({"digest": format!("sha256:{digest}"), "size": content.len()}))
}
