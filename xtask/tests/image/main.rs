//! The image that `cargo xtask image` writes, as a container runtime and a registry get it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Stands in for the operator: these tests are about everything around it.
const BINARY: &str = "/usr/bin/true";

/// The packages that all builds here are made of; none where this machine has no Debian tools. They stay with the build, so that who is
/// offline can test.
static PACKAGES: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let lacks =
        ["apt-get", "dpkg-deb"].iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(lacks) = lacks {
        assert!(std::env::var_os("RESURGAM_PARTS").is_none(), "{lacks} is missing");
        eprintln!("{lacks} is missing: the image is not tested");
        return None;
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    if !out.join("packages").exists() {
        built(
            Command::new(env!("CARGO_BIN_EXE_xtask")).args(["image", "--binary", BINARY, "--out"]).arg(&out),
        );
    }
    Some(out.join("packages"))
});

/// An image of its own in a folder that goes away.
static IMAGE: LazyLock<Option<(TempDir, Image)>> = LazyLock::new(|| {
    let packages = PACKAGES.as_ref()?;
    let out = TempDir::new().unwrap();
    built(xtask_image(out.path(), packages).args(["--binary", BINARY]));
    let image = Image::read(&out.path().join("oci"));
    Some((out, image))
});

struct Image {
    digest: String,
    manifest: Value,
    config: Value,
    /// What the layers have, later ones over earlier ones, by path.
    files: BTreeMap<String, File>,
}

struct File {
    mode: u32,
    owner: (u64, u64),
    is_link: bool,
    content: Vec<u8>,
}

impl Image {
    fn read(layout: &Path) -> Self {
        let json = |content: Vec<u8>| serde_json::from_slice::<Value>(&content).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let content = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
            assert_eq!(sha256(&content), digest, "a blob is not what its name says");
            assert_eq!(descriptor["size"], content.len(), "{digest}");
            content
        };
        let index = json(fs::read(layout.join("index.json")).unwrap());
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        let mut files = BTreeMap::new();
        for (layer, uncompressed) in manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .zip(config["rootfs"]["diff_ids"].as_array().unwrap())
        {
            let mut archive = Vec::new();
            flate2::read::GzDecoder::new(blob(layer).as_slice()).read_to_end(&mut archive).unwrap();
            assert_eq!(sha256(&archive), uncompressed.as_str().unwrap());
            for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned();
                let header = entry.header().clone();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                let file = File {
                    mode: header.mode().unwrap(),
                    owner: (header.uid().unwrap(), header.gid().unwrap()),
                    is_link: header.entry_type().is_symlink(),
                    content,
                };
                files.insert(path, file);
            }
        }
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        Self { digest, manifest, config, files }
    }

    fn text(&self, path: &str) -> &str {
        let file = self.files.get(path).unwrap_or_else(|| panic!("/{path} is missing"));
        std::str::from_utf8(&file.content).unwrap()
    }
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn xtask_image(out: &Path, packages: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["image", "--out"]).arg(out).arg("--packages").arg(packages);
    command
}

/// Runs a build that succeeds, and returns its stdout.
fn built(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn same_binary_and_packages_give_the_same_digest() {
    let Some(packages) = PACKAGES.as_ref() else { return };
    let folder = TempDir::new().unwrap();
    let build = |name: &str, umask: &str, zone: &str, time: SystemTime, mode: u32, more: &[u8]| {
        let own = folder.path().join(name);
        fs::create_dir_all(own.join("packages")).unwrap();
        let copy = |from: &Path, to: &Path, more: &[u8], mode: u32| {
            fs::write(to, [&fs::read(from).unwrap(), more].concat()).unwrap();
            fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
            fs::File::options().append(true).open(to).unwrap().set_modified(time).unwrap();
        };
        for package in fs::read_dir(packages).unwrap() {
            let package = package.unwrap();
            copy(&package.path(), &own.join("packages").join(package.file_name()), b"", mode);
        }
        let binary = own.join(format!("binary-{name}"));
        copy(Path::new(BINARY), &binary, more, mode);
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"umask "$1"; shift; exec "$@""#, "sh", umask, env!("CARGO_BIN_EXE_xtask")]);
        shell.args(["image", "--packages", "packages", "--out", "out", "--binary"]).arg(&binary);
        let digest = built(shell.current_dir(&own).env("TZ", zone));
        let read = |name: &str| sha256(&fs::read(own.join("out").join(name)).unwrap());
        (digest, read("resurgam.tar"), read("resurgam.cdx.json"))
    };
    let now = SystemTime::now();
    let one = build("one", "022", "UTC", now, 0o755, b"");
    let other = build("another", "077", "Asia/Tokyo", now - Duration::from_secs(400 * 24 * 3600), 0o600, b"");
    assert_eq!(one, other);
    // What the digest does depend on.
    assert_ne!(one.0, build("tampered", "022", "UTC", now, 0o755, b"!").0);
}

#[test]
fn nothing_in_the_image_is_writable_by_the_operator() {
    let Some((_, image)) = IMAGE.as_ref() else { return };
    assert!(image.files.len() > 100, "{}", image.files.len());
    for (path, file) in &image.files {
        assert_eq!(file.owner, (0, 0), "/{path}");
        // No setuid, setgid or sticky bit; written to by its owner only; read by all.
        assert_eq!(
            file.mode & !0o755,
            if file.is_link { 0o022 } else { 0 },
            "/{path} has mode {:o}",
            file.mode
        );
        assert_eq!(file.mode & 0o444, 0o444, "/{path} has mode {:o}", file.mode);
    }
    let programs: BTreeSet<&str> = image
        .files
        .iter()
        .filter(|(path, file)| {
            file.mode & 0o111 != 0 && !file.is_link && !file.content.is_empty() && !path.contains(".so")
        })
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(programs, BTreeSet::from(["usr/bin/resurgam"]), "nothing else can be started in it");
}

#[test]
fn image_has_what_name_resolution_tls_and_scanners_need() {
    let Some((_, image)) = IMAGE.as_ref() else { return };
    insta::assert_snapshot!(serde_json::to_string_pretty(&image.config["config"]).unwrap());
    assert_eq!(image.files["usr/bin/resurgam"].content, fs::read(BINARY).unwrap());
    assert_eq!(image.manifest["layers"].as_array().unwrap().len(), 2);

    let bundle = image.text("etc/ssl/certs/ca-certificates.crt");
    let marks = |mark: &str| bundle.lines().filter(|line| *line == mark).count();
    assert!(marks("-----BEGIN CERTIFICATE-----") > 100);
    assert_eq!(marks("-----BEGIN CERTIFICATE-----"), marks("-----END CERTIFICATE-----"));

    assert!(image.text("etc/nsswitch.conf").contains("hosts: files dns"));
    assert!(image.text("etc/passwd").contains("nonroot:x:65532:65532:"));
    assert!(image.files.contains_key("usr/share/zoneinfo/Europe/London"));
    assert!(image.text("usr/lib/os-release").contains("ID=debian"));
    for package in ["base-files", "ca-certificates", "libc6", "libgcc-s1", "tzdata"] {
        let control = image.text(&format!("var/lib/dpkg/status.d/{package}"));
        assert!(
            control.contains(&format!("Package: {package}\n")) && control.contains("\nVersion: "),
            "{control}"
        );
    }
}

#[test]
fn rust_binary_loads_with_the_libraries_of_the_image() {
    let Some((_, image)) = IMAGE.as_ref() else { return };
    let folder = TempDir::new().unwrap();
    let libraries = image.files.iter().filter(|(path, file)| path.contains(".so") && !file.is_link);
    let mut loader = None;
    for (path, file) in libraries {
        let name = path.rsplit('/').next().unwrap();
        let to = folder.path().join(name);
        fs::write(&to, &file.content).unwrap();
        if name.starts_with("ld-linux") {
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
            loader = Some(to);
        }
    }
    let mut command = Command::new(loader.expect("the image has a loader"));
    command.args(["--inhibit-cache", "--library-path"]).arg(folder.path());
    let listed = built(command.arg("--list").arg(env!("CARGO_BIN_EXE_xtask")));
    // `libc.so.6 => /…/libc.so.6 (0x…)`: all from the image but for the kernel's own, which has no path.
    let elsewhere: Vec<&str> = listed
        .lines()
        .filter(|line| !line.contains(folder.path().to_str().unwrap()) && !line.contains("linux-vdso"))
        .collect();
    assert!(elsewhere.is_empty(), "{listed}");
}

#[test]
fn bill_of_materials_lists_linked_crates_and_packages() {
    let Some((out, image)) = IMAGE.as_ref() else { return };
    let bill: Value =
        serde_json::from_slice(&fs::read(out.path().join("resurgam.cdx.json")).unwrap()).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(
        bill["metadata"]["component"]["purl"],
        format!("pkg:oci/resurgam@{}", image.digest.replace(':', "%3A"))
    );
    let components = bill["components"].as_array().unwrap();
    let versions: BTreeSet<(&str, &str)> = components
        .iter()
        .map(|component| (component["name"].as_str().unwrap(), component["version"].as_str().unwrap()))
        .collect();
    let has = |wanted: &str| versions.iter().any(|(name, _)| *name == wanted);
    for linked in ["resurgam", "kube", "rustls", "ring", "tokio"] {
        assert!(has(linked), "{linked} is missing");
    }
    for elsewhere in ["insta", "bolero", "control-plane", "serde_derive", "syn", "cc"] {
        assert!(!has(elsewhere), "{elsewhere} is not linked into the operator");
    }
    let lock = include_str!("../../../Cargo.lock");
    for component in components {
        let field =
            |name: &str| component[name].as_str().unwrap_or_else(|| panic!("{component} has no {name}"));
        let (name, version, purl) = (field("name"), field("version"), field("purl"));
        if purl.starts_with("pkg:deb/debian/") {
            let control = image.text(&format!("var/lib/dpkg/status.d/{name}"));
            assert!(control.contains(&format!("\nVersion: {version}\n")), "{component}");
        } else {
            assert!(purl.starts_with(&format!("pkg:cargo/{name}@")), "{component}");
            assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{component}");
        }
    }
    let references: Vec<&str> = components.iter().map(|c| c["bom-ref"].as_str().unwrap()).collect();
    let unique: BTreeSet<&str> = references.iter().copied().collect();
    assert_eq!(unique.len(), references.len(), "a bom-ref is there twice");
    for dependency in bill["dependencies"].as_array().unwrap() {
        for needed in dependency["dependsOn"].as_array().unwrap() {
            assert!(unique.contains(needed.as_str().unwrap()), "{dependency} needs what is not listed");
        }
    }
    let packages = fs::read_dir(PACKAGES.as_ref().unwrap()).unwrap().count();
    assert_eq!(references.iter().filter(|purl| purl.starts_with("pkg:deb/")).count(), packages);
}

#[test]
fn help_teaches_how_to_build_and_push() {
    let help = built(Command::new(env!("CARGO_BIN_EXE_xtask")).args(["image", "--help"]));
    insta::assert_snapshot!(help);
}

#[test]
fn wrong_arguments_are_refused_with_what_to_write_instead() {
    let refused = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let output = command.arg("image").args(arguments).env("RUST_BACKTRACE", "0").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let folder = TempDir::new().unwrap();
    let empty = folder.path().to_str().unwrap();
    let out = folder.path().join("out");
    let said = [
        refused(&["--push", "resurgam"]),
        refused(&["--push", "registry.example/Team/resurgam:1"]),
        refused(&["--name", "registry.example/resurgam@sha256:0"]),
        refused(&["--out", out.to_str().unwrap(), "--binary", BINARY, "--packages", empty]),
    ];
    insta::assert_snapshot!(said.join("\n").replace(empty, "FOLDER"));
}
