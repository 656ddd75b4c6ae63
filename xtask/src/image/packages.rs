//! Debian packages, and the files of them that the image needs.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tar::{Archive, EntryType};

use super::layer::Tree;
use super::layout::sha256;

/// Packages of the base layer: the C library with its resolver, the unwinder that Rust binaries link to, TLS root certificates, time
/// zones, and the Debian release, by which scanners know what to compare versions with.
const BASE: &[&str] = &["base-files", "ca-certificates", "libc6", "libgcc-s1", "tzdata"];

/// A package.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// SHA-256 of the package file, from which anyone can rebuild the layer.
    pub(crate) sha256: String,
    control: String,
    files: Tree,
}

impl Package {
    /// Returns the content of a kept file.
    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        self.files.content(path)
    }
}

/// Downloads the packages that this machine's apt would install to a separate folder. Its previous content is replaced once all are
/// there. apt verifies each against the archive's signature.
pub(crate) fn fetch(folder: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    // apt asks for these folders and does not make them.
    for needed in ["apt/lists/partial", "apt/cache/archives/partial"] {
        fs::create_dir_all(partial.join(needed))
            .with_context(|| format!("cannot create {}", partial.display()))?;
    }
    let names: Vec<String> = BASE.iter().map(|name| (*name).to_owned()).collect();
    let own_lists = if apt(&partial, false, "download", &names).is_err() {
        // A container often has no lists, or old ones; the user need not be root to have some of their own.
        anstream::eprintln!("image: this machine's lists are missing or old; fetching lists for this build");
        apt(&partial, true, "update", &[])?;
        apt(&partial, true, "download", &names)?;
        true
    } else {
        false
    };
    // libgcc-s1 keeps its licence in a package whose name has the compiler's version in it.
    let depends = dpkg_deb("--field", &find(&partial, "libgcc-s1")?, &["Depends"])?;
    let depends = String::from_utf8_lossy(&depends).into_owned();
    let licence = depends.split([',', ' ']).find(|name| name.starts_with("gcc-") && name.ends_with("-base"));
    apt(&partial, own_lists, "download", &licence.map(str::to_owned).into_iter().collect::<Vec<_>>())?;

    fs::remove_dir_all(partial.join("apt"))?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::rename(&partial, folder).with_context(|| format!("cannot write {}", folder.display()))
}

/// Reads all packages in a folder, sorted by name.
pub(crate) fn read(folder: &Path) -> Result<Vec<Package>> {
    let mut packages = debs(folder)?.iter().map(|path| read_one(path)).collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    for name in BASE {
        ensure!(
            packages.iter().filter(|package| package.name == *name).count() == 1,
            "{} has no package {name}, or several versions of it: the base layer needs one. Without --packages, what apt would \
             install is downloaded",
            folder.display()
        );
    }
    Ok(packages)
}

/// Returns the base layer's files: those kept of the packages, and those that Debian's installer would create.
pub(crate) fn base(packages: &[Package]) -> Result<Tree> {
    let mut tree = Tree::default();
    for package in packages {
        tree.extend(package.files.clone());
        // One file for each package, as distroless images have it: scanners read the versions there.
        tree.file(format!("var/lib/dpkg/status.d/{}", package.name), package.control.as_bytes());
    }
    // Debian 12 has libraries in /lib, later ones in /usr/lib: here both are one place.
    tree.link("lib", "usr/lib");
    tree.link("lib64", "usr/lib64");
    tree.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin\n",
    );
    tree.file("etc/group", "root:x:0:\nnonroot:x:65532:\n");
    tree.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    // What update-ca-certificates writes. There is no shell to run it in.
    let certificates = tree.take_files("usr/share/ca-certificates/");
    ensure!(certificates.len() > 50, "ca-certificates has {} certificates only", certificates.len());
    // A certificate whose last line does not end would run into the next.
    let lines =
        certificates.into_iter().flat_map(|certificate| [certificate.trim_ascii().to_vec(), b"\n".to_vec()]);
    let bundle: Vec<u8> = lines.flatten().collect();
    tree.file("etc/ssl/certs/ca-certificates.crt", bundle);
    Ok(tree)
}

fn read_one(path: &Path) -> Result<Package> {
    let control =
        String::from_utf8(dpkg_deb("--field", path, &[])?).context("a control file is not UTF-8")?;
    let field = |name: &str| -> Result<String> {
        let line = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.with_context(|| format!("{} has no field {name}", path.display()))?.to_owned())
    };
    let mut files = Tree::default();
    let archive = dpkg_deb("--fsys-tarfile", path, &[])?;
    for entry in Archive::new(archive.as_slice()).entries()? {
        let mut entry = entry?;
        let Some(place) = place(&entry.path()?.to_string_lossy()) else { continue };
        match entry.header().entry_type() {
            EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                // A library's loader is a program, too; nothing else of the base is ever run.
                if entry.header().mode()? & 0o111 == 0 {
                    files.file(place, content);
                } else {
                    files.program(place, content);
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.context("a link without a target")?;
                files.link(place, target.to_string_lossy());
            }
            EntryType::Link => {
                let target = entry.link_name()?.context("a link without a target")?;
                let target = self::place(&target.to_string_lossy()).unwrap_or_default();
                let content = files.content(&target).with_context(|| {
                    format!("{}: /{place} is a link to something left out", path.display())
                })?;
                files.file(place, content.to_vec());
            }
            _ => {}
        }
    }
    let bytes = fs::read(path)?;
    Ok(Package {
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
        sha256: sha256(&bytes),
        control,
        files,
    })
}

/// Returns the path of a package's file in the image, if the operator or a scanner may need it. Licences are kept: they must accompany
/// the files.
fn place(path: &str) -> Option<String> {
    let path = path.trim_start_matches('.').trim_start_matches('/');
    let path = match path.split_once('/') {
        Some(("lib" | "lib64", _)) => format!("usr/{path}"),
        _ => path.to_owned(),
    };
    let parts: Vec<&str> = path.split('/').collect();
    let is_kept = match parts.as_slice() {
        ["etc", "debian_version" | "os-release"] | ["usr", "lib", "os-release"] => true,
        // Converters of character sets and auditors of the loader, which lie in folders, are not.
        ["usr", "lib", triplet, library] => triplet.ends_with("-linux-gnu") && library.contains(".so"),
        ["usr", "lib" | "lib64", loader] => loader.starts_with("ld-linux"),
        ["usr", "share", "zoneinfo", first, ..] => !matches!(*first, "posix" | "right" | ""),
        ["usr", "share", "ca-certificates", "mozilla", certificate] => certificate.ends_with(".crt"),
        ["usr", "share", "common-licenses", licence] => !licence.is_empty(),
        ["usr", "share", "doc", package, "copyright"] => !package.is_empty(),
        // libgcc-s1's is a link to another package's.
        ["usr", "share", "doc", "libgcc-s1"] => true,
        _ => false,
    };
    is_kept.then_some(path)
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension() == Some(OsStr::new("deb"))).collect())
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let is_it = |path: &PathBuf| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}_")))
    };
    debs(folder)?.into_iter().find(is_it).with_context(|| format!("apt-get downloaded no {name}"))
}

fn apt(folder: &Path, own_lists: bool, action: &str, names: &[String]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Root would hand the download to a user who may not write here.
    command.current_dir(folder).args(["-qq", "-o", "APT::Sandbox::User=root"]);
    if own_lists {
        // In full: apt takes a relative path from its own folders.
        let own = folder.canonicalize()?.join("apt").display().to_string();
        command.args([
            "-o",
            &format!("Dir::State::Lists={own}/lists"),
            "-o",
            &format!("Dir::Cache={own}/cache"),
        ]);
    }
    command.arg(action).args(names);
    output(command, "the base layer is made of Debian's packages, which apt-get downloads").map(drop).context(
        "cannot download the base layer's packages. Packages of an earlier build are taken by --packages FOLDER",
    )
}

fn dpkg_deb(action: &str, path: &Path, rest: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new("dpkg-deb");
    command.arg(action).arg(path).args(rest);
    Ok(output(command, "Debian's packages are unpacked by dpkg-deb, of the package dpkg")?.stdout)
}

/// Runs a program to its end. An error contains its output.
pub(crate) fn output(mut command: Command, needed: &str) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}: {needed}"))?;
    ensure!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}
