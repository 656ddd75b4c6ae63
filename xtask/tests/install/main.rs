//! README's section "Install", followed word by word on a real node.
//!
//! It takes root, some programs of the host, and a registry. Where they are missing it says so and passes; with
//! `RESURGAM_REAL_NODE=1`, as in CI, it fails instead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use control_plane::{ControlPlane, Identity, Options};
use rehearsal::Registry;
use serde_json::{Value, json};

/// The README's name for the registry of who installs.
const REGISTRY: &str = "registry.example";

/// From an API server to an installation that is checked.
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// What `resurgam check` warns of on a cluster that has nothing but a node.
const EXPECTED_WARNINGS: [&str; 5] =
    ["static-policies", "network-plugin", "snapshot-classes", "wildcards", "network-enforced"];

/// What two commands of README become here. `cargo install` would compile for ten minutes what is built already, and so would the image;
/// neither does the registry here have TLS, nor the node's network a way to Debian's packages.
const CARGO: &str = r#"#!/bin/sh
set -eu
case "$1 $2" in
  "install --locked") ln -s "$RESURGAM" "$BIN/resurgam" ;;
  "xtask image") shift 2; exec "$XTASK" image --binary "$RESURGAM" --packages "$PACKAGES" --out "$OUT" --plain-http "$@" ;;
  "tree "*) exec "$CARGO" "$@" ;;
  *) echo "README has a command that this test does not know: cargo $*" >&2; exit 1 ;;
esac
"#;

struct Parts {
    helm: PathBuf,
    registry: PathBuf,
    packages: PathBuf,
}

/// All that comes from outside, or nothing where this machine cannot run a real node.
fn parts() -> Option<Parts> {
    let wanted = std::env::var("RESURGAM_REAL_NODE").is_ok_and(|value| value == "1");
    let lacks = control_plane::real_node_lacks();
    if !lacks.is_empty() {
        let lacks = lacks.join(", ");
        assert!(!wanted, "RESURGAM_REAL_NODE=1, and this machine lacks {lacks}");
        // To stderr itself: a test runner captures the rest of what a passing test prints.
        let _ =
            writeln!(std::io::stderr(), "\nNOT TESTED: README's Install, as this machine lacks {lacks}\n");
        return None;
    }
    let part = |name| match wanted {
        true => Some(control_plane::part(name).unwrap()),
        false => control_plane::part_if_built(name).unwrap(),
    };
    let parts = Parts { helm: part("helm")?, registry: part("registry")?, packages: packages() };
    control_plane::build_real_node().unwrap();
    Some(parts)
}

/// Debian's packages for the image's base. They stay with the build, so that they are downloaded once.
fn packages() -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    if !out.join("packages").exists() {
        let mut image = Command::new(env!("CARGO_BIN_EXE_xtask"));
        image.args(["image", "--binary", "/usr/bin/true", "--out"]).arg(&out);
        passes(image);
    }
    out.join("packages")
}

/// Runs a command that has to succeed, and returns its stdout.
fn passes(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// The commands in a section of README: its first block of code.
fn commands(section: &str) -> String {
    let readme = fs::read_to_string(rehearsal::repository("README.md")).unwrap();
    let (_, section) = readme.split_once(&format!("\n## {section}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.split("\n```\n").nth(1).unwrap().to_owned()
}

/// What README presupposes: a default StorageClass.
async fn with_storage(cluster: &ControlPlane) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let folder = cluster.dir().join("evidence");
    fs::create_dir_all(&folder).unwrap();
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
    });
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "evidence"},
        "spec": {
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "persistentVolumeReclaimPolicy": "Retain", "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["real-1"]},
            ]}]}},
        },
    });
    rehearsal::apply(&admin, "platform", &[class, volume]).await.unwrap();
}

#[test]
fn install_in_readme_works_as_written() {
    let Some(parts) = parts() else { return };
    let operator = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("resurgam");
    assert!(operator.is_file(), "{} is missing: run cargo test --workspace", operator.display());
    control_plane::enter_private_network().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [bin, registry, out] = ["bin", "registry", "out"].map(|name| folder.path().join(name));
    for folder in [&bin, &registry, &out] {
        fs::create_dir(folder).unwrap();
    }

    let cluster = runtime.block_on(async {
        let options = Options { nodes: 0, real_node: true, ..Options::default() };
        let cluster = ControlPlane::start(options).await.unwrap();
        with_storage(&cluster).await;
        cluster
    });
    let registry = Registry::start(&parts.registry, &registry, None).unwrap();
    symlink(&parts.helm, bin.join("helm")).unwrap();
    symlink(cluster.binary("kubectl").unwrap(), bin.join("kubectl")).unwrap();
    fs::write(bin.join("cargo"), CARGO).unwrap();
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = std::ffi::OsString::from(&bin);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let shell = |commands: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", commands]).current_dir(rehearsal::repository("."));
        shell.env("PATH", &path).env("HOME", folder.path()).env("BIN", &bin).env("OUT", &out);
        shell.env("RESURGAM", &operator).env("XTASK", env!("CARGO_BIN_EXE_xtask"));
        shell.env("PACKAGES", &parts.packages).env("CARGO", env!("CARGO"));
        shell.env("KUBECONFIG", cluster.kubeconfig(Identity::PlatformAdministrator));
        passes(shell)
    };

    let began = Instant::now();
    let output = shell(&commands("Install").replace(REGISTRY, registry.address()));
    assert!(began.elapsed() < FIVE_MINUTES, "it took {:?}:\n{output}", began.elapsed());
    for line in
        ["NAME: resurgam", "deployment \"resurgam\" successfully rolled out", "Phase:          Succeeded"]
    {
        assert!(output.contains(line), "no {line:?} in\n{output}");
    }

    let report: Value = serde_json::from_str(&shell("resurgam check --output json")).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let warnings: Vec<&str> = checks
        .iter()
        .filter(|check| check["result"] != "passed" && check["result"] != "notApplicable")
        .map(|check| check["id"].as_str().unwrap())
        .collect();
    assert_eq!(warnings, EXPECTED_WARNINGS, "{report:#}");
    let page = fs::read_to_string(rehearsal::repository("docs/install.md")).unwrap();
    for warning in EXPECTED_WARNINGS {
        assert!(page.contains(&format!("\n| `{warning}` |")), "docs/install.md does not tell of {warning}");
    }
    drop(registry);
    runtime.block_on(cluster.stop()).unwrap();
}
