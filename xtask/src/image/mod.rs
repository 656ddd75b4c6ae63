//! `cargo xtask image`: builds the operator's image from a binary and Debian packages, without a container daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

mod layer;
mod layout;
mod packages;
mod push;
mod reference;
mod sbom;

use layer::Tree;
use layout::Image;
use reference::Reference;

/// User ID of the operator, which no user of a node has.
const USER: u32 = 65532;

/// Build the operator's image, without a container daemon.
///
/// Compiles the operator for release, adds it to a base of Debian packages, and writes the image as an OCI layout and as an archive. Two
/// builds of one commit with the same packages have the same digest; docs/image.md says how to verify another person's build. Only the
/// digest is printed on stdout.
#[derive(clap::Args)]
#[command(after_long_help = "\
Written to --out:
  oci/               the OCI layout
  resurgam.tar       the same, for `ctr -n k8s.io images import` and `skopeo copy oci-archive:`
  resurgam.cdx.json  the bill of materials, CycloneDX 1.5: crates and Debian packages
  packages/          the Debian packages that were used: --packages makes the same base of them

Examples:
  cargo xtask image
  cargo xtask image --push registry.example/team/resurgam:0.1.0
  cargo xtask image --packages target/image/packages    # offline, on the same base as before
  cargo xtask image --binary target/debug/resurgam      # quick, to try something

Needs apt-get and dpkg-deb (Debian, or one of its kin), and installs cargo-auditable if need be.")]
pub(crate) struct Args {
    /// Output folder.
    #[arg(long, value_name = "FOLDER", default_value = "target/image")]
    out: PathBuf,
    /// Name of the image in the archive.
    #[arg(long, value_name = "REF", default_value = concat!("localhost/resurgam:", env!("CARGO_PKG_VERSION")))]
    name: Reference,
    /// Use this binary and compile nothing. The image then names no commit; the bill of materials lists the crates of this checkout.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Use the Debian packages in this folder and download nothing.
    #[arg(long, value_name = "FOLDER")]
    packages: Option<PathBuf>,
    /// Also push the image to REGISTRY/REPOSITORY:TAG, with the credentials of `docker login` or `skopeo login`.
    #[arg(long, value_name = "REF")]
    push: Option<Reference>,
    /// Push without TLS, to a registry on this machine.
    #[arg(long, requires = "push")]
    plain_http: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    /// The digest.
    Text,
    /// The digest, files, packages, and the pushed reference.
    Json,
}

/// A binary, with the commit that it was built from.
struct Binary {
    path: PathBuf,
    commit: Option<Commit>,
}

struct Commit {
    /// SHA of the commit, with the suffix `-dirty` if files differ from it.
    revision: String,
    time: Timestamp,
}

/// Builds and writes the image, and pushes it if requested.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let folder = match &args.packages {
        Some(folder) => folder.clone(),
        None => {
            say("downloading the base layer's packages");
            let folder = args.out.join("packages");
            packages::fetch(&folder)?;
            folder
        }
    };
    let packages = packages::read(&folder)?;
    for package in &packages {
        say(&format!("{} {}", package.name, package.version));
    }
    let binary = match &args.binary {
        Some(path) => Binary { path: path.clone(), commit: None },
        None => compile(&root)?,
    };
    say("writing the image");
    let image = assemble(&binary, &packages)?;
    let (layout, archive) = (args.out.join("oci"), args.out.join("resurgam.tar"));
    image.write(&layout, &archive, &args.name.to_string(), &args.name.tag)?;
    let created = binary.commit.as_ref().map(|commit| commit.time.to_string());
    let mut bill = sbom::bill(&root, &packages, &image.digest, created.as_deref())?;
    bill.sort_all_objects();
    let bill_path = args.out.join("resurgam.cdx.json");
    let text = serde_json::to_string_pretty(&bill)? + "\n";
    fs::write(&bill_path, text).with_context(|| format!("cannot write {}", bill_path.display()))?;
    if let Some(to) = &args.push {
        say(&format!("pushing to {to}"));
        push::push(&image, to, args.plain_http)?;
    }
    match args.output {
        Output::Text => anstream::println!("{}", image.digest),
        Output::Json => {
            let versions = packages.iter().map(|package| (package.name.clone(), json!(package.version)));
            let built = json!({
                "digest": image.digest, "name": args.name.to_string(), "layout": layout, "archive": archive,
                "sbom": bill_path, "packages": serde_json::Map::from_iter(versions),
                "pushed": args.push.as_ref().map(ToString::to_string),
            });
            anstream::println!("{}", serde_json::to_string_pretty(&built)?);
        }
    }
    Ok(())
}

/// Adds the binary to the base. The base is a separate layer, which changes with the packages only.
fn assemble(binary: &Binary, packages: &[packages::Package]) -> Result<Image> {
    let base = packages::base(packages)?;
    let content = fs::read(&binary.path)
        .with_context(|| format!("cannot read the binary {}", binary.path.display()))?;
    ensure!(content.starts_with(b"\x7fELF"), "{} is no program of Linux", binary.path.display());
    let mut operator = Tree::default();
    operator.program("usr/bin/resurgam", content);
    let mut labels = json!({
        "org.opencontainers.image.title": "resurgam",
        "org.opencontainers.image.description": "Brings services back after a cyber attack, in order, each proved healthy and intact",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": "Apache-2.0",
    });
    let mut config = json!({
        "config": {
            "Entrypoint": ["/usr/bin/resurgam"],
            "User": format!("{USER}:{USER}"),
            "WorkingDir": "/",
            "Env": ["PATH=/usr/bin"],
        },
    });
    if let Some(commit) = &binary.commit {
        let created = json!(commit.time.to_string());
        labels["org.opencontainers.image.revision"] = json!(commit.revision);
        labels["org.opencontainers.image.created"] = created.clone();
        config["created"] = created;
    }
    config["config"]["Labels"] = labels.clone();
    Image::new(&[&base, &operator], config, &labels)
}

/// Compiles the operator independently of the checkout's path, with the list of its crates.
fn compile(root: &Path) -> Result<Binary> {
    let commit = commit(root)?;
    let mut auditable = Command::new("cargo");
    auditable.args(["auditable", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !auditable.status().context("cannot run cargo")?.success() {
        say("cargo-auditable is not here: installing it, once (about a minute)");
        run_through(Command::new("cargo").args(["install", "--locked", "cargo-auditable"]))?;
    }
    let target = root.join("target/image-build");
    say(&format!("compiling {}", commit.revision));
    let mut build = Command::new("cargo");
    build.current_dir(root).args(["auditable", "build", "--release", "--locked"]);
    build.args(["--package", "resurgam", "--bin", "resurgam", "--target-dir"]).arg(&target);
    // Panics name the file that they happened in, by its path when it was compiled. All flags in one, so that a path may have spaces.
    let moved = remapped(root)?.map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
    build.env("CARGO_ENCODED_RUSTFLAGS", moved.join("\x1f"));
    build.env("SOURCE_DATE_EPOCH", commit.time.as_second().to_string());
    build.env("RESURGAM_COMMIT", &commit.revision);
    run_through(&mut build)?;
    Ok(Binary { path: target.join("release/resurgam"), commit: Some(commit) })
}

/// Local folders, and the names that replace them in the binary.
fn remapped(root: &Path) -> Result<[(String, String); 3]> {
    let print = |argument: &[&str]| -> Result<String> {
        let mut command = Command::new("rustc");
        command.current_dir(root).args(argument);
        Ok(String::from_utf8(packages::output(command, "it compiles the operator")?.stdout)?)
    };
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("CARGO_HOME is not known")?;
    let about = print(&["-vV"])?;
    let commit = about.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    // Where the source of the standard library is installed, its code is named by that instead of by its commit.
    let library = format!("{}/lib/rustlib/src/rust", print(&["--print", "sysroot"])?.trim());
    Ok([
        (root.display().to_string(), "/resurgam".to_owned()),
        (home.display().to_string(), "/cargo".to_owned()),
        (library, format!("/rustc/{commit}")),
    ])
}

fn commit(root: &Path) -> Result<Commit> {
    let git = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new("git");
        command.current_dir(root).args(arguments);
        let output = packages::output(command, "the image tells which commit it was built from")?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let mut revision = git(&["rev-parse", "HEAD"])?;
    if !git(&["status", "--porcelain"])?.is_empty() {
        say("files differ from the commit: whoever builds the commit gets another digest");
        revision += "-dirty";
    }
    let time = Timestamp::from_second(git(&["log", "-1", "--format=%ct"])?.parse()?)?;
    Ok(Commit { revision, time })
}

/// Runs a program that reports its own progress, with stdout redirected to stderr: stdout is for the digest.
fn run_through(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}");
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

fn say(text: &str) {
    anstream::eprintln!("image: {text}");
}
